"""All pages of a document: of a PDF, of a TIFF with several frames, or of an image, which is one page."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from threadsafe_ocr.exceptions import ConfigError, ImageFileError, ImageNotFoundError, InvalidImageError, OcrTimeoutError
from threadsafe_ocr.inputs import source
from threadsafe_ocr.rendering import MOST_PIXELS, PdfDocument
from threadsafe_ocr.result import OcrResult

if TYPE_CHECKING:
    from PIL import Image

# A page's image, given the time at which it must be there.
Load = Callable[[float | None], Any]


@contextlib.contextmanager
def pages_of(
    document: Any,
    pages: str | int | Iterable[int] | None,
    *,
    dpi: float,
    password: str | None,
    max_pixels: int | None,
    timeout: float | None,
) -> Iterator[list[tuple[int, Load]]]:
    """The wanted pages of a document while it is open: their numbers, from 1, and how to come by their images, in turn and by one thread.

    Raises what the docstring of `ThreadSafeOCR.read_pages` says.
    """
    if not 0 < dpi <= 2400:
        raise ConfigError(f"dpi={dpi!r} is not between 0 and 2400")
    value = content(document)
    most = max_pixels or MOST_PIXELS
    if is_pdf(value):
        pdf = PdfDocument(value, password)
        try:
            count = pdf.count(deadline(timeout))
            yield [(number, _rendered(pdf, number, dpi, most)) for number in chosen(pages, count)]
        finally:
            pdf.close()
    elif (count := frame_count(value)) > 1:
        with _frames(value) as frames:
            yield [(number, _frame(frames, number, most)) for number in chosen(pages, count)]
    else:
        yield [(number, lambda _: value) for number in chosen(pages, 1)]


def content(document: Any) -> Any:
    """A path as str, a file object as the bytes in it, anything else as it is. Raises TypeError."""
    if isinstance(document, os.PathLike):
        return os.fsdecode(document)
    return source(document, rgb=False).head if hasattr(document, "read") or isinstance(document, (bytearray, memoryview)) else document


def is_pdf(value: Any) -> bool:
    """Whether a path or bytes are a PDF. Raises ImageNotFoundError, ImageFileError."""
    # Other bytes may come before its mark.
    with _reading(value) as file:
        return b"%PDF-" in file.read(1024)


def frame_count(value: Any) -> int:
    """How many frames a TIFF at a path or in bytes has; 0 for anything else. Raises ImageNotFoundError, ImageFileError."""
    with _reading(value) as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or head[2:4].strip(b"\0") not in (b"*", b"+"):
            return 0
        big = b"+" in head[2:4]
        length, entry, link = ("Q", 20, "Q") if big else ("H", 12, "I")
        seen: set[int] = set()
        try:
            (place,) = struct.unpack_from(order + link, head, 8 if big else 4)
            # Each frame's table names the next one's place.
            while place and place not in seen:
                file.seek(place)
                (entries,) = struct.unpack(order + length, file.read(struct.calcsize(length)))
                file.seek(entries * entry, os.SEEK_CUR)
                seen.add(place)
                (place,) = struct.unpack(order + link, file.read(struct.calcsize(link)))
        except (struct.error, OSError, OverflowError, ValueError):
            # Broken: its frames so far are there to be tried.
            pass
        return len(seen)


@contextlib.contextmanager
def _reading(value: Any) -> Iterator[BinaryIO]:
    if not isinstance(value, str):
        yield io.BytesIO(value if isinstance(value, bytes) else b"")
        return
    try:
        file = open(value, "rb")  # noqa: SIM115 - errors of opening are ours, others the caller's
    except OSError as error:
        kind = ImageNotFoundError if isinstance(error, FileNotFoundError) else ImageFileError
        raise kind(error.errno, error.strerror, value) from None
    with file:
        yield file


def _rendered(pdf: PdfDocument, number: int, dpi: float, max_pixels: int) -> Load:
    return lambda until: pdf.render(number - 1, dpi, max_pixels=max_pixels, until=until)


def _frame(frames: Image.Image, number: int, max_pixels: int) -> Load:
    def load(_until: float | None) -> Image.Image:
        try:
            frames.seek(number - 1)
            width, height = frames.size
            if width * height > max_pixels:
                raise InvalidImageError(f"frame {number} is {width}x{height} pixels, more than max_pixels={max_pixels}")
            return frames.copy()
        except (InvalidImageError, MemoryError):
            raise
        except Exception as error:
            raise InvalidImageError(f"PIL cannot load frame {number} of this TIFF: {error}; save it anew") from error

    return load


def _frames(value: str | bytes) -> Image.Image:
    """Pillow's view of a TIFF: it goes from frame to frame in the file, where the core would read the whole file for each."""
    try:
        from PIL import Image
    except ImportError:
        raise ConfigError('the frames of a TIFF need Pillow; pip install "threadsafe-ocr[pdf]", or read() the first one') from None
    try:
        return Image.open(io.BytesIO(value) if isinstance(value, bytes) else value, formats=["TIFF"])
    except MemoryError:
        raise
    except Exception as error:
        raise InvalidImageError(f"PIL cannot open this TIFF: {error}; save it anew") from error


def chosen(pages: str | int | Iterable[int] | None, count: int) -> list[int]:
    """The numbers of the wanted pages, from 1, in the order wanted. Raises ConfigError where one is not there.

    >>> chosen("2-3,7,9-", 10)
    [2, 3, 7, 9, 10]
    >>> chosen(range(2, 4), 10), chosen(5, 10), chosen(None, 2)
    ([2, 3], [5], [1, 2])
    """
    if pages is None:
        return list(range(1, count + 1))
    if isinstance(pages, str):
        numbers = [number for part in pages.split(",") for number in _part(part.strip(), count, pages)]
    else:
        numbers = [pages] if isinstance(pages, int) else list(pages)
    for number in numbers:
        if not isinstance(number, int) or not 1 <= number <= count:
            raise ConfigError(f"pages={pages!r}: there is no page {number}; the document has pages 1 to {count}")
    return numbers


def _part(part: str, count: int, whole: str) -> Iterable[int]:
    first, dash, last = part.partition("-")
    try:
        return range(int(first), (int(last) if last else count) + 1) if dash else [int(first)]
    except ValueError:
        raise ConfigError(f'pages={whole!r}; it can be "1-3,7,10-", a number or numbers, from 1') from None


def deadline(timeout: float | None) -> float | None:
    """When a time is over that begins now."""
    return None if timeout is None else time.monotonic() + timeout


def numbered(answer: Any, number: int) -> Any:
    """A page's answer with its number; an error as it is."""
    return dataclasses.replace(answer, page_number=number) if isinstance(answer, OcrResult) else answer


def left(until: float | None) -> float | None:
    """Seconds until then. Raises OcrTimeoutError where there are none."""
    if until is None:
        return None
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise OcrTimeoutError("the page was not there in time")
    return seconds
