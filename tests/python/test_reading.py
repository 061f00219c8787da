"""What is read, and from what."""

from __future__ import annotations

import difflib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.Image import Transpose

from conftest import LINES, PAGES, TEXT, key
from threadsafe_ocr import OcrResult, ThreadSafeOCR

FORMATS = sorted((PAGES / "formats").iterdir())
BAND = PAGES / "formats" / "rgb.png"


def bgr(path: Path) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(Image.open(path).convert("RGB"))[:, :, ::-1])


@pytest.fixture(scope="module")
def band(ocr: ThreadSafeOCR) -> OcrResult:
    return ocr.read(BAND)


PADDLE = {
    "det_limit_side_len": 64, "det_limit_type": "min", "det_max_side": 4000, "det_thresh": 0.3, "det_box_thresh": 0.6,
    "det_unclip_ratio": 1.5, "rec_score_thresh": 0.0, "rec_group": 6, "rec_min_width": 320, "rec_max_width": 3200,
    "use_textline_orientation": False,
}  # fmt: skip


@pytest.mark.parametrize("name", ["docs_zh/qyxf-book-doc-p003.png", "scans_en/eurotext.png", "derived/qyxf-book-doc-p011_skew7.png"])
def test_with_paddleocrs_settings_the_answer_is_paddleocrs(ocr: ThreadSafeOCR, golden: dict, name: str) -> None:
    oracle = golden[name]
    page = ocr.read(bgr(PAGES / name), **PADDLE)
    texts = [line.text for line in page.lines]
    equal = sum(a == b for a, b in zip(texts, oracle["rec_texts"], strict=False))
    assert len(texts) == len(oracle["rec_texts"])
    assert equal >= 0.98 * len(texts), [(a, b) for a, b in zip(texts, oracle["rec_texts"], strict=True) if a != b]
    corners = np.array([line.polygon for line in page.lines])
    assert np.abs(corners - np.array(oracle["rec_polys"])).max() <= 1


def runs(ocr: ThreadSafeOCR) -> int:
    return ocr.stats()["inference_seconds"]["recognition"]["count"]


def test_lines_of_the_same_pixels_are_read_once_and_answered_each(ocr: ThreadSafeOCR) -> None:
    one, other = bgr(LINES[0]), bgr(LINES[1])
    alone = [ocr.recognize(line) for line in (one, other)]
    before = runs(ocr)
    assert [read.text for read in ocr.recognize([one, other, one.copy(), one])] == [alone[i].text for i in (0, 1, 0, 0)]
    assert runs(ocr) - before == 2
    height, width = one.shape[:2]
    page = np.full((4 * height + 200, width + 80, 3), 255, np.uint8)
    for place in range(3):
        page[40 + place * (height + 40) :, 40:][:height, :width] = one
    before = runs(ocr)
    first, *others = ocr.read(page, use_textline_orientation=False).lines
    assert len(others) == 2
    assert runs(ocr) - before == 1
    assert {(line.text, line.score) for line in others} == {(first.text, first.score)}
    page[60 : 60 + height // 4, 60] -= 1
    shaded = ocr.read(page, use_textline_orientation=False).lines
    assert len(shaded) == 3
    assert runs(ocr) - before == 3, "a shade makes another line"


@pytest.mark.parametrize("path", FORMATS, ids=lambda path: path.name)
def test_every_format_reads_the_same_text(ocr: ThreadSafeOCR, band: OcrResult, path: Path) -> None:
    page = ocr.read(path)
    if np.array_equal(bgr(path), bgr(BAND)):
        assert key(page) == key(band)
    assert difflib.SequenceMatcher(None, page.text, band.text, autojunk=False).ratio() > 0.96


def test_every_kind_of_input_gives_the_same_answer(ocr: ThreadSafeOCR) -> None:
    path = LINES[0]
    content, pixels = path.read_bytes(), bgr(path)
    wide = np.zeros((pixels.shape[0], pixels.shape[1] * 2, 3), np.uint8)
    wide[:, ::2] = pixels
    frozen = pixels.copy()
    frozen.flags.writeable = False
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    inputs = [
        path, str(path), content, bytearray(content), memoryview(content), io.BytesIO(content), path.open("rb"), Image.open(path), pixels,
        wide[:, ::2], frozen, opaque, np.ascontiguousarray(pixels[::-1])[::-1], np.asfortranarray(pixels), np.array(pixels, ndmin=3),
    ]  # fmt: skip
    answers = [key(ocr.read(value)) for value in inputs]
    inputs[6].close()
    answers.append(key(ocr.read(pixels[:, :, ::-1], color="rgb")))
    answers.append(key(ocr.read(np.asarray(Image.open(path).convert("RGBA")), color="rgb")))
    assert answers == [key(ocr.read(path))] * 17
    assert key(ocr.read(Image.open(path), color="bgr")) == answers[0], "a PIL image says itself what its channels are"
    assert key(ocr.read(BAND.read_bytes())) == key(ocr.read(bgr(BAND)))


def test_grey_arrays_of_two_and_three_dimensions_are_one(ocr: ThreadSafeOCR) -> None:
    grey = np.asarray(Image.open(LINES[0]).convert("L"))
    assert key(ocr.read(grey)) == key(ocr.read(grey[:, :, None])) == key(ocr.read(np.dstack([grey] * 3)))


def in_mode(mode: str) -> Image.Image:
    """The first line as a PIL image of `mode`."""
    image = Image.open(LINES[0]).convert("RGB")
    if mode.startswith("I;16"):
        sixteen = np.asarray(image.convert("L")).astype(">u2" if mode == "I;16B" else "<u2") * 257
        return Image.frombytes(mode, image.size, sixteen.tobytes())
    if mode == "I of 16 bits":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.int32) * 257)
    if mode == "LAB":
        profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    through = {"La": "LA", "PA": "P", "RGBa": "RGBA"}.get(mode, mode)
    return image.convert(through).convert(mode)


MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F"]


@pytest.mark.parametrize("mode", [*MODES, "I;16", "I;16L", "I;16B", "I of 16 bits"])
def test_pil_images_of_every_mode_are_read(ocr: ThreadSafeOCR, mode: str) -> None:
    assert ocr.read(in_mode(mode)).text == TEXT


def test_black_on_transparent_pil_images_are_read(ocr: ThreadSafeOCR) -> None:
    ink = Image.open(LINES[0]).convert("L").point(lambda value: 255 - value)
    for mode in ("RGBA", "LA"):
        transparent = Image.new(mode, ink.size, 0)
        transparent.putalpha(ink)
        assert ocr.read(transparent).text == TEXT


# What undoes each EXIF orientation, by its number.
STORED = {
    1: None, 2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_270,
}  # fmt: skip


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_is_upright(ocr: ThreadSafeOCR, form: str, orientation: int) -> None:
    image = Image.open(LINES[0]).convert("RGB")
    stored = image if STORED[orientation] is None else image.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = io.BytesIO()
    stored.save(content, form, exif=exif, quality=98, lossless=True)
    for value in (content.getvalue(), Image.open(content)):
        page = ocr.read(value)
        assert (page.text, page.width, page.height) == (TEXT, *image.size)


def test_broken_metadata_does_not_cost_the_page(ocr: ThreadSafeOCR) -> None:
    image = Image.open(LINES[0]).convert("RGB")
    for form in ("JPEG", "PNG", "WEBP", "TIFF"):
        for broken in ({"exif": b"Exif\0\0MM\0*\xff\xff\xff\xff"}, {"icc_profile": b"no profile at all"}, {"dpi": (0, 65535)}):
            if form == "TIFF" and "exif" in broken:
                continue  # PIL refuses to write it.
            content = io.BytesIO()
            image.save(content, form, quality=98, lossless=True, **broken)
            assert ocr.read(content.getvalue()).text == TEXT, (form, broken)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_frame_of_several_is_read(ocr: ThreadSafeOCR, form: str) -> None:
    image = Image.open(LINES[0]).convert("RGB")
    content = io.BytesIO()
    image.save(content, form, save_all=True, append_images=[Image.new("RGB", image.size, "white")] * 2, lossless=True)
    assert ocr.read(content.getvalue()).text == TEXT
    assert ocr.read(Image.open(content)).text == TEXT


