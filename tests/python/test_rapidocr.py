"""`threadsafe_ocr.compat.rapidocr` against what RapidOCR 3.10 answered (scripts/record_rapidocr.py), and what its users rely on."""

from __future__ import annotations

import doctest
import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from conftest import DATA, LINES, PAGES, TEXT
from test_reading import bgr
from threadsafe_ocr import ConfigError, ModelNotFoundError, OcrError, runtime
from threadsafe_ocr.compat import rapidocr
from threadsafe_ocr.compat.rapidocr import (
    LangRec,
    LoadImageError,
    ModelType,
    OCRVersion,
    RapidOCR,
    TextClsOutput,
    TextDetOutput,
    TextRecOutput,
)
from threadsafe_ocr.compat.rapidocr.output import markdown

# Pages that are reduced from 2,339 pixels, skewed, upside down, enlarged; lines with black above and below.
GOLDEN = json.loads((DATA / "golden" / "rapidocr310.json").read_text())["pages"]
PAGE = PAGES / "scans_en" / "table_img2table.png"
# Detection at the page's own size: what follows is not about what is read, and need not take long.
SMALL = {"Det.limit_side_len": 32, "Global.use_vertical_padding": False}


@pytest.fixture(scope="module")
def rapid() -> RapidOCR:
    return RapidOCR()


@pytest.fixture(scope="module")
def quick() -> RapidOCR:
    return RapidOCR(params=SMALL)


@pytest.fixture(scope="module")
def words(quick: RapidOCR) -> tuple[str, ...]:
    """What it reads of LINES[0]."""
    found = quick(bgr(LINES[0])).txts
    assert "".join(found).replace(" ", "") in TEXT.replace(" ", "")
    return found


@pytest.mark.parametrize("name", GOLDEN)
def test_a_page_reads_as_in_rapidocr(rapid: RapidOCR, name: str) -> None:
    wanted = GOLDEN[name]["lines"]
    result = rapid(bgr(PAGES / name))
    assert list(result.txts or ()) == [line["txt"] for line in wanted]
    if wanted:
        assert np.abs(np.array([line["box"] for line in wanted]) - result.boxes).max() <= 1.5
        assert np.abs(np.array([line["score"] for line in wanted]) - result.scores).max() < 0.01
        assert (result.boxes.dtype, result.boxes.shape) == (np.float32, (len(wanted), 4, 2))


@pytest.mark.parametrize("name", GOLDEN)
def test_markdown_is_laid_out_as_in_rapidocr(name: str) -> None:
    page = GOLDEN[name]
    boxes = np.array([line["box"] for line in page["lines"]], np.float32)
    assert markdown(boxes, [line["txt"] for line in page["lines"]]) == page["markdown"]


@pytest.mark.parametrize("name", [name for name in GOLDEN if "line" in GOLDEN[name]])
def test_a_line_by_itself_reads_as_in_rapidocr(rapid: RapidOCR, name: str) -> None:
    wanted, (label, score) = GOLDEN[name]["line"], GOLDEN[name]["label"]
    line, looked = rapid(bgr(PAGES / name), use_det=False), rapid(bgr(PAGES / name), use_det=False, use_rec=False)
    assert isinstance(line, TextRecOutput)
    assert isinstance(looked, TextClsOutput)
    assert line.txts == (wanted["txt"],)
    assert line.scores == (pytest.approx(wanted["score"], abs=0.01),)
    assert looked.cls_res == [(label, pytest.approx(score, abs=0.01))]


@pytest.mark.parametrize("name", [name for name in GOLDEN if "boxes" in GOLDEN[name]])
def test_detection_alone_finds_rapidocrs_boxes(rapid: RapidOCR, name: str) -> None:
    found = rapid(bgr(PAGES / name), use_rec=False)
    assert isinstance(found, TextDetOutput)
    assert np.abs(np.array(GOLDEN[name]["boxes"]) - found.boxes).max() <= 1.5
    assert len(found) == len(found.scores)


@pytest.mark.parametrize("name", [name for name in GOLDEN if "words" in GOLDEN[name]])
def test_words_or_characters_have_rapidocrs_boxes(rapid: RapidOCR, name: str) -> None:
    result = rapid(bgr(PAGES / name), return_word_box=True, return_single_char_box="line" in GOLDEN[name])
    wanted, got = GOLDEN[name]["words"], result.word_results
    assert [[text for text, _, _ in line] for line in got] == [[text for text, _ in line] for line in wanted]
    # Of a line that reaches the page's edge RapidOCR's boxes run into its own padding.
    within = 8 if "line" in GOLDEN[name] else 2
    for line, theirs, text, score in zip(got, wanted, result.txts, result.scores, strict=True):
        assert np.abs(np.array([box for _, _, box in line]) - np.array([box for _, box in theirs])).max() <= within
        assert all(type(edge) is int for _, _, box in line for corner in box for edge in corner)
        # Each word has its own score, where RapidOCR gives it that of the character of the same number.
        mean = np.average([own for _, own, _ in line], weights=[len(word) for word, _, _ in line])
        assert " " in text or mean == pytest.approx(score, abs=1e-4)


