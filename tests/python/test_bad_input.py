"""Bad input: a typed error that says what was wrong, soon; never a crash, a hang or half an answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import LINES, PAGES

from threadsafe_ocr import ConfigError, InvalidImageError, ModelLoadError, ModelNotFoundError, OcrError, ThreadSafeOCR

JPEG = (PAGES / "formats" / "q30.jpg").read_bytes()
PNG = LINES[0].read_bytes()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"hello, this is text", b"%PDF-1.7 ...", JPEG[: len(JPEG) // 2], PNG[: len(PNG) // 2], JPEG[:20], PNG[:20]],
    ids=["empty", "nul", "text", "pdf", "half-jpeg", "half-png", "start-jpeg", "start-png"],
)
def test_bytes_that_are_no_whole_image_are_refused(ocr: ThreadSafeOCR, content: bytes) -> None:
    with pytest.raises(InvalidImageError):
        ocr.read(content)


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 10), (10, 0, 3), (5,), (4, 4, 2), (4, 4, 5), (2, 2, 2, 2), ()])
def test_arrays_of_odd_shapes_are_refused(ocr: ThreadSafeOCR, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidImageError):
        ocr.read(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16, bool, object])
def test_arrays_of_other_types_are_refused(ocr: ThreadSafeOCR, dtype: type) -> None:
    with pytest.raises(TypeError, match="uint8"):
        ocr.read(np.zeros((32, 32, 3), dtype))


@pytest.mark.parametrize("value", [None, 7, 1.5, {}, object()])
def test_other_values_are_refused(ocr: ThreadSafeOCR, value: object) -> None:
    with pytest.raises(TypeError):
        ocr.read(value)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30000), (30000, 1), (5, 5, 3), (60000, 8, 3)])
def test_pages_of_extreme_sides_are_answered(ocr: ThreadSafeOCR, shape: tuple[int, ...]) -> None:
    assert ocr.read(np.full(shape, 255, np.uint8)).lines == ()


def test_more_pixels_than_allowed_are_refused_before_they_are_copied() -> None:
    with ThreadSafeOCR(max_pixels=1000) as small:
        with pytest.raises(InvalidImageError, match="max_pixels"):
            small.read(np.broadcast_to(np.uint8(255), (60000, 60000, 3)))
        with pytest.raises(InvalidImageError, match="max_pixels"):
            small.read(LINES[0])


def test_files_that_cannot_be_read_are_told_apart(ocr: ThreadSafeOCR, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        ocr.read(tmp_path / "missing.png")
    assert isinstance(missing.value, OcrError)
    with pytest.raises(OSError):
        ocr.read(tmp_path)
    text = tmp_path / "text.png"
    text.write_text("this is no picture")
    with pytest.raises(InvalidImageError):
        ocr.read(text)


def test_random_damage_is_an_answer_or_an_error(ocr: ThreadSafeOCR) -> None:
    random = np.random.default_rng(0)
    for content in (JPEG, PNG):
        for _ in range(20):
            damaged = bytearray(content)
            for position in random.integers(0, len(damaged), 8):
                damaged[position] = random.integers(0, 256)
            try:
                ocr.read(bytes(damaged), det_limit_side_len=320, det_limit_type="max")
            except InvalidImageError:
                pass


@pytest.mark.parametrize(
    "options",
    [{"det_thresh": 2.0}, {"det_thresh": float("nan")}, {"rec_width_step": 0}, {"det_limit_type": "no"}, {"rec_group": -1}, {"timeout": -1}],
)
def test_settings_that_cannot_work_are_named(ocr: ThreadSafeOCR, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ocr.read(LINES[0], **options)


def test_unknown_settings_are_named(ocr: ThreadSafeOCR) -> None:
    with pytest.raises(TypeError, match="det_tresh"):
        ocr.read(LINES[0], det_tresh=0.3)
    with pytest.raises(TypeError, match="det_tresh"):
        ThreadSafeOCR(det_tresh=0.3)


def test_models_that_are_missing_or_wrong_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="v6-small"):
        ThreadSafeOCR("v7-huge")
    with pytest.raises(ModelNotFoundError, match="det"):
        ThreadSafeOCR(tmp_path)
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"no model")
    characters = tmp_path / "characters.txt"
    characters.write_text("a\nb\n")
    with pytest.raises(ModelLoadError, match=r"wrong\.onnx"):
        ThreadSafeOCR({"det": wrong, "rec": wrong, "dict": characters})


def test_a_good_neighbour_is_answered_among_bad_input(ocr: ThreadSafeOCR) -> None:
    futures = [ocr.submit(LINES[0]) for _ in range(4)]
    with pytest.raises(InvalidImageError):
        ocr.read(JPEG[:100])
    assert len({future.result().text for future in futures}) == 1