def test_an_empty_page_is_an_empty_result(ocr: ThreadSafeOCR) -> None:
    page = ocr.read(np.full((200, 300, 3), 255, np.uint8))
    assert (page.lines, page.text, page.width, page.height) == ((), "", 300, 200)
    assert ocr.ocr(np.full((200, 300, 3), 255, np.uint8)) == [None]


def test_paddleocrs_list_shapes(ocr: ThreadSafeOCR) -> None:
    (lines,) = ocr.ocr(LINES[0])
    box, (text, score) = lines[0]
    assert (np.array(box).shape, type(text), type(score)) == ((4, 2), str, float)
    ((crop_text, _),) = ocr.ocr(bgr(LINES[0]), det=False)[0]
    assert crop_text
    assert np.array(ocr.ocr(LINES[0], rec=False)[0]).shape[1:] == (4, 2)
    assert ocr.ocr(bgr(LINES[0]), det=False, rec=False)[0][0][0] == "0"


def test_crops_are_answered_one_for_one_in_order(ocr: ThreadSafeOCR) -> None:
    crops = [bgr(path) for path in LINES]
    several = ocr.recognize(crops)
    assert [line.text for line in several] == [ocr.recognize(crop).text for crop in crops]


def test_pages_come_in_order_and_errors_in_their_places(ocr: ThreadSafeOCR, tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    pages = list(ocr.read_many([LINES[0], missing, LINES[1]], return_errors=True))
    assert key(pages[0]) == key(ocr.read(LINES[0]))
    assert isinstance(pages[1], FileNotFoundError)
    assert key(pages[2]) == key(ocr.read(LINES[1]))
    with pytest.raises(FileNotFoundError):
        list(ocr.read_many([missing]))
    assert [type(page) for page in ocr.read_many([None, LINES[0]], return_errors=True)] == [TypeError, OcrResult]
    with pytest.raises(TypeError, match="no_such_option"):
        list(ocr.read_many([LINES[0]], return_errors=True, no_such_option=1))


def test_upside_down_lines_are_turned(ocr: ThreadSafeOCR) -> None:
    line = bgr(LINES[0])
    assert ocr.recognize(np.ascontiguousarray(line[::-1, ::-1])).text == ocr.recognize(line).text


@pytest.fixture(scope="module")
def paragraph(ocr: ThreadSafeOCR) -> np.ndarray:
    """The top of a page of English text."""
    return bgr(PAGES / "docs_en/first-latex-doc-p007.png")[:900]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_page_reads_as_the_upright_one_in_its_own_order(ocr: ThreadSafeOCR, paragraph: np.ndarray, quarters: int) -> None:
    upright = ocr.read(paragraph).text
    assert len(upright) > 200
    turned = ocr.read(np.ascontiguousarray(np.rot90(paragraph, quarters))).text
    assert difflib.SequenceMatcher(None, upright, turned, autojunk=False).ratio() > 0.9, turned


def test_an_upside_down_line_on_an_upright_page_is_read(ocr: ThreadSafeOCR, paragraph: np.ndarray) -> None:
    longest = max(ocr.read(paragraph).lines, key=lambda line: len(line.text))
    x0, y0, x1, y1 = (round(edge) for edge in longest.box)
    page = paragraph.copy()
    page[y0:y1, x0:x1] = paragraph[y0:y1, x0:x1][::-1, ::-1]
    turned = [line for line in ocr.read(page).lines if line.upside_down]
    assert [difflib.SequenceMatcher(None, line.text, longest.text).ratio() > 0.9 for line in turned] == [True], turned


@pytest.mark.parametrize("shape", [(41, 1), (1, 41), (37, 501), (200, 40)])
def test_a_crop_of_any_size_is_one_line(ocr: ThreadSafeOCR, shape: tuple[int, int]) -> None:
    crop = np.full((*shape, 3), 255, np.uint8)
    line = ocr.recognize(crop)
    assert line.polygon.max(axis=0).tolist() == [shape[1], shape[0]]
    assert [type(one.text) for one in ocr.recognize([crop, crop])] == [str, str]
