"""OCR for services: PP-OCR models on ONNX Runtime, safe and fair from any number of threads.

>>> from threadsafe_ocr import ThreadSafeOCR
>>> with ThreadSafeOCR() as ocr:
...     page = ocr.read("page.png")
>>> print(page.text)
Hello, world
Total: 42.50
"""

from __future__ import annotations

import atexit as _atexit
import os as _os
import threading as _threading

# Refuses subinterpreters, so it comes before the native part is loaded.
import threadsafe_ocr.interpreter as _interpreter  # noqa: F401
from _threadsafe_ocr_startup import install_as, patch_mineru
from threadsafe_ocr import _core
from threadsafe_ocr._core import __version__, unload
from threadsafe_ocr.exceptions import (
    ConfigError,
    EngineClosedError,
    EngineUnavailableError,
    ForkedProcessError,
    ImageFileError,
    ImageNotFoundError,
    InferenceError,
    InvalidArgumentError,
    InvalidImageError,
    ModelLoadError,
    ModelNotFoundError,
    OcrError,
    OcrTimeoutError,
    OverloadedError,
    PasswordError,
)
from threadsafe_ocr.ocr import ThreadSafeOCR
from threadsafe_ocr.result import OcrResult, TextLine
from threadsafe_ocr.waiting import forget_parent as _forget_parent
from threadsafe_ocr.words import Word

__all__ = [
    "ConfigError",
    "EngineClosedError",
    "EngineUnavailableError",
    "ForkedProcessError",
    "ImageFileError",
    "ImageNotFoundError",
    "InferenceError",
    "InvalidArgumentError",
    "InvalidImageError",
    "ModelLoadError",
    "ModelNotFoundError",
    "OcrError",
    "OcrResult",
    "OcrTimeoutError",
    "OverloadedError",
    "PasswordError",
    "TextLine",
    "ThreadSafeOCR",
    "Word",
    "__version__",
    "install_as",
    "patch_mineru",
    "unload",
]


def _in_child() -> None:
    _core.after_fork(True)
    _forget_parent()


if _threading.current_thread() is _threading.main_thread():
    _core.this_is_the_main_thread()
_atexit.register(_core.shut_down)
if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(before=_core.before_fork, after_in_parent=lambda: _core.after_fork(False), after_in_child=_in_child)
