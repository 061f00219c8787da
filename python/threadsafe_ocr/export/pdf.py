"""A searchable PDF: the document as it is, with its text invisibly over it, where it can be marked, copied and searched.

pikepdf writes it (`pip install "threadsafe-ocr[pdf]"`). A PDF keeps its own pages; an image becomes a page.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from threadsafe_ocr import documents
from threadsafe_ocr.exceptions import ConfigError, InvalidImageError, PasswordError
from threadsafe_ocr.inputs import pil_open, pil_pixels
from threadsafe_ocr.result import OcrResult, TextLine

if TYPE_CHECKING:
    import pikepdf
    from PIL import Image

# Of an image that does not say how large its pixels are.
DPI = 200.0


def write(target: str | Path | BinaryIO, document: Any, pages: Iterable[OcrResult], *, password: str | None = None) -> None:
    """Writes a searchable PDF of a document and its pages.

    target: a path or a binary file. document: what was read, as a path or bytes: a PDF, a TIFF or another image. pages: the answers of
    `read_pages`, or of `read` for an image; a generator is taken from as it goes. A page without an answer stays without text. password: as
    `read_pages`; what is written is not encrypted.

    Raises ConfigError when pikepdf is missing, InvalidImageError, PasswordError, and what `pages` raises.

    >>> from threadsafe_ocr import ThreadSafeOCR
    >>> write("searchable.pdf", "document.pdf", ThreadSafeOCR().read_pages("document.pdf"))
    """
    try:
        import pikepdf
    except ImportError:
        raise ConfigError('a searchable PDF needs pikepdf; pip install "threadsafe-ocr[pdf]"') from None
    content = documents.content(document)
    if documents.is_pdf(content):
        try:
            made = pikepdf.open(_file(content), password=password or "")
        except pikepdf.PasswordError:
            raise PasswordError("the PDF is encrypted; give password=") from None
        except pikepdf.PdfError as error:
            raise InvalidImageError(f"this PDF cannot be opened for writing: {error}") from error
        with made:
            font = _font(made)
            for page in pages:
                _add_text(made.pages[(page.page_number or 1) - 1], page, font)
            made.save(target, deterministic_id=not made.is_encrypted)
    else:
        with pikepdf.new() as made, pil_open(_file(content)) as images:
            font = _font(made)
            for page in pages:
                images.seek((page.page_number or 1) - 1)
                _add_text(_image_page(made, images, content), page, font)
            made.save(target, deterministic_id=True)


def _file(content: str | bytes) -> Any:
    return io.BytesIO(content) if isinstance(content, bytes) else content


def _image_page(made: pikepdf.Pdf, image: Image.Image, content: str | bytes) -> pikepdf.Page:
    """A new page of the image's own size, which it fills."""
    from pikepdf import Dictionary, Name, Page, Stream
    from PIL import ImageOps

    # EXIF's orientation, PIL's tag 0x0112: the lines are told on the upright page.
    upright = image.getexif().get(0x0112, 1) == 1
    resolution = image.info.get("dpi", (DPI, DPI))
    across, down = (float(one) if one and one >= 10 else DPI for one in resolution)
    # MPO: a JPEG with other pictures after it, as phones make them.
    if image.format in ("JPEG", "MPO") and upright and image.mode in ("L", "RGB"):
        pixels = Path(content).read_bytes() if isinstance(content, str) else content
        filtered, colors, bits = Name.DCTDecode, image.mode, 8
    else:
        shown = image if upright else ImageOps.exif_transpose(image)
        if not upright:
            across, down = (down, across) if image.getexif().get(0x0112) in (5, 6, 7, 8) else (across, down)
        colors, bits = ("L", 1) if shown.mode == "1" else ("L", 8) if shown.mode == "L" else ("RGB", 8)
        image = shown if shown.mode in ("1", "L", "RGB") else _flat(shown)
        pixels, filtered = zlib.compress(image.tobytes()), Name.FlateDecode
    picture = Stream(made, pixels)
    picture.Type, picture.Subtype, picture.Filter = Name.XObject, Name.Image, filtered
    picture.Width, picture.Height, picture.BitsPerComponent = *image.size, bits
    picture.ColorSpace = Name.DeviceGray if colors == "L" else Name.DeviceRGB
    width, height = image.size[0] * 72 / across, image.size[1] * 72 / down
    page = made.add_blank_page(page_size=(width, height))
    page.Resources = Dictionary(XObject=Dictionary(Image=made.make_indirect(picture)))
    page.Contents = Stream(made, f"q {width:.4f} 0 0 {height:.4f} 0 0 cm /Image Do Q\n".encode())
    return Page(page.obj)


def _flat(image: Image.Image) -> Image.Image:
    """RGB, on white where it is transparent, as the engine reads it."""
    from PIL import Image

    pixels = pil_pixels(image)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        share = pixels[:, :, 3:] / np.float32(255)
        pixels = (pixels[:, :, :3] * share + 255 * (1 - share)).round().astype(np.uint8)
    return Image.fromarray(pixels).convert("RGB")


