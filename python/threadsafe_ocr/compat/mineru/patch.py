"""Where each generation of MinerU makes its OCR objects, and what it gets there."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

from threadsafe_ocr.compat.mineru import concurrent
from threadsafe_ocr.compat.mineru.ocr import MinerUOCR
from threadsafe_ocr.compat.mineru.profiles import profile
from threadsafe_ocr.compat.paddle_models import LATIN

# Languages that the model sets here read as MinerU's do; for others, and for seals, MinerU keeps its own.
READ = (None, "", "ch", "ch_lite", "ch_server", "japan", "chinese_cht")
# What holds OCR objects that were made before.
MARK = "_patched_by_threadsafe_ocr"
CACHES = ("AtomModelSingleton", "ModelSingleton", "HybridModelSingleton", "HybridLocalModelContextSingleton")


def apply(module: ModuleType) -> None:
    """Patches a module of MinerU's, once."""
    if not hasattr(module, MARK):
        PATCHES[module.__name__](module)
        setattr(module, MARK, True)
        forget_objects()


def _magic_pdf(module: ModuleType) -> None:
    if hasattr(module, "PytorchPaddleOCR"):
        _replace_class(module, "PytorchPaddleOCR", "magic-pdf")
    else:
        _replace_class(module, "ModifiedPaddleOCR", "magic-pdf")
        _replace_engine_of_tables(module)


def _pipeline(module: ModuleType) -> None:
    _replace_class(module, "PytorchPaddleOCR", "mineru")


def _replace_class(module: ModuleType, name: str, package: str) -> None:
    original = _original(module, name)
    steps = profile(package, importlib.metadata.version(package))

    @functools.wraps(original, updated=())
    def make(*arguments: Any, **keywords: Any) -> Any:
        lang = keywords.get("lang")
        # For these MinerU before 3.4 has networks of their own. From 3.4 on PP-OCRv6 reads them; older sets lack accented letters.
        if lang in LATIN:
            return MinerUOCR(profile=replace(steps, rec="v6-small"), **keywords)
        if lang in READ:
            return MinerUOCR(profile=steps, **keywords)
        _tell_that_it_stays(lang)
        return original(*arguments, **keywords)

    setattr(module, name, make)


def _replace_engine_of_tables(module: ModuleType) -> None:
    """Before 1.3 a table's model makes RapidOCR for itself, on a card Paddle's; it takes an object of MinerU's under another name."""
    original = _original(module, "RapidTableModel")
    steps = profile("magic-pdf", importlib.metadata.version("magic-pdf"))

    @functools.wraps(original, updated=())
    def make(*arguments: Any, **keywords: Any) -> Any:
        table = original(*arguments, **keywords)
        # RapidOCR's own thresholds, which are 1.3's for tables too; it does not join the boxes of neighbouring cells.
        table.ocr_engine = MinerUOCR(
            profile=steps, det_db_box_thresh=0.5, det_db_unclip_ratio=1.6, use_dilation=True, enable_merge_det_boxes=False
        )
        table.ocr_model_name = "PaddleOCR"
        return table

    module.RapidTableModel = make  # type: ignore[attr-defined]


def _runtime(module: ModuleType) -> None:
    """4.x: before MinerU looks for its weights, which it would download."""
    original = _original(module, "atom_model_init")
    steps = profile("mineru", importlib.metadata.version("mineru"))

    @functools.wraps(original)
    def atom_model_init(model_name: str, **keywords: Any) -> Any:
        if model_name == module.AtomicModelName.OCR:
            if keywords.get("lang") != "seal":
                return MinerUOCR(profile=steps, **keywords)
            _tell_that_it_stays("seal")
        model = original(model_name=model_name, **keywords)
        return concurrent.OneAtATime(model) if concurrent.is_wanted() else model

    module.atom_model_init = atom_model_init  # type: ignore[attr-defined]


@functools.cache
def _tell_that_it_stays(lang: str) -> None:
    """Once a language: MinerU asks again for every set of thresholds."""
    warnings.warn(f"MinerU's own OCR reads lang={lang!r}: no model set here does; see docs/migration.md", UserWarning, stacklevel=3)


def _original(module: ModuleType, name: str) -> Callable[..., Any]:
    """What is to be replaced."""
    found: Callable[..., Any] | None = getattr(module, name, None)
    if found is None:
        raise ImportError(
            f"{module.__name__} has no {name}: threadsafe-ocr does not know this version of MinerU; unset THREADSAFE_OCR_MINERU"
        )
    return found


def forget_objects() -> None:
    """MinerU keeps its models in singletons: those that were made before are not to be used."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("mineru", "magic_pdf"):
            for cache in CACHES:
                getattr(getattr(module, cache, None), "_models", {}).clear()


PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "magic_pdf.model.sub_modules.model_init": _magic_pdf,
    "mineru.backend.pipeline.model_init": _pipeline,
    "mineru.model.runtime.hybrid": _runtime,
    "mineru.backend.analysis.pdf.window": concurrent.patch_window,
}
