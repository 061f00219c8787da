"""The pages of an upload, and reading them: an image is one page, a TIFF may have many. Where PDFs are read, too, this is the place."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from threadsafe_ocr import InvalidImageError, OcrResult, ThreadSafeOCR, _core
from threadsafe_ocr.problems import Problem
from threadsafe_ocr.server.tracing import span

STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF")
TIFF = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}


def pages(content: bytes, most: int) -> list[Any]:
    """The pages; `bytes_of` is what `aread` takes. Raises Problem: 415 for what is no image, 413 for more than `most` pages."""
    if content[:4] in TIFF:
        offsets = _directories(content, most)
        return [_Page(content, offset) for offset in offsets] if len(offsets) > 1 else [content]
    if content.startswith(STARTS):
        return [content]
    kind = "a PDF" if b"%PDF-" in content[:1024] else "no image that can be read"
    raise Problem(415, "UnsupportedMediaType", f"this is {kind}; send a JPEG, PNG, WebP, TIFF, BMP or GIF")


async def read(ocr: ThreadSafeOCR, content: bytes, *, most: int, end: float, options: dict[str, Any]) -> AsyncGenerator[OcrResult, None]:
    """Reads the pages of `content` and yields their results in order. Refused at once where the first page finds the queue full; the
    later ones wait in line. end: the loop's time at which all must be done. Closing it ends what is still being read.

    Raises Problem and the errors of `aread`.
    """
    loop = asyncio.get_running_loop()

    async def one(number: int, page: Any) -> OcrResult:
        left = max(end - loop.time(), 0.001)
        with span("ocr.read", page=number) as attributes:
            result = await ocr.aread(bytes_of(page), timeout=left, wait=number > 1, **options)
            attributes(lines=len(result.lines), width=result.width, height=result.height)
            return result

    running: deque[asyncio.Task[OcrResult]] = deque()
    try:
        for number, page in enumerate(pages(content, most), 1):
            # As many as can be worked on; the engine would queue the rest, each with its copy of the file.
            if len(running) >= 2 * _core.cores():
                yield await running[0]
                running.popleft()
            running.append(asyncio.create_task(one(number, page)))
        while running:
            yield await running[0]
            running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class _Page:
    """A page of a TIFF: the same file, whose header points at the page's directory."""

    def __init__(self, content: bytes, offset: int) -> None:
        self._content, self._offset = content, offset

    def content(self) -> bytes:
        order, big = TIFF[self._content[:4]], _is_big(self._content)
        at, form = (8, "Q") if big else (4, "I")
        pointer = struct.pack(order + form, self._offset)
        return self._content[:at] + pointer + self._content[at + len(pointer) :]


def bytes_of(page: Any) -> Any:
    """What `aread` takes of one of `pages`; made when its turn comes, since each is a copy of the whole file."""
    return page.content() if isinstance(page, _Page) else page


def _is_big(content: bytes) -> bool:
    return b"+" in content[2:4]


def _directories(content: bytes, most: int) -> list[int]:
    """Where the pages' directories are. TIFF 6.0, section 2: a count, entries, and where the next one is; BigTIFF has wider numbers."""
    order, big = TIFF[content[:4]], _is_big(content)
    at, number, count, entry = (8, "Q", "Q", 20) if big else (4, "I", "H", 12)
    number, count = order + number, order + count
    offsets: list[int] = []
    seen: set[int] = set()
    try:
        (offset,) = struct.unpack_from(number, content, at)
        while offset and offset not in seen:
            seen.add(offset)
            (entries,) = struct.unpack_from(count, content, offset)
            first = offset + struct.calcsize(count)
            # Entries are sorted, and 254 is the least tag: its lowest bit says that this is a small copy of another page.
            tag, _, _, value = struct.unpack_from(order + ("HHQQ" if big else "HHII"), content, first)
            if not (tag == 254 and value & 1 and offsets):
                offsets.append(offset)
            if len(offsets) > most:
                raise Problem(413, "TooManyPages", f"the file has more than {most} pages, the most that this server reads")
            (offset,) = struct.unpack_from(number, content, first + entries * entry)
    except struct.error:
        raise InvalidImageError(f"the TIFF is cut short: page {len(offsets) + 1} is not in it") from None
    return offsets
