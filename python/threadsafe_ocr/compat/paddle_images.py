"""What PaddleOCR's two generations read, each decoded as its own generation decodes it."""

from __future__ import annotations

import functools
import io
import os
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from threadsafe_ocr import _core, documents
from threadsafe_ocr.exceptions import ConfigError, InvalidImageError
from threadsafe_ocr.inputs import Source, source
from threadsafe_ocr.rendering import MOST_PIXELS, PdfDocument

Pixels = npt.NDArray[np.uint8]
# The pages of a PDF or TIFF, given as a path or bytes.
Document = Callable[[str | bytes], Iterator[Any]]

# The engine refuses larger pages by their header, before they are decoded here.
_MOST_PIXELS = 1 << 40
_LARGE = 80_000_000
_URL_SECONDS = 30
_URL_BYTES = 256 << 20
# Pixels: 2.x renders a PDF's page twice as large as it is, once where a side would be longer.
_MOST_SIDE = 2000
TIFF = {"tif", "tiff"}
# 3.x looks at the names of files. GIF is ours; Sun's rasters (sr, ras), which 3.x has, are not read.
SUFFIXES = {"bmp", "dib", "jpeg", "jpg", "png", "webp", "gif", "pbm", "pgm", "ppm", "pnm", *TIFF}


def is_url(value: Any) -> bool:
    """Whether it is to be downloaded."""
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def is_pdf(value: Any) -> bool:
    """Whether it is the path of a PDF, or the bytes of one."""
    if isinstance(value, bytes):
        return documents.is_pdf(value)
    return _is_path_of(value, ".pdf")


def is_gif(value: Any) -> bool:
    """Whether it is the path of a GIF."""
    return _is_path_of(value, ".gif")


def _is_path_of(value: Any, suffix: str) -> bool:
    return isinstance(value, (str, os.PathLike)) and os.fsdecode(value).lower().endswith(suffix)


