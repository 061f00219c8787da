"""What is read, and from what."""

from __future__ import annotations

import difflib
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import LINES, PAGES, key
from PIL import Image

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


@pytest.mark.parametrize("path", FORMATS, ids=lambda path: path.name)
def test_every_format_reads_the_same_text(ocr: ThreadSafeOCR, band: OcrResult, path: Path) -> None:
    page = ocr.read(path)
    words = [set(p.text.replace("\n", "")) for p in (band, page)]
    assert len(words[0] & words[1]) >= 0.95 * len(words[0])
    assert abs(len(page.lines) - len(band.lines)) <= 1


def test_every_kind_of_input_gives_the_same_answer(ocr: ThreadSafeOCR, band: OcrResult) -> None:
    pixels = bgr(BAND)
    wide = np.zeros((pixels.shape[0], pixels.shape[1] * 2, 3), np.uint8)
    wide[:, ::2] = pixels
    frozen = pixels.copy()
    frozen.flags.writeable = False
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    inputs = [
        BAND, str(BAND), BAND.read_bytes(), io.BytesIO(BAND.read_bytes()), Image.open(BAND), pixels, wide[:, ::2], frozen, opaque,
        np.ascontiguousarray(pixels[::-1])[::-1], np.asfortranarray(pixels),
    ]  # fmt: skip
    for value in inputs:
        assert key(ocr.read(value)) == key(band)
    assert key(ocr.read(pixels[:, :, ::-1], color="rgb")) == key(band)


def test_grey_arrays_of_two_and_three_dimensions_are_one(ocr: ThreadSafeOCR) -> None:
    grey = np.asarray(Image.open(LINES[0]).convert("L"))
    assert key(ocr.read(grey)) == key(ocr.read(grey[:, :, None])) == key(ocr.read(np.dstack([grey] * 3)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F"])
def test_pil_images_of_every_mode_are_read(ocr: ThreadSafeOCR, mode: str) -> None:
    assert ocr.read(Image.open(LINES[0]).convert("RGB").convert(mode)).text


def test_an_empty_page_is_an_empty_result(ocr: ThreadSafeOCR) -> None:
    page = ocr.read(np.full((200, 300, 3), 255, np.uint8))
    assert (page.lines, page.text, page.width, page.height) == ((), "", 300, 200)
    assert ocr.ocr(np.full((200, 300, 3), 255, np.uint8)) == [None]


def test_a_result_says_where_each_line_is_and_survives_pickling(band: OcrResult) -> None:
    line = band.lines[0]
    x0, y0, x1, y1 = line.box
    assert 0 <= x0 < x1 <= band.width and 0 <= y0 < y1 <= band.height
    assert line.polygon.dtype == np.float32 and line.polygon.shape == (4, 2)
    assert 0 < line.score <= 1
    assert pickle.loads(pickle.dumps(band)) == band
    assert band.to_dict()["lines"][0]["text"] == line.text
    assert line.text in band.to_json()
    with pytest.raises(AttributeError):
        band.width = 3  # type: ignore[misc]


def test_an_engine_pickles_as_its_arguments(ocr: ThreadSafeOCR) -> None:
    with ThreadSafeOCR(rec_score_thresh=0.5) as engine, pickle.loads(pickle.dumps(engine)) as twin:
        assert twin._arguments == engine._arguments
        assert key(twin.read(LINES[0])) == key(engine.read(LINES[0]))


def test_paddleocrs_list_shapes(ocr: ThreadSafeOCR) -> None:
    (lines,) = ocr.ocr(LINES[0])
    box, (text, score) = lines[0]
    assert np.array(box).shape == (4, 2) and isinstance(text, str) and isinstance(score, float)
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
