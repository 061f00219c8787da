"""What MinerU does with detection's boxes before it reads them (its `ocr_utils.py`, since 4.0 `geometry.py`): sort, join, cut formulas out.

A box is float32 (4, 2), clockwise from its top left. Sums and comparisons stay in float32, as there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Box = npt.NDArray[np.float32]
# Of an upright box: left, top, right, bottom.
Edges = tuple[Any, Any, Any, Any]

# Two boxes whose tops differ by less, pixels, are sorted by x.
SAME_LINE = 10
# Boxes are of one line where they overlap vertically by more than this share of the lower one's height,
LINE_OVERLAP = 0.6
# and a formula lies in a line where it does by this.
FORMULA_OVERLAP = 0.8
# Since 2.1 only boxes of a line more than so many times as wide as high are joined.
LONG = 4


def sort(boxes: Iterable[Box]) -> list[Box]:
    """From top to bottom, from left to right where two tops are near."""
    ordered = sorted(boxes, key=lambda box: (box[0][1], box[0][0]))
    for end in range(1, len(ordered)):
        for i in range(end, 0, -1):
            above, below = ordered[i - 1][0], ordered[i][0]
            if abs(below[1] - above[1]) >= SAME_LINE or below[0] >= above[0]:
                break
            ordered[i - 1], ordered[i] = ordered[i], ordered[i - 1]
    return ordered


def join(boxes: Iterable[Box], *, only_long_lines: bool) -> list[Box]:
    """Joins boxes of a line that touch; slanted ones come last, as they are."""
    straight, slanted = _apart(boxes)
    lines: list[list[Edges]] = []
    for edges in sorted(straight, key=lambda edges: edges[1]):
        if lines and _overlap(edges, lines[-1][-1]) > LINE_OVERLAP:
            lines[-1].append(edges)
        else:
            lines.append([edges])
    joined: list[Edges] = []
    for line in lines:
        left, top, right, bottom = _around(line)
        is_long = right - left > (bottom - top) * LONG
        joined.extend(_touching(line) if is_long or not only_long_lines else line)
    return [*map(_box, joined), *slanted]


def without_formulas(boxes: Iterable[Box], formulas: Sequence[dict[str, Any]]) -> list[Box]:
    """Cuts formulas, {"bbox": (left, top, right, bottom)}, out of the lines they lie in; slanted boxes come last, as they are."""
    straight, slanted = _apart(boxes)
    left: list[Edges] = []
    for edges in straight:
        inside = [formula["bbox"] for formula in formulas if _overlap(edges, formula["bbox"]) > FORMULA_OVERLAP]
        pieces = _rest(edges[0], edges[2], sorted((box[0], box[2]) for box in inside))
        left.extend((start, edges[1], end, edges[3]) for start, end in pieces)
    return [*map(_box, left), *slanted]


def is_upright(box: Box) -> bool:
    """Whether its sides are those of the page."""
    return len(np.unique(box[:, 0])) == 2 and len(np.unique(box[:, 1])) == 2


def _apart(boxes: Iterable[Box]) -> tuple[list[Edges], list[Box]]:
    straight: list[Edges] = []
    slanted: list[Box] = []
    for box in boxes:
        a, b, c, d = box
        height = ((d[1] - a[1]) + (c[1] - b[1])) / 2
        if 0.8 * height <= c[1] - a[1] <= 1.2 * height:
            straight.append((a[0], a[1], b[0], c[1]))
        else:
            slanted.append(box)
    return straight, slanted


def _overlap(one: Edges, other: Edges) -> Any:
    """Vertically, as a share of the lower one's height."""
    height = min(one[3] - one[1], other[3] - other[1])
    shared = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    return shared / height if height > 0 else 0.0


def _around(line: Sequence[Edges]) -> Edges:
    lefts, tops, rights, bottoms = zip(*line, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _touching(line: Sequence[Edges]) -> list[Edges]:
    joined: list[Edges] = []
    for edges in sorted(line, key=lambda edges: edges[0]):
        if joined and joined[-1][2] >= edges[0]:
            joined[-1] = _around([joined[-1], edges])
        else:
            joined.append(edges)
    return joined


def _rest(start: Any, end: Any, taken: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """What is left of start..end, whole pixels, both inside."""
    pieces = []
    for left, right in taken:
        if left > end or right < start:
            continue
        if start < left:
            pieces.append((start, left - 1))
        start = max(right + 1, start)
    if start <= end:
        pieces.append((start, end))
    return pieces


def _box(edges: Edges) -> Box:
    left, top, right, bottom = edges
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
