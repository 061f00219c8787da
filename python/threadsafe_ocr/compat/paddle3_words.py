"""PaddleOCR 3.7's word boxes: groups of characters, and where they are by the columns at which recognition read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from threadsafe_ocr.result import TextLine

Point = tuple[int, int]
Region = tuple[Point, Point, Point, Point]

# A line this many times as high as wide runs down.
_TALL = 1.5
# Pixels: boxes whose centres differ by less in y are of one row.
_SAME_ROW = 12


def of(line: TextLine, poly: npt.NDArray[Any]) -> tuple[list[str], list[Region]]:
    """The groups of a line, each Chinese character by itself, and their boxes, clockwise from the top left.

    As in 3.7 boxes are sorted by place and texts are not: in lines that mix them a box may stand beside another group's text.
    """
    columns = line.columns
    if columns is None or not line.text:
        return [], []
    (left, top), (right, _), (_, bottom), _ = poly.tolist()
    across, down = np.ptp(poly[:, 0].astype(int)), np.ptp(poly[:, 1].astype(int))
    runs_down = down > _TALL * across
    start, end = (top, bottom) if runs_down else (left, right)
    length = end - start
    column = length / line.column_count

    def box(first: int, last: int) -> Region:
        if runs_down:
            return (left, first), (left, last), (right, last), (right, first)
        return (first, top), (last, top), (last, bottom), (first, bottom)

    texts: list[str] = []
    boxes: list[Region] = []
    chinese: list[int] = []
    widths: list[float] = []
    for kind, first, last in _groups(line.text):
        at = columns[first : last + 1]
        if kind == "chinese":
            texts += line.text[first : last + 1]
            chinese += at.tolist()
            if last > first:
                widths.append((at[-1] - at[0] + 1) * column / (last - first))
        else:
            texts.append(line.text[first : last + 1])
            boxes.append(box(start + int(at[0] * column), start + int((at[-1] + 1) * column)))
    width = float(np.mean(widths)) if widths else length / len(line.text)
    for middle in chinese:
        centre = (middle + 0.5) * column
        boxes.append(box(max(int(centre - width / 2), 0) + start, min(int(centre + width / 2), length) + start))
    return texts, _sorted(boxes)


def _groups(text: str) -> list[tuple[str, int, int]]:
    """Runs of Chinese characters, of Latin letters and digits, and of whatever else: kind, first and last index.

    A dot before a digit and a hyphen belong to the letters and digits before them.
    """
    groups: list[tuple[str, int, int]] = []
    for i, character in enumerate(text):
        kind = _kind(character)
        before = groups[-1][0] if groups else None
        decimal = character == "." and "0" <= text[i + 1 : i + 2] <= "9"
        if before == "latin" and (character == "-" or decimal):
            kind = "latin"
        if kind == before:
            groups[-1] = (kind, groups[-1][1], i)
        else:
            groups.append((kind, i, i))
    return groups


def _kind(character: str) -> str:
    if "\u4e00" <= character <= "\u9fff":
        return "chinese"
    return "latin" if character.isascii() and character.isalnum() else "other"


def _sorted(boxes: list[Region]) -> list[Region]:
    """By rows, then by x: a row goes on while the next centre is near the last one in y."""
    centres = [np.mean(box, axis=0) for box in boxes]
    rows: list[list[int]] = []
    for i in sorted(range(len(boxes)), key=lambda i: centres[i][1]):
        if rows and abs(centres[i][1] - centres[rows[-1][-1]][1]) < _SAME_ROW:
            rows[-1].append(i)
        else:
            rows.append([i])
    return [boxes[i] for row in rows for i in sorted(row, key=lambda i: centres[i][0])]
