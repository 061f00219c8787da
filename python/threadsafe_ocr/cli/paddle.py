"""`threadsafe-ocr paddle`: the command lines of PaddleOCR 2.x and 3.x."""

from __future__ import annotations

import argparse
import pprint
from pathlib import Path
from typing import Any

from threadsafe_ocr.compat import paddle_images
from threadsafe_ocr.compat.paddle import PaddleOCR
from threadsafe_ocr.exceptions import ConfigError

USAGE = """threadsafe-ocr paddle ocr -i IMAGE|FOLDER [--save_path FOLDER] [--NAME VALUE ...]    as PaddleOCR 3.x
       threadsafe-ocr paddle --image_dir IMAGE|FOLDER [--det false] [--rec false] [--savefile true --output FOLDER] [--NAME VALUE ...]
                                                                                    as PaddleOCR 2.x

NAME is any keyword of either PaddleOCR, and timeout, allow_urls, strict_models."""


def add_to(commands: Any) -> None:
    """The arguments: all that follows, since every keyword is a flag."""
    # A prefix that nobody types: so flags are taken as they are.
    command = commands.add_parser("paddle", help="the command line of PaddleOCR", usage=USAGE, prefix_chars="\0", add_help=False)
    command.add_argument("words", nargs="*")
    command.set_defaults(run=run, error=command.error)


def run(arguments: argparse.Namespace) -> int:
    """Reads; 1 when nothing was read."""
    words = list(arguments.words)
    as_3 = words[:1] == ["ocr"]
    try:
        keywords = _keywords(words[as_3:])
    except ConfigError as error:
        arguments.error(str(error))
    source = keywords.pop("input" if as_3 else "image_dir", None)
    if "help" in keywords or source in (None, True):
        print(f"usage: {USAGE}")
        return 0 if "help" in keywords else 2
    return _predict(str(source), keywords) if as_3 else _ocr(str(source), keywords)


def _keywords(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while words:
        flag, given, value = words.pop(0).partition("=")
        name = {"-i": "input", "-h": "help"}.get(flag) or flag.removeprefix("--")
        if not flag.startswith("-"):
            raise ConfigError(f"{flag!r} is no flag, and of PaddleOCR's subcommands there is ocr alone; see threadsafe-ocr paddle --help")
        values = [value] if given else []
        while not given and words and not words[0].startswith("-"):
            values.append(words.pop(0))
        found[name] = [_value(value) for value in values] if len(values) > 1 else _value(values[0]) if values else True
    return found


def _value(text: str) -> Any:
    """A flag's text as what it says."""
    if text.lower() in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _predict(source: str, keywords: dict[str, Any]) -> int:
    folder = keywords.pop("save_path", None)
    read = 0
    for result in PaddleOCR(api="3", **keywords).predict_iter(source):
        read += 1
        result.print()
        if folder:
            result.save_all(str(folder))
    return 0 if read else 1


def _ocr(source: str, keywords: dict[str, Any]) -> int:
    how: dict[str, Any] = {name: keywords.pop(name) for name in ("det", "rec") if name in keywords}
    how |= {new: keywords.pop(name) for name, new in (("binarize", "bin"), ("invert", "inv")) if name in keywords}
    if color := keywords.pop("alphacolor", None):
        how["alpha_color"] = tuple(int(part) for part in str(color).split(","))
    save, folder = keywords.pop("savefile", False), Path(str(keywords.pop("output", "output")))
    ocr = PaddleOCR(api="2", **keywords)
    paths = [source] if paddle_images.is_url(source) or not Path(source).is_dir() else paddle_images.inside(source)
    for path in paths:
        print(f"{'*' * 10}{path}{'*' * 10}")
        lines = [line for page in ocr.ocr(path, cls=ocr.use_angle_cls, **how) for line in page or ()]
        print(*(lines or [f"No text found in image {path}"]), sep="\n")
        if save:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{Path(path).name.split('.')[0]}.txt").write_text(
                "".join(f"{pprint.pformat(line)}\n" for line in lines), encoding="utf-8"
            )
    return 0 if paths else 1