def download(url: str, *, allowed: bool) -> bytes:
    """The content. Raises ConfigError where URLs are not allowed, InvalidImageError where the server gives nothing."""
    if not allowed:
        raise ConfigError(f"{url} would be downloaded; PaddleOCR(allow_urls=True) does that")
    try:
        with urllib.request.urlopen(url, timeout=_URL_SECONDS) as answer:
            content: bytes = answer.read(_URL_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InvalidImageError(f"{url} cannot be downloaded: {error}") from error
    if len(content) > _URL_BYTES:
        raise InvalidImageError(f"{url} has more than {_URL_BYTES >> 20} MiB")
    return content


def pdf_pages(value: Any, *, max_pixels: int | None) -> Iterator[Any]:
    """The pages of a PDF as 2.x renders them: at 144 dpi, at 72 where a side would have more than 2000 pixels."""
    most = max_pixels or MOST_PIXELS
    value = documents.content(value)
    if not documents.is_pdf(value):
        # By its name only.
        yield value
        return
    pdf = PdfDocument(value)
    try:
        for index in range(len(pdf)):
            page = pdf.render(index, 144.0, max_pixels=most)
            yield page if max(page.shape) <= _MOST_SIDE else pdf.render(index, 72.0, max_pixels=most)
    finally:
        pdf.close()


def document_pages(value: str | bytes, *, max_pixels: int | None, timeout: float | None) -> Iterator[Any]:
    """What can be read of a PDF, page by page, PADDLE_PDX_PDF_RENDER_SCALE (2) times as large as it is, as 3.x has it, and of a TIFF, frame
    by frame."""
    scale = os.environ.get("PADDLE_PDX_PDF_RENDER_SCALE", "2")
    try:
        dpi = 72 * float(scale)
    except ValueError:
        raise ConfigError(f"PADDLE_PDX_PDF_RENDER_SCALE={scale!r} is no number") from None
    with documents.pages_of(value, None, dpi=dpi, password=None, max_pixels=max_pixels, timeout=timeout) as found:
        for _, load in found:
            yield load(documents.deadline(timeout))


def decoded(value: str | bytes, *, color: bool, max_pixels: int = _MOST_PIXELS) -> Pixels:
    """Pixels of a path or bytes, in OpenCV's way. Raises InvalidImageError, which names the path."""
    content = value if isinstance(value, bytes) else Path(value).read_bytes()
    pixels = _jpeg(content, color=color) if content.startswith(b"\xff\xd8\xff") else None
    if pixels is not None:
        return pixels
    try:
        return _core.decode(content, color, max_pixels)
    except InvalidImageError as error:
        if isinstance(value, bytes):
            raise
        raise InvalidImageError(f"{value}: {error}") from error


def _jpeg(content: bytes, *, color: bool) -> Pixels | None:
    """A JPEG by Pillow, where that is installed: it has OpenCV's decoder. The core's differs by up to 5 grey levels, and 2 % of the texts.

    None: for the core to read, or to say what is wrong.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return None
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            # Inks are OpenCV's own affair; Pillow warns of very large pages.
            if image.mode not in ("RGB", "L") or image.width * image.height > _LARGE:
                return None
            upright = ImageOps.exif_transpose(image) if color else image
            return _bgr(np.asarray(upright))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - Pillow says in many ways that a file is broken
        return None


def as_given(value: Any, then: Callable[[Pixels], Pixels], *, color: bool) -> Source:
    """A page that is decoded, once it has its permit, to what `then` makes of the pixels."""
    found = source(value, rgb=False)
    if isinstance(found.head, (str, bytes)):
        return Source(found.head, False, lambda: then(decoded(found.head, color=color)))
    if isinstance(found.head, np.ndarray):
        return Source(found.head, False, lambda: then(found.head))
    # PIL's are RGB, upright.
    return Source(found.head, False, lambda: then(_bgr(found.load())))


def _bgr(pixels: Pixels) -> Pixels:
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, [2, 1, 0, *range(3, pixels.shape[2])]])


class Page(NamedTuple):
    """A page for 3.x: where it is from (of a PDF or TIFF which page, from 0), and its pixels, which are there once it was started."""

    source: Source
    path: str | None
    number: int | None
    pixels: list[Pixels]


def _page(value: Any, path: str | None = None, index: int | None = None) -> Page:
    pixels: list[Pixels] = []

    def keep(found: Pixels) -> Pixels:
        pixels.append(found)
        # 3.x reads the first three channels of four.
        return np.ascontiguousarray(found[:, :, :3]) if found.ndim == 3 and found.shape[2] == 4 else found

    return Page(as_given(value, keep, color=True), path, index, pixels)


def pages(inputs: Any, *, allow_urls: bool, max_pixels: int | None, timeout: float | None) -> Iterator[Page]:
    """What 3.x's `predict` reads: an array, a path, a folder with all below it, or a list of these; bytes, PIL images and Path too.

    What cannot be read by its kind is left out with a UserWarning, as 3.x leaves it out with a line in its log. max_pixels, timeout: of the
    pages that are rendered.
    """
    document = functools.partial(document_pages, max_pixels=max_pixels, timeout=timeout)
    for value in inputs if isinstance(inputs, list) else [inputs]:
        if is_url(value):
            yield from _of_content(download(value, allowed=allow_urls), value, document)
        elif isinstance(value, bytes):
            yield from _of_content(value, None, document)
        elif isinstance(value, (str, os.PathLike)):
            yield from _of_path(os.fspath(value), document)
        elif value is None or isinstance(value, (int, float, tuple, dict, set)):
            warnings.warn(f"a {type(value).__name__} cannot be read and is left out; give an array or a path", UserWarning, stacklevel=2)
        else:
            yield _page(value)


def inside(folder: str) -> list[str]:
    """The images and PDFs of a folder and of all folders in it, sorted."""
    files = sorted(os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
    return [file for file in files if file.rsplit(".", 1)[-1].lower() in {*SUFFIXES, "pdf"}]


def _of_content(content: bytes, path: str | None, document: Document) -> Iterator[Page]:
    if documents.is_pdf(content) or documents.frame_count(content):
        yield from _numbered(document(content), path)
    else:
        yield _page(content, path)


def _numbered(found: Iterator[Any], path: str | None) -> Iterator[Page]:
    for index, page in enumerate(found):
        yield _page(page, path, index)


def _of_path(path: str, document: Document) -> Iterator[Page]:
    suffix = path.rsplit(".", 1)[-1].lower()
    if is_pdf(path) or suffix in TIFF:
        yield from _numbered(document(path), path)
    elif suffix in SUFFIXES:
        yield _page(path, path)
    elif os.path.isdir(path):
        files = inside(path)
        if not files:
            raise InvalidImageError(f"there is no image in {path}")
        for file in files:
            yield from _of_path(file, document)
    else:
        warnings.warn(
            f"{path} is left out: it is no folder and its name does not end as an image's ({', '.join(sorted(SUFFIXES))})",
            UserWarning,
            stacklevel=2,
        )