def _add_text(page: pikepdf.Page, answer: OcrResult, font: pikepdf.Object) -> None:
    from pikepdf import Name

    x0, y0, x1, y1 = _shown(page)
    turn = _rotation(page.obj) % 360
    width, height = (x1 - x0, y1 - y0) if turn in (0, 180) else (y1 - y0, x1 - x0)
    # From points of the page as it is shown, from its bottom left, to the page's own axes.
    matrix = {0: (1, 0, 0, 1, x0, y0), 90: (0, 1, -1, 0, x1, y0), 180: (-1, 0, 0, -1, x1, y1), 270: (0, -1, 1, 0, x0, y1)}[turn]
    scale = np.array([width / answer.width, -height / answer.height])
    name = page.add_resource(font, Name.Font, prefix="Ocr")
    words = "\n".join(word for line in answer.lines for word in _words(line, scale, height))
    # Before the page's own drawing, which may end with its state changed.
    page.contents_add(f"q {_numbers(matrix)} cm BT 3 Tr {name} 1 Tf\n{words}\nET Q\n".encode(), prepend=True)


def _shown(page: pikepdf.Page) -> tuple[float, float, float, float]:
    """What a viewer shows: the crop box as far as it is on the page."""
    (a, b, c, d), (e, f, g, h) = ([float(value) for value in box] for box in (page.mediabox, page.cropbox))
    return max(min(a, c), min(e, g)), max(min(b, d), min(f, h)), min(max(a, c), max(e, g)), min(max(b, d), max(f, h))


def _rotation(node: Any) -> int:
    """Degrees clockwise; a page without its own has that of the node above it."""
    for _ in range(64):
        if "/Rotate" in node:
            return int(node.Rotate) // 90 * 90
        if "/Parent" not in node:
            break
        node = node.Parent
    return 0


def _words(line: TextLine, scale: Any, height: float) -> Iterator[str]:
    """The operators that set each word, and each space between two, as wide as they are on the page."""
    words = line.words
    # Top left, top right, bottom right, bottom left as the text runs, in points.
    corners = [np.roll(word.polygon, -line.first_corner, axis=0) * scale + (0, height) for word in words]
    for index, word in enumerate(words):
        a, _, c, d = corners[index]
        yield _set(word.text, d, c, float(np.hypot(*(a - d))))
        if index + 1 < len(words) and words[index + 1].start > word.end:
            yield _set(" ", c, corners[index + 1][3], float(np.hypot(*(a - d))))


def _set(text: str, start: Any, end: Any, size: float) -> str:
    codes = text.encode("utf-16-be")
    along = (end - start) / max(len(codes) // 2, 1)
    length = float(np.hypot(*along)) or 1.0
    x, y = along / length
    return f"{_numbers((*along, -y * size, x * size, *start))} Tm <{codes.hex()}> Tj"


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _font(made: pikepdf.Pdf) -> pikepdf.Object:
    """A font whose characters are those of UTF-16 and have no shape: text of every script can be marked, and none is drawn."""
    from pikepdf import Array, Dictionary, Name, Stream, String

    file = Path(__file__).with_name("shapeless.ttf").read_bytes()
    descriptor = Dictionary(
        Type=Name.FontDescriptor,
        FontName=Name.Shapeless,
        Flags=4,
        FontBBox=[0, 0, 1000, 1000],
        ItalicAngle=0,
        Ascent=1000,
        Descent=0,
        CapHeight=1000,
        StemV=80,
        FontFile2=made.make_indirect(Stream(made, file, Length1=len(file))),
    )
    # Every character is glyph 1: as wide as the line is high, and empty.
    glyphs = Stream(made, zlib.compress(b"\0\1" * 65536), Filter=Name.FlateDecode)
    characters = Dictionary(
        Type=Name.Font,
        Subtype=Name.CIDFontType2,
        BaseFont=Name.Shapeless,
        CIDSystemInfo=Dictionary(Registry=String("Adobe"), Ordering=String("Identity"), Supplement=0),
        DW=1000,
        FontDescriptor=made.make_indirect(descriptor),
        CIDToGIDMap=made.make_indirect(glyphs),
    )
    font = Dictionary(
        Type=Name.Font,
        Subtype=Name.Type0,
        BaseFont=Name.Shapeless,
        Encoding=Name("/Identity-H"),
        DescendantFonts=Array([made.make_indirect(characters)]),
        ToUnicode=made.make_indirect(Stream(made, _to_unicode())),
    )
    return made.make_indirect(font)


def _to_unicode() -> bytes:
    """Every code is itself. A range may not go beyond the last byte, and a block has at most 100 of them."""
    ranges = [f"<{high:02x}00> <{high:02x}ff> <{high:02x}00>" for high in range(256)]
    blocks = [ranges[start : start + 100] for start in range(0, 256, 100)]
    body = "\n".join(f"{len(block)} beginbfrange\n" + "\n".join(block) + "\nendbfrange" for block in blocks)
    return (
        "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n"
        "/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def\n/CMapName /Adobe-Identity-UCS def\n/CMapType 2 def\n"
        f"1 begincodespacerange\n<0000> <ffff>\nendcodespacerange\n{body}\n"
        "endcmap\nCMapName currentdict /CMap defineresource pop\nend\nend\n"
    ).encode()
