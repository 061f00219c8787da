"""Puts this package in another one's place, before that one is imported and without importing anything itself.

`threadsafe_ocr.pth` calls `start` when an interpreter starts where THREADSAFE_OCR_AS or THREADSAFE_OCR_MINERU is set, so this file stands
beside the package, whose import loads numpy and the native part: a child process that never reads a page pays for neither.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# Where MinerU's versions make their OCR objects, and where 4.x keeps documents apart.
MINERU = (
    "magic_pdf.model.sub_modules.model_init",
    "mineru.backend.pipeline.model_init",
    "mineru.model.runtime.hybrid",
    "mineru.backend.analysis.pdf.window",
)
# What `import NAME` finds instead.
STAND_INS = {"paddleocr": "threadsafe_ocr.compat.paddle", "rapidocr": "threadsafe_ocr.compat.rapidocr"}


class Finder:
    """Comes first in `sys.meta_path`: finds stand-ins, and tells of modules that were imported."""

    def __init__(self) -> None:
        self.stand_ins: dict[str, str] = {}
        self.listeners: dict[str, Callable[[ModuleType], None]] = {}

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name in self.stand_ins:
            return ModuleSpec(name, Loader(self.stand_ins[name]))  # type: ignore[arg-type]
        if name not in self.listeners:
            return None
        others = (other.find_spec for other in sys.meta_path if other is not self and hasattr(other, "find_spec"))
        spec = next((found for find in others if (found := find(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            load, tell = spec.loader.exec_module, self.listeners[name]

            def load_and_tell(module: ModuleType) -> None:
                load(module)
                tell(module)

            spec.loader.exec_module = load_and_tell  # type: ignore[method-assign]
        return spec


class Loader:
    """Loads another module under a name."""

    def __init__(self, instead: str) -> None:
        self.instead = instead

    def create_module(self, _spec: ModuleSpec) -> None:
        """The usual one, which nobody will see."""

    def exec_module(self, module: ModuleType) -> None:
        # The import machinery takes what stands here afterwards.
        sys.modules[module.__name__] = importlib.import_module(self.instead)


def finder() -> Finder:
    """This process's, installed."""
    for installed in sys.meta_path:
        if isinstance(installed, Finder):
            return installed
    new = Finder()
    sys.meta_path.insert(0, new)
    return new


def install_as(name: str) -> None:
    """Makes `import paddleocr` or `import rapidocr` find this package's class of the same name, in this process.

    Raises ImportError, and changes nothing, where the real package is already imported; ValueError for another name.
    """
    if name not in STAND_INS:
        raise ValueError(f"install_as({name!r}): it can be {' or '.join(map(repr, STAND_INS))}")
    real = sys.modules.get(name) or next((module for key, module in sys.modules.items() if key.startswith(f"{name}.")), None)
    if real is not None and real is not sys.modules.get(STAND_INS[name]):
        where = getattr(real, "__file__", None) or "no file"
        raise ImportError(f"{name} is already imported ({where}); call threadsafe_ocr.install_as({name!r}) before its first import")
    finder().stand_ins[name] = STAND_INS[name]


def when_imported(name: str, tell: Callable[[ModuleType], None]) -> None:
    """Calls `tell` with a module: now where it is imported, else right after it is."""
    finder().listeners[name] = tell
    if name in sys.modules:
        tell(sys.modules[name])


def patch_mineru() -> None:
    """Gives MinerU (magic-pdf 1.x, mineru 2 to 4) this package's OCR, in this process, whether it is imported already or not.

    Raises ImportError, now or when MinerU is imported, for a version that has no place for it.
    """
    for name in MINERU:
        when_imported(name, _patch)


def _patch(module: ModuleType) -> None:
    importlib.import_module("threadsafe_ocr.compat.mineru.patch").apply(module)


_started = False


def start() -> None:
    """Does what the environment says, once: where lib64 is another name of lib, an interpreter reads the .pth twice."""
    global _started
    if _started:
        return
    _started = True
    for name in filter(None, map(str.strip, os.environ.get("THREADSAFE_OCR_AS", "").split(","))):
        try:
            install_as(name)
        except (ImportError, ValueError) as error:
            # The others are not to be lost over one; whoever set it reads this.
            print(f"THREADSAFE_OCR_AS: {error}", file=sys.stderr)
    if os.environ.get("THREADSAFE_OCR_MINERU", "0") not in ("", "0"):
        patch_mineru()
