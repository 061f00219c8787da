"""Markdown: lines that stand close together are a paragraph. Headings and tables are not told apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from threadsafe_ocr.result import OcrResult, TextLine

# What would be formatting: anywhere in a line, and at its beginning.
_ANYWHERE = re.compile(r"([\\`*_\[\]<>|$])")
_BEGINNING = re.compile(r"^(\s*)([#+-]|\d+(?=[.)](\s|$)))")


def write(pages: Iterable[OcrResult], name: str = "") -> str:
    """All pages, with a rule between two.

    >>> import numpy as np
    >>> line = TextLine("# of *all*", 0.99, np.array([[0, 0], [90, 0], [90, 10], [0, 10]], np.float32))
    >>> write([OcrResult((line,), 100, 20)])
    '\\\\# of \\\\*all\\\\*\\n'
    """
    return "\n---\n\n".join("\n\n".join("\n".join(map(_escaped, part)) for part in _paragraphs(page)) + "\n" for page in pages)


def _escaped(line: str) -> str:
    def number(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]}\\" if match[2].isdigit() else f"{match[1]}\\{match[2]}"

    return _BEGINNING.sub(number, _ANYWHERE.sub(r"\\\1", line))


def _paragraphs(page: OcrResult) -> Iterator[list[str]]:
    """A line begins a paragraph unless it is below the one before it, by less than half a line's height of white."""
    paragraph: list[str] = []
    before = None
    for line in page.lines:
        if before is not None and not _follows(before, line):
            yield paragraph
            paragraph = []
        paragraph.append(line.text)
        before = line
    if paragraph:
        yield paragraph


def _follows(before: TextLine, line: TextLine) -> bool:
    (x0, y0, x1, y1), (u0, v0, u1, v1) = (_as_read(one) for one in (before, line))
    height = min(y1 - y0, v1 - v0)
    return v0 > y0 and v0 - y1 < height / 2 and u0 < x1 and x0 < u1


def _as_read(line: TextLine) -> tuple[float, float, float, float]:
    """Its box on axes turned with the reader."""
    x0, y0, x1, y1 = line.box
    return [(x0, y0, x1, y1), (y0, -x1, y1, -x0), (-x1, -y1, -x0, -y0), (-y1, x0, -y0, x1)][line.first_corner]