def test_options_of_a_call_leave_later_calls_alone(quick: RapidOCR) -> None:
    image = bgr(PAGE)
    before = quick(image)
    assert len(quick(image, text_score=0.995)) < len(before)
    assert isinstance(quick(image, use_rec=False), TextDetOutput)
    assert quick(image, box_thresh=0.99) is not None
    after = quick(image)
    assert (after.txts, after.scores) == (before.txts, before.scores)


def test_eight_threads_get_their_own_options_answers(quick: RapidOCR) -> None:
    image = bgr(LINES[0])
    calls = [{}, {"text_score": 1.0}, {"use_rec": False}, {"use_det": False}]
    alone = [repr(_answer(quick(image, **call))) for call in calls]
    wrong: list[str] = []

    def work(first: int) -> None:
        for i in range(8):
            call = (first + i) % len(calls)
            answer = repr(_answer(quick(image, **calls[call])))
            if answer != alone[call]:
                wrong.append(answer)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(set(alone)) == 4


def _answer(result: object) -> dict[str, object]:
    return {"kind": type(result).__name__} | {
        key: value for key, value in vars(result).items() if not key.startswith(("_", "elapse", "viser", "img"))
    }


def test_an_image_without_text_has_no_text(quick: RapidOCR) -> None:
    result = quick(np.full((64, 64, 3), 255, np.uint8))
    assert (len(result), result.boxes, result.txts, result.scores) == (0, None, None, None)
    assert result.to_json() is None
    assert result.vis() is None
    assert result.to_markdown() == markdown(None, None)


def test_paths_bytes_pil_images_and_arrays_are_read(quick: RapidOCR, words: tuple[str, ...]) -> None:
    gray = np.asarray(Image.open(LINES[0]).convert("L"))
    opaque = np.full_like(gray, 255)
    inputs = [
        str(LINES[0]), LINES[0], LINES[0].read_bytes(), Image.open(LINES[0]), bgr(LINES[0]), gray, gray[:, :, None],
        np.stack([gray, opaque], axis=2), np.dstack([bgr(LINES[0])[:, :, ::-1], opaque]),
    ]  # fmt: skip
    assert [quick(image).txts for image in inputs] == [words] * len(inputs)


