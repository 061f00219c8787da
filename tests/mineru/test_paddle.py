"""magic-pdf before 1.3, whose class is one of PaddleOCR 2.7.3's, in an environment of its own (`make test-mineru`).

Its own code before and after the networks is the oracle; both sides run this package's networks, PaddleOCR by its `use_onnx`.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from comparing import LINES, NAMES, assert_formulas_are_cut_out_alike, assert_same, assert_same_blank_page, assert_same_page, bgr
from threadsafe_ocr import model_sets
from threadsafe_ocr.compat.mineru.ocr import MinerUOCR
from threadsafe_ocr.compat.mineru.profiles import MAGIC1


@pytest.fixture(scope="module")
def pair() -> tuple[Any, MinerUOCR]:
    """Theirs and ours, as its pipeline makes them."""
    import paddleocr  # noqa: F401 (before what stands in for torch, of which only the card is asked for)

    sys.modules["torch"] = types.SimpleNamespace(cuda=types.SimpleNamespace(is_available=lambda: False))  # type: ignore[assignment]
    from magic_pdf.model.sub_modules.ocr.paddleocr.ppocr_273_mod import ModifiedPaddleOCR

    settings = {"show_log": False, "det_db_box_thresh": 0.3, "use_dilation": True, "det_db_unclip_ratio": 1.8}
    networks = {f"{part}_model_dir": str(model_sets.part("v4-mobile", part) / "inference.onnx") for part in ("det", "rec")}
    theirs = ModifiedPaddleOCR(use_onnx=True, use_gpu=False, **networks, **settings)
    return theirs, MinerUOCR(profile=MAGIC1, **settings)


@pytest.mark.parametrize("name", NAMES)
def test_boxes_and_texts_are_the_hosts(pair: tuple[Any, MinerUOCR], name: str) -> None:
    assert_same_page(*pair, name)


def test_formulas_are_cut_out_of_lines_as_by_the_host(pair: tuple[Any, MinerUOCR]) -> None:
    assert_formulas_are_cut_out_alike(*pair)


def test_lines_by_themselves_read_as_by_the_host(pair: tuple[Any, MinerUOCR]) -> None:
    theirs, ours = pair
    for path in LINES:
        assert_same(ours.ocr(bgr(path), det=False), theirs.ocr(bgr(path), det=False))


@pytest.mark.parametrize("keywords", [{}, {"rec": False}])
def test_a_blank_page_has_the_hosts_shape(pair: tuple[Any, MinerUOCR], keywords: dict[str, bool]) -> None:
    assert_same_blank_page(*pair, **keywords)
