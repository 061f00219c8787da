"""Writes python/threadsafe_ocr/export/shapeless.ttf: a font of one glyph without area, for text that is found and marked but not drawn.

pip install fonttools && python scripts/make_shapeless_font.py
"""

from __future__ import annotations

from pathlib import Path

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

TARGET = Path(__file__).parents[1] / "python" / "threadsafe_ocr" / "export" / "shapeless.ttf"


def main() -> None:
    """Writes it; the bytes are the same each time."""
    builder = FontBuilder(1000, isTTF=True)
    # As PDF wants them: .notdef, and the glyph of every character.
    names = [".notdef", "any"]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({})
    # From corner to corner and back: PDFium leaves out a lone character whose glyph has no extent.
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((1000, 1000))
    pen.closePath()
    glyph = pen.glyph()
    builder.setupGlyf({name: glyph for name in names})
    builder.setupHorizontalMetrics({name: (1000, 0) for name in names})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Shapeless", "styleName": "Regular", "psName": "Shapeless"})
    builder.setupOS2(sTypoAscender=1000, usWinAscent=1000, usWinDescent=0)
    builder.setupPost()
    builder.font["head"].created = builder.font["head"].modified = 0
    builder.font.recalcTimestamp = False
    builder.save(TARGET)


if __name__ == "__main__":
    main()
