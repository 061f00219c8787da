"""What several subcommands share: which files, which models and device."""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from threadsafe_ocr import ConfigError, ModelNotFoundError, ThreadSafeOCR, model_sets

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".pdf"}
# How the pictures of `read --draw` end.
DRAWN = ".drawn.png"


def add_paths(command: argparse.ArgumentParser, more: str = "") -> None:
    """The argument PATH..."""
    command.add_argument("paths", nargs="+", metavar="PATH", help=f"files, folders with all below them, patterns like 'in/**/*.png'{more}")


def add_engine(command: argparse.ArgumentParser) -> None:
    """The arguments of the constructor."""
    # No choices: it may be a folder.
    models = command.add_argument("--models", default="v6-small", metavar="NAME", help="a model set or a folder (default: v6-small)")
    models.completer = lambda **_: [*model_sets.manifest()["sets"], *model_sets.added()]  # type: ignore[attr-defined]
    device = command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    device.completer = lambda **_: ["auto", "cpu", "cuda"]  # type: ignore[attr-defined]
    precision = command.add_argument("--precision", default="f32", help="f32, fast, int8, bf16 or fp16 (default: f32)")
    precision.completer = lambda **_: ["f32", "fast", "int8", "bf16", "fp16"]  # type: ignore[attr-defined]


def engine(arguments: argparse.Namespace, **settings: Any) -> ThreadSafeOCR:
    """The object that the arguments ask for; wrong ones end the command, with 2, before the first page."""
    try:
        return ThreadSafeOCR(arguments.models, device=arguments.device, precision=arguments.precision, **settings)
    except (ConfigError, ModelNotFoundError) as error:
        if isinstance(error, ModelNotFoundError) and arguments.models in model_sets.manifest()["sets"]:
            raise  # the name is right, the set has only to be got
        wrong: Callable[[str], NoReturn] = arguments.error
        wrong(str(error))


def count(text: str) -> int:
    """An argument's type: how many."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def seconds(text: str) -> float:
    """An argument's type: a time."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def files(paths: list[str], unreadable: Callable[[OSError], object], out: Path | None = None) -> dict[Path, Path]:
    """File -> its path below the argument that named it; each file once, in order. A file that is not there fails when it is read.

    unreadable: told of each folder that cannot be looked into. out: the folder of the answers, which are no input where they lie in one.
    """
    found: dict[str, tuple[Path, Path]] = {}
    for argument in paths:
        for path, below in _expand(argument, unreadable, out):
            found.setdefault(os.path.abspath(path), (path, below))
    return dict(found.values())


def _expand(argument: str, unreadable: Callable[[OSError], object], out: Path | None) -> Iterator[tuple[Path, Path]]:
    path = Path(argument)
    if os.path.isdir(path):
        yield from _inputs(_below(path, unreadable), path, out)
    elif glob.has_magic(argument) and not os.path.lexists(path):
        # Shells that do not expand patterns, and ** in those that do.
        matches = (Path(match) for match in glob.glob(argument, recursive=True))
        yield from _inputs((match for match in matches if not os.path.isdir(match)), Path(*_until_magic(path)), out)
    else:
        yield path, Path(path.name)


def _below(folder: Path, unreadable: Callable[[OSError], object]) -> Iterator[Path]:
    """The images of a folder and of those below it; as in patterns, nothing that a dot hides."""
    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES)


def _inputs(found: Iterable[Path], folder: Path, out: Path | None) -> Iterator[tuple[Path, Path]]:
    """What was found in `folder`, less what an earlier run wrote."""
    answers = out.resolve() if out and folder.resolve() in out.resolve().parents else None
    for path in sorted(found):
        if not path.name.endswith(DRAWN) and not (answers and path.parent.resolve().is_relative_to(answers)):
            yield path, path.relative_to(folder)


def _until_magic(path: Path) -> Iterator[str]:
    for part in path.parts:
        if glob.has_magic(part):
            return
        yield part
