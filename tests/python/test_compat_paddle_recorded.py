"""Every call of tests/python/paddle_calls.py against what the real PaddleOCR answered to it (scripts/record_compat.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import DATA
from paddle_calls import answer, calls2, calls3
from threadsafe_ocr.compat.paddle import PaddleOCR

RECORDED = {
    generation: json.loads((DATA / "golden" / f"paddleocr{version}_calls.json").read_text(encoding="utf-8"))["answers"]
    for generation, version in (("2", "210"), ("3", "37"))
}
SMALL = {"text_detection_model_name": "PP-OCRv6_small_det", "text_recognition_model_name": "PP-OCRv6_small_rec"}
# Answered otherwise on purpose: see docs/migration.md.
OTHERWISE = {
    "ocr(no image)": {"raises": ["ValueError", "Exception", "BaseException", "object"]},
    # 3.7 fails where it has found text.
    "predict(BGRA)": RECORDED["3"]["predict(array)"],
}
Calls = dict[str, Callable[[], Any]]


def unchanged(path: Path) -> np.ndarray:
    pixels = np.asarray(Image.open(path))
    return np.ascontiguousarray(pixels[:, :, [2, 1, 0, *range(3, pixels.shape[2])]])


@pytest.fixture(scope="module")
def second() -> Calls:
    return calls2(PaddleOCR(use_angle_cls=True, **SMALL), unchanged)


@pytest.fixture(scope="module")
def third() -> Calls:
    off = dict.fromkeys(("use_doc_orientation_classify", "use_doc_unwarping", "use_textline_orientation"), False)
    return calls3(PaddleOCR(api="3", **off, **SMALL), unchanged)


# Of scores and coordinates; of a JPEG 2.10's OpenCV and our Pillow may have other releases of one decoder.
ARRAYS, JPEG = (1e-4, 0.0), (0.02, 2.0)


def assert_same(ours: Any, theirs: Any, within: tuple[float, float], where: str = "") -> None:
    """Equal, numbers within what is given."""
    if isinstance(theirs, dict) and "raises" in theirs:
        assert theirs["raises"][0] in ours["raises"], (where, ours)
        return
    assert type(ours) is type(theirs) or {type(ours), type(theirs)} == {int, float}, (where, ours, theirs)
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs), where
        for key, value in theirs.items():
            assert_same(ours[key], value, within, f"{where}.{key}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), (where, ours, theirs)
        for i, (mine, value) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(mine, value, within, f"{where}[{i}]")
    elif isinstance(theirs, float) and abs(theirs) < 1:
        assert abs(ours - theirs) <= within[0], (where, ours, theirs)
    elif isinstance(theirs, (int, float)) and not isinstance(theirs, bool):
        assert abs(ours - theirs) <= within[1], (where, ours, theirs)
    else:
        assert ours == theirs, where


def tolerance(name: str) -> tuple[float, float]:
    return JPEG if "EXIF" in name else ARRAYS


@pytest.mark.parametrize("name", RECORDED["2"])
def test_2_10_answered_the_same(second: Calls, name: str) -> None:
    assert_same(answer(second[name]), OTHERWISE.get(name, RECORDED["2"][name]), tolerance(name))


@pytest.mark.filterwarnings("ignore:.*left out:UserWarning")
@pytest.mark.parametrize("name", RECORDED["3"])
def test_3_7_answered_the_same(third: Calls, name: str) -> None:
    assert_same(answer(third[name]), OTHERWISE.get(name, RECORDED["3"][name]), tolerance(name))


def test_every_call_was_recorded(second: Calls, third: Calls) -> None:
    assert {generation: list(calls) for generation, calls in (("2", second), ("3", third))} == {
        generation: list(answers) for generation, answers in RECORDED.items()
    }


def table() -> str:
    """What docs/migration.md says of these calls."""
    rows = ["| | answers equal the real package's | answered otherwise, see below |", "| --- | --- | --- |"]
    for generation, version in (("2", "2.10"), ("3", "3.7")):
        equal, otherwise = (
            ", ".join(f"`{name}`" for name in RECORDED[generation] if (name in OTHERWISE) is chosen) for chosen in (False, True)
        )
        rows.append(f"| {version} | {equal} | {otherwise} |")
    return "\n".join(rows)


def test_the_guide_lists_the_calls_that_are_compared() -> None:
    guide = (DATA.parents[1] / "docs" / "migration.md").read_text(encoding="utf-8")
    assert table() in guide, f"docs/migration.md is to have:\n{table()}"
