"""RapidOCR 3.10's word boxes: where characters are, by the columns at which recognition read them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from threadsafe_ocr.compat.rapidocr.output import DIGITS, Word
from threadsafe_ocr.result import TextLine

# A word ends where the next character was read more columns later than this.
GAP = 5


def of(line: TextLine, *, characters: bool = False) -> tuple[Word, ...]:
    """(text, score, [[x, y] x 4]) of each word of a line, corners as the line's, whole pixels.

    Words are between blanks and gaps; in a line with any Chinese character, or with `characters`, every character stands for itself.
    A score is the mean of its own characters'.
    """
    if line.columns is None or line.character_scores is None:
        return ()
    groups = list(_groups(line.text, line.columns))
    if not groups:
        return ()
    a, b, c, d = np.roll(line.polygon, -line.first_corner, axis=0)
    length = int(max(np.linalg.norm(b - a), np.linalg.norm(c - d)))
    column = length / line.column_count
    centres = (line.columns + 0.5) * column
    widths = [(centres[last] - centres[first]) / (last - first) for first, last in groups if last > first]
    half = float(np.mean(widths)) / 2 if widths else length / len(line.text) / 2
    units = groups
    if characters or any(map(_is_chinese, line.text)):
        units = [(at, at) for first, last in groups for at in range(first, last + 1)]
    edges: list[list[float]] = [[max(int(centres[first] - half), 0), min(int(centres[last] + half), length)] for first, last in units]
    for left, right in itertools.pairwise(edges):
        if left[1] > right[0]:
            left[1] = right[0] = (left[1] + right[0]) / 2
    words = []
    for (first, last), shares in zip(units, np.divide(edges, length), strict=True):
        start, end = shares.tolist()
        corners = [a + (b - a) * start, a + (b - a) * end, d + (c - d) * end, d + (c - d) * start]
        box = np.roll(corners, line.first_corner, axis=0).astype(int).tolist()
        score = round(float(line.character_scores[first : last + 1].mean()), DIGITS)
        words.append((line.text[first : last + 1], score, box))
    return tuple(words)


def _groups(text: str, columns: npt.NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    """First and last index of runs of characters of one kind, Chinese or not, without blanks and gaps between them."""
    first = 0
    for at, character in enumerate(text):
        if character.isspace():
            first = at + 1
            continue
        following = text[at + 1 : at + 2]
        goes_on = following and not following.isspace() and _is_chinese(following) == _is_chinese(character)
        if not goes_on or columns[at + 1] - columns[at] > GAP:
            yield first, at
            first = at + 1


def _is_chinese(character: str) -> bool:
    """Ideographs, their punctuation, and full-width forms."""
    return "\u4e00" <= character <= "\u9fff" or "\u3000" <= character <= "\u303f" or "\uff00" <= character <= "\uffef"
