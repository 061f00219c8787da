"""How right an answer is: page CER and the F1 of its words."""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

# Corners.
Box = Sequence[Sequence[float]]
# A text and its box; none where the truth has no boxes.
Line = tuple[str, Box | None]

# Marks that prints and readers write in several ways.
QUOTES, DOUBLE_QUOTES, DASHES = "\u2018\u2019`\u00b4\u2032", "\u201c\u201d\u201e\u2033", "\u2014\u2013\u2212\u2010\u2011"
SAME = {
    ord(mark): one
    for marks, one in ((QUOTES, "'"), (DOUBLE_QUOTES, '"'), (DASHES, "-"), ("\u2022", "\u00b7"), ("\u3002", "."), ("\u3001", ","))
    for mark in marks
}
HAN = "\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# A Chinese character is a word.
WORD = re.compile(rf"[{HAN}]|[^\W_{HAN}]+")


def page(truth: Sequence[Line], read: Sequence[Line], ignored: Sequence[Box] = ()) -> Counter[str]:
    """Counts that add up over pages; see `figures`. Case counts only where the truth is not all upper case, as that of receipts is. What is
    read inside one of the `ignored` boxes, those of drawings and formulas, is neither right nor wrong."""
    read = [line for line in read if not any(_is_inside(line[1], box) for box in ignored)]
    text = "".join(line for line, _ in truth)
    fold = str.casefold if text == text.upper() else str
    wanted, got = (Counter(WORD.findall(fold(_plain(" ".join(line for line, _ in lines))))) for lines in (truth, read))
    counts = Counter(both=(wanted & got).total(), words=wanted.total() + got.total())
    ends, begins = (fold("".join(_plain(line).split())) for line in ("".join(_in_rows(truth)), "".join(_in_rows(read))))
    counts.update(wrong=distance(ends, begins), characters=len(ends))
    return counts


def figures(counts: Counter[str]) -> tuple[float, float]:
    """CER and the F1 of words."""
    return counts["wrong"] / max(counts["characters"], 1), 2 * counts["both"] / max(counts["words"], 1)


def _is_inside(box: Box | None, other: Box) -> bool:
    """Whether most of the upright rectangle around `box` is in that around `other`."""
    if box is None:
        return False
    (left, top), (right, bottom) = np.min(box, 0), np.max(box, 0)
    width, height = np.minimum((right, bottom), np.max(other, 0)) - np.maximum((left, top), np.min(other, 0))
    return bool(max(width, 0) * max(height, 0) > (right - left) * (bottom - top) / 2)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).translate(SAME)


def _in_rows(lines: Sequence[Line]) -> list[str]:
    """Texts from top to bottom, those of a row from left to right, so that it does not matter who splits a row into how many lines; in the
    order in which they are told, where they have no boxes."""
    boxes = [(text, np.asarray(box, float)) for text, box in lines if box is not None]
    if len(boxes) < len(lines) or not lines:
        return [text for text, _ in lines]
    spans = sorted((box[:, 1].mean(), box[:, 0].min(), text) for text, box in boxes)
    gap = statistics.median(float(np.ptp(box[:, 1])) for _, box in boxes) / 2
    rows, begin = [[spans[0]]], spans[0][0]
    for span in spans[1:]:
        if span[0] - begin > gap:
            rows.append([])
            begin = span[0]
        rows[-1].append(span)
    return [text for row in rows for _, _, text in sorted(row, key=lambda span: span[1])]


def distance(a: str, b: str) -> int:
    """Edits from one text to the other; a row of the table at a time."""
    codes = np.frombuffer(b.encode("utf-32-le"), np.uint32)
    steps = np.arange(len(codes) + 1)
    row = steps.copy()
    for i, character in enumerate(a, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (codes != ord(character)))
        row = np.minimum.accumulate(np.concatenate([[i], best]) - steps) + steps
    return int(row[-1])
