"""The words of a line and where they are: from the columns of the recogniser's output at which its characters were read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from threadsafe_ocr.result import TextLine

# Kana, ideographs, their punctuation and their full-width forms stand for themselves; a space of any width is in no word.
_ALONE = "\u3001-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff9f\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_ALONE}]|[^\\s{_ALONE}]+")


def upright(polygon: npt.NDArray[np.float32]) -> tuple[float, float, float, float]:
    """The upright rectangle around a polygon: x0, y0, x1, y1."""
    (x0, y0), (x1, y1) = polygon.min(axis=0).tolist(), polygon.max(axis=0).tolist()
    return x0, y0, x1, y1


@dataclass(frozen=True, eq=False)
class Word:
    """A word of a line: what stands between spaces; a Chinese or Japanese character is a word of its own.

    score: mean probability of its characters. polygon: as a line's. start: where it begins in the line's text.
    """

    text: str
    score: float
    polygon: npt.NDArray[np.float32] = field(repr=False)
    start: int = field(default=0, repr=False)

    @property
    def end(self) -> int:
        """Where it ends in the line's text."""
        return self.start + len(self.text)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The upright rectangle around the polygon: x0, y0, x1, y1."""
        return upright(self.polygon)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, for JSON."""
        return {"text": self.text, "score": self.score, "polygon": self.polygon.tolist(), "box": list(self.box)}


def of(line: TextLine) -> tuple[Word, ...]:
    """The words of a line, in reading order.

    A character's column is near its centre, so a word's edge is halfway between the centres of its last character and of the next one,
    which is a space or the next word's first; the first and the last edge are one mean distance of characters beyond the outermost centres,
    within the line. Arabic's columns fall where its text goes on.
    """
    if not line.text:
        return ()
    centres = (np.arange(len(line.text)) if line.columns is None else line.columns) + 0.5
    length = line.column_count if line.columns is not None else float(len(line.text))
    from_the_left = np.argsort(centres, kind="stable")
    centres = centres[from_the_left]
    distance = (centres[-1] - centres[0]) / (len(centres) - 1) if len(centres) > 1 else length
    edges = [centres[0] - distance, *((centres[:-1] + centres[1:]) / 2), centres[-1] + distance]
    shares = np.clip(np.divide(edges, length), 0, 1)
    places = np.argsort(from_the_left)
    # The text's own top left, top right, bottom right, bottom left.
    a, b, c, d = np.roll(line.polygon, -line.first_corner, axis=0)

    def word(match: re.Match[str]) -> Word:
        own = places[slice(*match.span())]
        left, right = shares[own.min()], shares[own.max() + 1]
        corners = [a + (b - a) * left, a + (b - a) * right, d + (c - d) * right, d + (c - d) * left]
        polygon = np.roll(np.asarray(corners, np.float32), line.first_corner, axis=0)
        polygon.flags.writeable = False
        scores = line.character_scores
        score = line.score if scores is None else float(scores[slice(*match.span())].mean())
        return Word(match[0], score, polygon, match.start())

    return tuple(word(match) for match in _WORD.finditer(line.text))


def joined(words: Iterable[Word], space: str, written: Callable[[int, Word], str]) -> str:
    """The words of a line, each as `written(number, word)` has it, with `space` where the text has one between two. Numbers are from 1."""
    end, text = 0, ""
    for number, word in enumerate(words, 1):
        text += space * (word.start > end > 0) + written(number, word)
        end = word.end
    return text
