"""What a call answers: frozen, picklable dataclasses."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from threadsafe_ocr.right_to_left import spoken_order
from threadsafe_ocr.words import Word, of, upright

if TYPE_CHECKING:
    from PIL import Image

Raw = tuple[
    int,
    int,
    int,
    list[str],
    list[float],
    npt.NDArray[np.float32],
    list["tuple[bool, float] | None"],
    list[int],
    list[float],
    tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]],
    tuple[float, float, float, float],
]


class Seconds(NamedTuple):
    """What each step of a page took, one after the other: with its waits for workers, from when the request was let in."""

    decode: float
    detection: float
    orientation: float
    recognition: float


@dataclass(frozen=True, eq=False)
class TextLine:
    """A line of text.

    text: what it says. score: how sure recognition is of it, 0 to 1. polygon: its corners, float32 (4, 2), x and y in the page's
    pixels, clockwise from the corner at the top left of the page; read-only. upside_down: whether it was turned by 180 degrees
    before it was read, and upside_down_score the classifier's probability of that; None where nobody looked. Of a page's lines 16 are
    looked at, and the others go their way without a score.

    first_corner: which corner of the polygon is the text's own top left: 0 as on an upright page, 1 where text runs down, 2 upside down,
    3 where it runs up. column_count: columns of the recogniser's output that make up the line's length. columns, int32, and
    character_scores, float32: of each character of the text, the column it was read at and its probability; None where nothing was read.
    """

    text: str
    score: float
    polygon: npt.NDArray[np.float32] = field(repr=False)
    upside_down: bool | None = field(default=None, repr=False)
    upside_down_score: float | None = field(default=None, repr=False)
    first_corner: int = field(default=0, repr=False)
    column_count: float = field(default=0.0, repr=False)
    columns: npt.NDArray[np.int32] | None = field(default=None, repr=False)
    character_scores: npt.NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The upright rectangle around the polygon: x0, y0, x1, y1.

        >>> TextLine("Hello", 0.99, np.array([[10, 5], [90, 7], [89, 25], [9, 23]], np.float32)).box
        (9.0, 5.0, 90.0, 25.0)
        """
        return upright(self.polygon)

    @property
    def words(self) -> tuple[Word, ...]:
        """The words in reading order, each with its place; where `columns` is None, as if all characters were of one width.

        >>> line = TextLine("to be", 0.99, np.array([[0, 0], [50, 0], [50, 10], [0, 10]], np.float32))
        >>> [(word.text, word.box) for word in line.words]
        [('to', (0.0, 0.0, 20.0, 10.0)), ('be', (30.0, 0.0, 50.0, 10.0))]
        """
        return of(self)

    def to_dict(self, *, words: bool = False) -> dict[str, Any]:
        """Plain Python values, for JSON; with the words too if asked.

        >>> TextLine("Hi", 0.99, np.zeros((4, 2), np.float32)).to_dict()["box"]
        [0.0, 0.0, 0.0, 0.0]
        """
        plain = {"text": self.text, "score": self.score, "polygon": self.polygon.tolist(), "box": list(self.box)}
        return {**plain, "words": [word.to_dict() for word in self.words]} if words else plain

    def __setstate__(self, state: dict[str, Any]) -> None:
        # An array forgets in a pickle that it was read-only.
        self.__dict__.update(state)
        for array in (self.polygon, self.columns, self.character_scores):
            if array is not None:
                array.flags.writeable = False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TextLine):
            return NotImplemented
        return (self.text, self.score) == (other.text, other.score) and bool(np.array_equal(self.polygon, other.polygon))

    def __hash__(self) -> int:
        return hash((self.text, self.score, self.polygon.tobytes()))


