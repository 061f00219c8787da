"""Every call of tests/python/paddle_calls.py against what the real PaddleOCR answered to it (scripts/record_compat.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import DATA, HAS_UNIT
from paddle_calls import answer, calls2, calls3, make_files
from threadsafe_ocr.compat.paddle import PaddleOCR

VERSIONS = ("2.7", "2.10", "3.7")
RECORDED = {
    version: json.loads((DATA / "golden" / f"paddleocr{version.replace('.', '')}_calls.json").read_text(encoding="utf-8"))["answers"]
    for version in VERSIONS
}
SMALL = {"text_detection_model_name": "PP-OCRv6_small_det", "text_recognition_model_name": "PP-OCRv6_small_rec"}
# Answered otherwise on purpose: see docs/migration.md.
LIST_IS_READ = {"ocr([arrays])": RECORDED["2.10"]["ocr(array)"] + RECORDED["2.10"]["ocr(blank)"]}
NO_IMAGE = {"ocr(no image)": {"raises": ["ValueError", "Exception", "BaseException", "object"]}}
# 2.7 fails with several boxes, and has no slices.
FAILS_IN_2_7 = (
    "ocr(rec=False)", "ocr(PDF, rec=False)", "ocr(slice)", "__call__(slice)", "text_detector(long, use_slice)",
)  # fmt: skip
CROP_READ = RECORDED["3.7"]["predict([array, path])"][1]["dict"]
OTHERWISE: dict[str, dict[str, Any]] = {
    "2.7": {**LIST_IS_READ, **NO_IMAGE, **{name: RECORDED["2.10"][name] for name in FAILS_IN_2_7}},
    "2.10": {**LIST_IS_READ, **NO_IMAGE},
    "3.7": {
        # 3.7 fails where it has found text.
        "predict(BGRA)": RECORDED["3.7"]["predict(array)"],
        "predict(gray)": RECORDED["3.7"]["predict(array)"],
        "predict(Path)": [{"dict": CROP_READ}],
        "predict(bytes)": [{"dict": {**CROP_READ, "input_path": None}}],
    },
}
Calls = dict[str, Callable[[], Any]]


def unchanged(path: Path) -> np.ndarray:
    pixels = np.asarray(Image.open(path))
    return np.ascontiguousarray(pixels[:, :, [2, 1, 0, *range(3, pixels.shape[2])]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("calls")
    make_files(made)
    return made


@pytest.fixture(scope="module")
def calls(folder: Path) -> dict[str, Calls]:
    """Of every version."""
    off = dict.fromkeys(("use_doc_orientation_classify", "use_doc_unwarping", "use_textline_orientation"), False)
    return {
        "2.7": calls2(PaddleOCR(api="2.7", use_angle_cls=True, **SMALL), unchanged, folder),
        "2.10": calls2(PaddleOCR(use_angle_cls=True, **SMALL), unchanged, folder),
        "3.7": calls3(PaddleOCR(api="3", **off, **SMALL), unchanged, folder),
    }


# Of scores, which a processor with AMX rounds to 16 bits on the way, and of coordinates;
# of a JPEG 2.10's OpenCV and our Pillow may have other releases of one decoder.
ARRAYS, JPEG = (5e-4 if HAS_UNIT else 1e-4, 0.0), (0.02, 2.0)


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


@pytest.mark.filterwarnings("ignore:.*left out:UserWarning", "ignore:Please use .predict.:DeprecationWarning")
@pytest.mark.parametrize(("version", "name"), [(version, name) for version in VERSIONS for name in RECORDED[version]])
def test_it_answers_as_the_original_did(calls: dict[str, Calls], folder: Path, version: str, name: str) -> None:
    wanted = OTHERWISE[version].get(name, RECORDED[version][name])
    assert_same(answer(calls[version][name], folder), wanted, tolerance(name))


def test_every_call_was_recorded(calls: dict[str, Calls]) -> None:
    assert {version: list(made) for version, made in calls.items()} == {version: list(RECORDED[version]) for version in VERSIONS}


def table() -> str:
    """What docs/migration.md says of these calls."""
    rows = ["| | answers equal the real package's | answered otherwise, see below |", "| --- | --- | --- |"]
    for version in VERSIONS:
        equal, otherwise = (
            ", ".join(f"`{name}`" for name in RECORDED[version] if (name in OTHERWISE[version]) is chosen) for chosen in (False, True)
        )
        rows.append(f"| {version} | {equal} | {otherwise} |")
    return "\n".join(rows)


def test_the_guide_lists_the_calls_that_are_compared() -> None:
    guide = (DATA.parents[1] / "docs" / "migration.md").read_text(encoding="utf-8")
    assert table() in guide, f"docs/migration.md is to have:\n{table()}"
