"""hOCR 1.2: HTML that says of every page, line and word where it is. http://kba.github.io/hocr-spec/1.2/"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from threadsafe_ocr.result import OcrResult, TextLine
from threadsafe_ocr.words import Word, joined

# Degrees against the clock, by the corner at which the reader begins.
_ANGLES = (0, 270, 180, 90)


def write(pages: Iterable[OcrResult], name: str = "") -> str:
    """One HTML document of all pages. name: the image's or the document's file name.

    >>> from threadsafe_ocr import ThreadSafeOCR
    >>> print(write([ThreadSafeOCR().read("page.png")], "page.png"))
    <!DOCTYPE html>
    ...
    """
    body = "\n".join(_page(page, page.page_number or number, name) for number, page in enumerate(pages, 1))
    return (
        '<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n<title></title>\n<meta name="ocr-system" content="threadsafe-ocr">\n'
        f'<meta name="ocr-capabilities" content="ocr_page ocr_line ocrx_word">\n</head>\n<body>\n{body}\n</body>\n</html>\n'
    )


def _page(page: OcrResult, number: int, name: str) -> str:
    title = f'image "{name}"; bbox 0 0 {page.width} {page.height}; ppageno {number - 1}'
    lines = "\n".join(_line(line, f"{number}_{index}") for index, line in enumerate(page.lines, 1))
    return f'<div class="ocr_page" id="page_{number}" title="{escape(title)}">\n{lines}\n</div>'


def _line(line: TextLine, mark: str) -> str:
    angle = _ANGLES[line.first_corner]
    turned = f"; textangle {angle}" if angle else ""
    words = joined(line.words, " ", lambda number, word: _word(word, f"{mark}_{number}"))
    return f'<span class="ocr_line" id="line_{mark}" title="{_box(line.box)}{turned}">{words}</span>'


def _word(word: Word, mark: str) -> str:
    title = f"{_box(word.box)}; x_wconf {round(100 * word.score)}"
    return f'<span class="ocrx_word" id="word_{mark}" title="{title}">{escape(word.text)}</span>'


def _box(box: tuple[float, float, float, float]) -> str:
    return "bbox " + " ".join(str(round(value)) for value in box)