@dataclass(frozen=True)
class OcrResult:
    """A page: its lines in reading order, and its size in pixels. A page without text has no lines.

    page_number: of a document's page, from 1. angle: by how many degrees the page was turned clockwise as it was given, 0, 90, 180 or 270,
    as most of its text runs; with use_doc_orientation the lines are told as on the upright page. seconds: what reading it took; pages are
    equal whatever that was, and it is not in the JSON.

    >>> line = TextLine("Hello", 0.99, np.array([[10, 5], [90, 5], [90, 25], [10, 25]], np.float32))
    >>> page = OcrResult((line,), width=100, height=30)
    >>> page
    OcrResult(lines=(TextLine(text='Hello', score=0.99),), width=100, height=30)
    >>> page.text
    'Hello'
    >>> page.to_dict()["lines"][0]["box"]
    [10.0, 5.0, 90.0, 25.0]
    >>> page.to_json()
    '{"width": 100, "height": 30, "lines": [{"text": "Hello", "score": 0.99, "polygon": ...}]}'
    """

    lines: tuple[TextLine, ...]
    width: int
    height: int
    page_number: int | None = field(default=None, repr=False)
    angle: int = field(default=0, repr=False)
    seconds: Seconds | None = field(default=None, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The lines' texts, one a line."""
        return "\n".join(line.text for line in self.lines)

    def to_dict(self, *, words: bool = False) -> dict[str, Any]:
        """Plain Python values, for JSON; with the words of each line too if asked."""
        number = {} if self.page_number is None else {"page_number": self.page_number}
        return {**number, "width": self.width, "height": self.height, "lines": [line.to_dict(words=words) for line in self.lines]}

    def to_json(self, *, indent: int | None = None, words: bool = False) -> str:
        """The same as JSON text; characters beyond ASCII stay as they are."""
        return json.dumps(self.to_dict(words=words), ensure_ascii=False, indent=indent)

    def draw(
        self, path: str | os.PathLike[str] | None = None, *, image: Any = None, font: str | os.PathLike[str] | None = None
    ) -> Image.Image:
        """A picture of the page, saved to `path` if there is one; needs `pip install "threadsafe-ocr[draw]"`.

        image: what was read (path, bytes, file object, PIL image or BGR array): boxes over it, the text beside it. Without it boxes and
        text are on white. font: a font file for other scripts than Latin, Chinese, Japanese and Korean.

        Raises ConfigError when Pillow is missing or the image is not of the page's size.

        >>> from threadsafe_ocr import ThreadSafeOCR
        >>> with ThreadSafeOCR() as ocr:
        ...     page = ocr.read("page.png")
        >>> page.draw("drawn.png", image="page.png").size == (2 * page.width, page.height)
        True
        """
        from threadsafe_ocr import draw

        picture = draw.draw(self, image, font)
        if path is not None:
            picture.save(path)
        return picture

    def _repr_html_(self) -> str:
        """For notebooks."""
        from threadsafe_ocr import draw

        return draw.to_svg(self)


def from_raw(raw: Raw) -> OcrResult:
    """The native answer as dataclasses."""
    width, height, turns, texts, scores, corners, flags, first_corners, column_counts, (columns, probabilities), seconds = raw
    for array in (corners, columns, probabilities):
        array.flags.writeable = False
    lines = []
    end = 0
    for text, score, polygon, flag, first_corner, count in zip(texts, scores, corners, flags, first_corners, column_counts, strict=True):
        upside_down, probability = flag or (None, None)
        own = slice(end, end := end + len(text))
        read = (columns[own], probabilities[own]) if count else (None, None)
        lines.append(_as_spoken(TextLine(text, score, polygon, upside_down, probability, first_corner, count, *read)))
    return OcrResult(tuple(lines), width, height, angle=90 * turns, seconds=Seconds(*seconds))


def _as_spoken(line: TextLine) -> TextLine:
    """The line with its Arabic in the order in which it is spoken."""
    order = spoken_order(line.text)
    if order is None:
        return line
    read: dict[str, Any] = {}
    if line.columns is not None and line.character_scores is not None:
        read = {"columns": line.columns[order], "character_scores": line.character_scores[order]}
    for array in read.values():
        array.flags.writeable = False
    return replace(line, text="".join(line.text[i] for i in order), **read)
