"""ALTO 4.4: the archives' XML for what is where on a page. https://www.loc.gov/standards/alto/"""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

from threadsafe_ocr.result import OcrResult, TextLine
from threadsafe_ocr.words import Word, joined

# Degrees clockwise, by the corner at which the reader begins.
_ANGLES = (0, 90, 180, 270)


def write(pages: Iterable[OcrResult], name: str = "") -> str:
    """One XML document of all pages, in pixels. name: the image's or the document's file name.

    >>> from threadsafe_ocr import ThreadSafeOCR
    >>> print(write([ThreadSafeOCR().read("page.png")], "page.png"))
    <?xml version="1.0" encoding="UTF-8"?>
    ...
    """
    layout = "\n".join(_page(page, page.page_number or number) for number, page in enumerate(pages, 1))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#" SCHEMAVERSION="4.4">\n'
        "<Description>\n<MeasurementUnit>pixel</MeasurementUnit>\n"
        f"<sourceImageInformation><fileName>{escape(name)}</fileName></sourceImageInformation>\n"
        '<Processing ID="ocr"><processingSoftware><softwareName>threadsafe-ocr</softwareName></processingSoftware></Processing>\n'
        f"</Description>\n<Layout>\n{layout}\n</Layout>\n</alto>\n"
    )


def _page(page: OcrResult, number: int) -> str:
    size = f'WIDTH="{page.width}" HEIGHT="{page.height}"'
    blocks = "\n".join(_block(line, f"{number}_{index}") for index, line in enumerate(page.lines, 1))
    space = f'<PrintSpace HPOS="0" VPOS="0" {size}>\n{blocks}\n</PrintSpace>' if page.lines else f'<PrintSpace HPOS="0" VPOS="0" {size}/>'
    return f'<Page ID="page_{number}" PHYSICAL_IMG_NR="{number}" {size}>\n{space}\n</Page>'


def _block(line: TextLine, mark: str) -> str:
    """A block a line: the engine finds lines, not paragraphs, and only a block may say how it is turned."""
    place = _place(line.box)
    angle = _ANGLES[line.first_corner]
    turned = f' ROTATION="{angle}"' if angle else ""
    points = " ".join(f"{round(x)},{round(y)}" for x, y in line.polygon.tolist())
    shape = f'<Shape><Polygon POINTS="{points}"/></Shape>'
    words = joined(line.words, "<SP/>", lambda number, word: _word(word, f"{mark}_{number}"))
    return f'<TextBlock ID="block_{mark}" {place}{turned}>{shape}<TextLine ID="line_{mark}" {place}>{shape}{words}</TextLine></TextBlock>'


def _word(word: Word, mark: str) -> str:
    return f'<String ID="word_{mark}" {_place(word.box)} WC="{word.score:.2f}" CONTENT={quoteattr(word.text)}/>'


def _place(box: tuple[float, float, float, float]) -> str:
    x0, y0, x1, y1 = (round(value) for value in box)
    return f'HPOS="{x0}" VPOS="{y0}" WIDTH="{x1 - x0}" HEIGHT="{y1 - y0}"'
