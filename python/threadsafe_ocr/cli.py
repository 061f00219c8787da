"""The command `threadsafe-ocr`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from threadsafe_ocr import OcrError, ThreadSafeOCR, __version__

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"}


def _files(paths: list[str]) -> list[Path]:
    """The files, and of folders the images in them."""
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        found.extend(inside)
    return found


def _read(arguments: argparse.Namespace) -> int:
    files = _files(arguments.paths)
    failed = 0
    terminal = sys.stderr.isatty()
    with ThreadSafeOCR(arguments.models, device=arguments.device) as ocr:
        for done, (path, page) in enumerate(zip(files, ocr.read_many(files, return_errors=True), strict=True), 1):
            if terminal:
                print(f"\r{done}/{len(files)}", end="\n" if done == len(files) else "", file=sys.stderr, flush=True)
            if isinstance(page, OcrError):
                failed += 1
                print(f"{path}: {page}", file=sys.stderr)
            elif arguments.json:
                print(f'{{"path": {_quoted(path)}, {page.to_json()[1:]}', flush=True)
            else:
                if len(files) > 1:
                    print(f"== {path}")
                print(page.text, flush=True)
    if failed:
        print(f"{failed} of {len(files)} failed", file=sys.stderr)
    return 1 if failed or not files else 0


def _quoted(path: Path) -> str:
    import json

    return json.dumps(str(path), ensure_ascii=False)


def main() -> int:
    """The entry point; returns the exit code: 0, 1 when a page failed, 2 when the arguments are wrong, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="threadsafe-ocr", description="Reads text from images.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    read = commands.add_parser("read", help="read files and folders of images")
    read.add_argument("paths", nargs="+", metavar="PATH")
    shape = read.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="a JSON object a page and line")
    shape.add_argument("--text", action="store_true", help="the text only (default)")
    read.add_argument("--models", default="v6-small", help="a model set or a folder (default: v6-small)")
    read.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    arguments = parser.parse_args()
    try:
        return _read(arguments)
    except KeyboardInterrupt:
        return 130
    except OcrError as error:
        print(f"threadsafe-ocr: {error}", file=sys.stderr)
        return 1
