"""`draw_ocr` of PaddleOCR 2.x. Needs Pillow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from threadsafe_ocr import draw

# Pixels: the longer side of the page beside its text, the text's size, from row to row.
_SIDE, _TEXT, _ROW = 600, 20, 25


def draw_ocr(
    image: Any,
    boxes: Any,
    txts: list[str] | None = None,
    scores: list[float] | None = None,
    drop_score: float = 0.5,
    font_path: str | None = None,
) -> npt.NDArray[np.uint8]:
    """The page, an RGB array or a PIL image, with its boxes; with `txts` the page reduced to 600 pixels and its texts, numbered, beside it.

    Left out are boxes whose score is below `drop_score`. font_path: None, or a file that is not there, takes the font that
    `threadsafe-ocr[draw]` brings, else the system's. Boxes are (255, 0, 0). Raises ConfigError without Pillow.
    """
    draw.require_pillow()
    from PIL import Image, ImageDraw

    picture = (image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))).convert("RGB")
    given = [1.0] * len(boxes) if scores is None else scores
    kept = [i for i, score in enumerate(given) if score >= drop_score]
    pen = ImageDraw.Draw(picture)
    for i in kept:
        corners = [(int(x), int(y)) for x, y in np.reshape(np.asarray(boxes[i]), (-1, 2))]
        pen.line([*corners, corners[0]], fill=(255, 0, 0), width=2)
    if txts is None:
        return np.asarray(picture)
    scale = _SIDE / max(picture.size)
    small = picture.resize((max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)))
    rows = [row for number, i in enumerate(kept, 1) for row in _wrapped(f"{number}: {txts[i]}   {given[i]:.3f}")]
    a_column = max(small.height // _ROW - 1, 1)
    columns = max(math.ceil(len(rows) / a_column), 1)
    sheet = Image.new("RGB", (small.width + columns * _SIDE, small.height), "white")
    sheet.paste(small, (0, 0))
    own = font_path if font_path and Path(font_path).is_file() else None
    pen, font = ImageDraw.Draw(sheet), draw.load_font(own or draw.find_font(), _TEXT)
    for at, row in enumerate(rows):
        pen.text((small.width + at // a_column * _SIDE, _ROW * (at % a_column)), row, fill="black", font=font)
    return np.asarray(sheet)


def _wrapped(text: str) -> list[str]:
    """Rows of as many characters as a column is wide: two for a wide one."""
    rows, wide = [""], 0
    for character in text:
        wide += 2 if ord(character) > 0x2E80 else 1
        if wide > 2 * _SIDE // _TEXT - 4:
            rows.append("    ")
            wide = 4
        rows[-1] += character
    return rows
