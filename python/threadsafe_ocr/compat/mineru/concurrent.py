"""Documents side by side in MinerU 4: THREADSAFE_OCR_MINERU_CONCURRENT=1.

MinerU 4 holds one lock for all steps of a window of pages, so that a second document waits even while the first one reads. Here the lock is
around every other model's calls, one at a time as before, and around nothing else: rendering has its own (PDFium), the rest are functions
of their arguments.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

# Reentrant: a table's model asks others.
_lock = threading.RLock()


def is_wanted() -> bool:
    return os.environ.get("THREADSAFE_OCR_MINERU_CONCURRENT", "0") not in ("", "0")


class OneAtATime:
    """A model that is called by one thread at a time, together with all others of this kind."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        return _locked(found) if callable(found) else found

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        with _lock:
            return self._model(*arguments, **keywords)


def _locked(call: Any) -> Any:
    @functools.wraps(call)
    def locked(*arguments: Any, **keywords: Any) -> Any:
        with _lock:
            return call(*arguments, **keywords)

    return locked


@contextlib.contextmanager
def stage(_device: str) -> Iterator[None]:
    """Instead of MinerU's `local_model_stage`: what it does but for the lock."""
    importlib.import_module("mineru.model.runtime.cpu_threads").prepare_torch_thread()
    yield


def patch_window(module: ModuleType) -> None:
    """`mineru.backend.analysis.pdf.window`, where the lock is taken."""
    if not is_wanted():
        return
    if not hasattr(module, "local_model_stage"):
        raise ImportError(f"{module.__name__} has no local_model_stage: unset THREADSAFE_OCR_MINERU_CONCURRENT for this version of MinerU")
    module.local_model_stage = stage  # type: ignore[attr-defined]
