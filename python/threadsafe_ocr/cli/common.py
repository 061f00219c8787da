"""What several subcommands share: which files, which models and device."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Iterator
from pathlib import Path

from threadsafe_ocr import model_sets

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".pdf"}


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


def files(paths: list[str]) -> dict[Path, Path]:
    """File -> its path below the argument that named it; each file once, in order. A file that is not there fails when it is read."""
    return {path: below for argument in paths for path, below in _expand(argument)}


def _expand(argument: str) -> Iterator[tuple[Path, Path]]:
    path = Path(argument)
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        yield from ((p, p.relative_to(path)) for p in inside)
    elif glob.has_magic(argument) and not path.exists():
        # Shells that do not expand patterns, and ** in those that do.
        matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
        fixed = Path(*_until_magic(path))
        yield from ((p, p.relative_to(fixed)) for p in matches if p.is_file())
    else:
        yield path, Path(path.name)


def _until_magic(path: Path) -> Iterator[str]:
    for part in path.parts:
        if glob.has_magic(part):
            return
        yield part
