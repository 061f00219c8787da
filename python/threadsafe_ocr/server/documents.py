"""The pages of an upload, and reading them: an image is one page; a PDF or a TIFF may have many."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import struct
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from threadsafe_ocr import InvalidImageError, OcrResult, OcrTimeoutError, _core, rendering
from threadsafe_ocr.problems import Problem
from threadsafe_ocr.rendering import MOST_PIXELS, PdfDocument
from threadsafe_ocr.server import tracing
from threadsafe_ocr.server.service import Service

STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF")
TIFF = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
# Of rendering a page: a third of the default timeout, so that who waits behind a page that never ends is answered within his own.
RENDER_SECONDS = 20.0

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class PageRead:
    """A page's answer, whose `page_number` is that in the file: of a TIFF the small copies that are not read count, too. picture: what
    `Reading.picture` made of it. count: pages of the document.
    """

    result: OcrResult
    picture: Any
    count: int


@dataclasses.dataclass(frozen=True)
class Reading:
    """How to read an upload. dpi, password: of a PDF. options: keywords of `aread`. picture: called in a thread with what `aread` took of a
    page, and its answer; what it returns goes along with the answer.
    """

    options: dict[str, Any]
    dpi: float = 200.0
    password: str | None = None
    picture: Callable[[Any, OcrResult], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Document:
    """An open one. numbers: of its pages. image: what `aread` takes of one of them, made when its turn comes. room: held meanwhile."""

    numbers: list[int]
    image: Callable[[int], Awaitable[Any]]
    room: contextlib.AbstractAsyncContextManager[None] = dataclasses.field(default_factory=contextlib.nullcontext)


async def read(service: Service, content: bytes, reading: Reading, end: float) -> AsyncGenerator[PageRead, None]:
    """Reads the pages of `content` and yields them in order. Refused at once where the first page finds the queue full; the later ones wait
    in line. end: the loop's time at which all must be done. Closing it ends what is still being read.

    Raises Problem and the errors of `aread_pages`.
    """
    loop = asyncio.get_running_loop()

    def left() -> float:
        return max(end - loop.time(), 0.001)

    async def one(document: Document, number: int, *, first: bool) -> PageRead:
        async with document.room:
            with tracing.span("ocr.read", page=number) as attributes:
                image = await document.image(number)
                result = await service.ocr.aread(image, timeout=left(), wait=not first, **reading.options)
                attributes(lines=len(result.lines), width=result.width, height=result.height)
                if result.seconds:
                    tracing.stages(result.seconds._asdict())
            shown = None
            if reading.picture:
                async with service.drawn:
                    shown = await asyncio.to_thread(reading.picture, image, result)
        return PageRead(dataclasses.replace(result, page_number=number), shown, len(document.numbers))

    running: deque[asyncio.Task[PageRead]] = deque()
    async with _opened(service, content, reading, left) as document:
        try:
            for number in document.numbers:
                # As many as can be worked on; the engine would queue the rest, each with its copy of the file.
                if len(running) >= 2 * _core.cores():
                    yield await running[0]
                    running.popleft()
                page = partial(one, document, number, first=number == document.numbers[0])
                running.append(asyncio.create_task(_in_time(page, left, f"page {number}")))
            while running:
                yield await running[0]
                running.popleft()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def _in_time(work: Callable[[], Awaitable[T]], left: Callable[[], float], what: str) -> T:
    try:
        # The engine's own word comes first.
        return await asyncio.wait_for(work(), left() + 0.1)
    except OcrTimeoutError:
        raise
    except asyncio.TimeoutError:
        raise OcrTimeoutError(f"{what} was not there within the timeout") from None


@contextlib.asynccontextmanager
async def _opened(service: Service, content: bytes, reading: Reading, left: Callable[[], float]) -> AsyncIterator[Document]:
    """Raises Problem: 415 for what cannot be read, 413 for too many pages, 503 for too many PDFs."""
    most = service.settings.max_pages
    if content.startswith(STARTS):
        yield Document([1], _itself(content))
    elif content[:4] in TIFF:
        offsets = _directories(content, most)

        async def frame(number: int) -> bytes:
            return _pointed(content, offsets[number])

        # Each page has a copy of the file.
        yield Document(list(offsets), frame, service.rendered) if len(offsets) > 1 else Document([1], _itself(content))
    elif is_pdf(content):
        if service.pdfs.locked():
            raise Problem(503, "OverloadedError", f"{service.settings.queue_size} PDFs are being read or wait for it; try again later")
        pdf, loop = PdfDocument(content, reading.password), asyncio.get_running_loop()

        async def asked(ask: Callable[..., T]) -> T:
            end = time.monotonic() + left()

            def in_turn() -> T:
                # Not before: the wait is no fault of the page's.
                return ask(until=min(end, time.monotonic() + RENDER_SECONDS))

            return await loop.run_in_executor(rendering.thread(), in_turn)

        async def rendered(number: int) -> Any:
            return await asked(partial(pdf.render, number - 1, reading.dpi, max_pixels=service.settings.max_pixels or MOST_PIXELS))

        async with service.pdfs:
            try:
                count = await _in_time(partial(asked, pdf.count), left, "the PDF")
                if count > most:
                    raise _too_many(most)
                yield Document(list(range(1, count + 1)), rendered, service.rendered)
            finally:
                pdf.close()
    else:
        what = "this is neither an image that can be read nor a PDF" if content else "the file is empty"
        detail = f"{what}; send a JPEG, PNG, WebP, TIFF, BMP, GIF or PDF"
        raise Problem(415, "UnsupportedMediaType", detail)


def is_pdf(content: bytes) -> bool:
    """Other bytes may come before its mark, unless they are an image's."""
    return b"%PDF-" in content[:1024] and not content.startswith((*STARTS, *TIFF))


def _itself(content: bytes) -> Callable[[int], Awaitable[bytes]]:
    async def image(_: int) -> bytes:
        return content

    return image


def _too_many(most: int) -> Problem:
    return Problem(413, "TooManyPages", f"the file has more than {most} pages, the most that this server reads")


def _pointed(content: bytes, offset: int) -> bytes:
    """The same TIFF, whose header points at a page's directory."""
    order, big = TIFF[content[:4]], _is_big(content)
    at, form = (8, "Q") if big else (4, "I")
    pointer = struct.pack(order + form, offset)
    return content[:at] + pointer + content[at + len(pointer) :]


def _is_big(content: bytes) -> bool:
    return b"+" in content[2:4]


def _directories(content: bytes, most: int) -> dict[int, int]:
    """Number of a frame -> where its directory is. TIFF 6.0, section 2: a count, entries, where the next one is; BigTIFF is wider."""
    order, big = TIFF[content[:4]], _is_big(content)
    at, number, count, entry = (8, "Q", "Q", 20) if big else (4, "I", "H", 12)
    number, count = order + number, order + count
    offsets: dict[int, int] = {}
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
                offsets[len(seen)] = offset
            # Small copies, too: a page has a few of them, and the server waits meanwhile.
            if len(offsets) > most or len(seen) > 16 * most:
                raise _too_many(most)
            (offset,) = struct.unpack_from(number, content, first + entries * entry)
    except (struct.error, OverflowError):
        # BigTIFF's numbers go beyond what an address can be.
        raise InvalidImageError(f"the TIFF is cut short: page {len(offsets) + 1} is not in it") from None
    return offsets