def test_light_text_on_nothing_is_laid_on_black(quick: RapidOCR, words: tuple[str, ...]) -> None:
    ink = 255 - np.asarray(Image.open(LINES[0]).convert("L"))
    page = np.dstack([np.full((*ink.shape, 3), 255, np.uint8), ink])
    content = io.BytesIO()
    Image.fromarray(page).save(content, "PNG")
    assert quick(page).txts == quick(content.getvalue()).txts == words


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_files_are_turned_as_their_exif_says_bytes_and_pil_images_are_not_as_in_rapidocr(
    quick: RapidOCR, tmp_path: Path, kind: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"page.{kind.lower()}"
    with Image.open(LINES[0]) as line:
        size = line.size
        line.convert("RGB").save(path, kind, exif=exif)
    shapes = [quick(given).img.shape for given in (path, path.read_bytes(), Image.open(path))]
    assert shapes == [(*size, 3), (*size[::-1], 3), (*size[::-1], 3)]


def test_a_card_that_is_not_there_is_told_and_the_cpu_reads(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "may_use_gpu", lambda: False)
    wished = {"EngineConfig.onnxruntime.use_cuda": True, "EngineConfig.onnxruntime.use_dml": True}
    with pytest.warns(UserWarning, match=r"use_dml runs on the CPU; use_cuda runs on the CPU: onnxruntime-gpu"):
        assert RapidOCR(params={**SMALL, **wished})(bgr(LINES[0])).txts == words


@pytest.mark.parametrize("image", ["missing.png", b"hello", np.zeros((4, 4), np.float32), np.zeros((2, 3, 4, 5), np.uint8), 7])
def test_what_cannot_be_read_is_a_load_image_error(quick: RapidOCR, image: object) -> None:
    with pytest.raises(LoadImageError):
        quick(image)


def test_the_answer_has_rapidocrs_fields_and_can_be_drawn(quick: RapidOCR, tmp_path: Path) -> None:
    result = quick(str(PAGE))
    assert result.img.shape == bgr(PAGE).shape
    assert result.to_json()[0] == {"box": result.boxes[0].tolist(), "txt": result.txts[0], "score": result.scores[0]}
    assert result.elapse == sum(result.elapse_list) > 0
    drawn = result.vis(str(tmp_path / "new" / "drawn.png"))
    assert drawn.shape == (result.img.shape[0], 2 * result.img.shape[1], 3)
    assert np.array_equal(bgr(tmp_path / "new" / "drawn.png"), drawn)
    assert quick(str(PAGE), use_rec=False).vis().shape == drawn.shape
    for line in (LINES[0], LINES[0].read_bytes()):
        for steps in ({"use_det": False}, {"use_det": False, "use_rec": False}, {}):
            assert quick(line, **steps).vis().ndim == 3


def test_a_file_of_settings_and_dotted_keys_over_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    path = tmp_path / "rapid.yaml"
    path.write_text(yaml.safe_dump({"Global": {"text_score": 1.0}, "Det": {"box_thresh": 0.4}}))
    assert len(RapidOCR(config_path=str(path), params=SMALL)(LINES[0])) == 0
    both = RapidOCR(str(path), {**SMALL, "Global.text_score": 0.5, "Rec.model_type": ModelType.SMALL, "Rec.lang_type": LangRec.EN})
    assert both(LINES[0]).txts == words
    assert (both.cfg["Det"]["box_thresh"], both.cfg["Det"]["thresh"]) == (0.4, 0.3)


def test_own_networks_bring_their_characters_as_rapidocrs_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("THREADSAFE_OCR_CACHE", str(tmp_path))
    models = Path(rapidocr.__file__).parents[2] / "models" / "v6-small"
    characters = yaml.safe_load((models / "rec" / "inference.yml").read_text(encoding="utf-8"))["PostProcess"]["character_dict"]
    content = "\n".join(map(str, characters)).encode()

    def field(number: int, data: bytes) -> bytes:
        length, size = b"", len(data)
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + data

    network = tmp_path / "rec.onnx"
    entry = field(1, b"character") + field(2, content)
    # ONNX's fields come in any order: metadata are field 14.
    network.write_bytes((models / "rec" / "inference.onnx").read_bytes() + field(14, entry))
    assert RapidOCR(params={**SMALL, "Rec.model_path": str(network)})(LINES[0]).txts == words
    with pytest.raises(ConfigError, match="rec_keys_path"):
        RapidOCR(params={"Rec.model_path": str(models / "rec" / "inference.onnx")})


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"text_score": 0.5}, "text_score"), ({"Global.tex_score": 0.5}, "Global.tex_score"), ({"Foo.bar": 1}, "Foo"),
        ({"Det.mean": [0.4, 0.4, 0.4]}, "Det.mean"), ({"Rec.rec_img_shape": [3, 32, 320]}, "rec_img_shape"),
    ],
)  # fmt: skip
def test_settings_that_do_not_exist_or_fit_are_named(params: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        RapidOCR(params=params)
    assert issubclass(ConfigError, ValueError)
    assert issubclass(LoadImageError, OcrError)


def test_a_script_that_no_set_reads_is_an_error_and_a_size_that_is_not_here_a_warning(words: tuple[str, ...]) -> None:
    with pytest.raises(ModelNotFoundError, match="korean"):
        RapidOCR(params={"Rec.lang_type": LangRec.KOREAN})
    with pytest.warns(UserWarning, match="Rec PP-OCRv5 server"):
        server = RapidOCR(params={**SMALL, "Rec.ocr_version": OCRVersion.PPOCRV5, "Rec.model_type": ModelType.SERVER})
    assert server(LINES[0]).txts == words


def test_a_set_that_was_not_downloaded_is_replaced_and_the_warning_says_how_to_get_it(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREADSAFE_OCR_CACHE", str(tmp_path))
    with pytest.warns(UserWarning, match="PP-OCRv5 mobile is PP-OCRv6 small here .*models get v5-mobile"):
        mobile = RapidOCR(params={**SMALL, "Rec.ocr_version": OCRVersion.PPOCRV5, "Rec.model_type": ModelType.MOBILE})
    assert mobile(LINES[0]).txts == words
    assert str(words) in repr(mobile(LINES[0]))


def test_a_missing_file_of_settings_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        RapidOCR(tmp_path / "missing.yaml")


def test_the_docstring_says_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageDraw, ImageFont

    page = Image.new("RGB", (400, 120), "white")
    for y, text in ((15, "Hello, world"), (70, "Total: 42.50")):
        ImageDraw.Draw(page).text((20, y), text, fill="black", font=ImageFont.load_default(28))
    page.save(tmp_path / "page.png")
    monkeypatch.chdir(tmp_path)
    from threadsafe_ocr.compat.rapidocr import ocr

    assert doctest.testmod(ocr).failed == 0
