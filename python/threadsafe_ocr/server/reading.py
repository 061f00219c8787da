"""`POST /v1/read` and `POST /v1/read/stream`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from threadsafe_ocr import OcrError, OcrResult, OcrTimeoutError, problems
from threadsafe_ocr.problems import Problem
from threadsafe_ocr.server import documents, openapi, pictures, uploads
from threadsafe_ocr.server.documents import PageRead, Reading
from threadsafe_ocr.server.fields import Fields
from threadsafe_ocr.server.formats import dumped, formatted, page_object
from threadsafe_ocr.server.service import Service

T = TypeVar("T")
# Seconds after a stream's deadline in which its client may still take the last line, which says that it is over.
LAST_LINE = 2.0
router = APIRouter(tags=["reading"])


def service_of(request: Request) -> Service:
    """The server's state."""
    service: Service = request.app.state.service
    return service


def deadline(request: Request, service: Service) -> float:
    """The loop's time at which a request must be answered: `X-Request-Timeout` from now, and never later than the server's own."""
    seconds = service.settings.timeout
    if given := request.headers.get("x-request-timeout"):
        try:
            wanted = float(given)
        except ValueError:
            wanted = 0.0
        # Neither NaN nor infinity.
        if not 0 < wanted < float("inf"):
            raise Problem(400, "InvalidField", f"X-Request-Timeout: {given!r} is no number of seconds above 0")
        seconds = min(seconds, wanted)
    return asyncio.get_running_loop().time() + seconds


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. It is cancelled, and the engine's work with it, when the client hangs up: ClientDisconnect."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def counted(request: Request, page: PageRead) -> PageRead:
    """For the log."""
    log = request.scope["state"]["log"]
    log["pages"] = log.get("pages", 0) + 1
    log["lines"] = log.get("lines", 0) + len(page.result.lines)
    return page


async def read_all(request: Request, content: bytes, reading: Reading, end: float) -> list[PageRead]:
    """All pages of an upload, unless the client hangs up."""
    pages = documents.read(service_of(request), content, reading, end)

    async def work() -> list[PageRead]:
        async with contextlib.aclosing(pages):
            return [counted(request, page) async for page in pages]

    return await unless_gone(request, work())


@router.post("/v1/read", summary="Read an image or a document", response_class=Response, **openapi.READ)
async def read(request: Request) -> Response:
    """All pages at once, as JSON, text, Markdown, hOCR, ALTO or a searchable PDF."""
    service = service_of(request)
    end = deadline(request, service)
    with service.room.share() as share:
        upload = await uploads.receive(request, service.settings, share, end)
        fields = upload.fields
        pages = await read_all(request, upload.content, _reading(fields), end)
        answer = partial(formatted, content=upload.content, name=upload.name, password=fields.password)
        writing = asyncio.to_thread(answer, [page.result for page in pages], fields.format)
        # Long enough for all but large PDFs, whenever the last page came.
        left = max(end - asyncio.get_running_loop().time(), 0.1)
        try:
            return await unless_gone(request, asyncio.wait_for(writing, left))
        except asyncio.TimeoutError:
            raise OcrTimeoutError("the answer was not written within the timeout") from None


def _reading(fields: Fields, picture: Callable[[Any, OcrResult], str] | None = None) -> Reading:
    return Reading(fields.options(), fields.dpi, fields.password, picture)


@router.post("/v1/read/stream", summary="Read a document page by page", response_class=StreamingResponse, **openapi.STREAM)
async def stream(request: Request) -> Response:
    """A line of JSON a page, in their order, each as soon as it is read; `X-Page-Count` says how many there will be. What fails after the
    first page is the last line, an `error`.
    """
    service = service_of(request)
    end = deadline(request, service)
    async with contextlib.AsyncExitStack() as held:
        share = held.enter_context(service.room.share())
        upload = await uploads.receive(request, service.settings, share, end)
        picture = _picture if upload.fields.images else None
        reading = _reading(upload.fields, picture)
        pages = await held.enter_async_context(contextlib.aclosing(documents.read(service, upload.content, reading, end)))
        # Before the answer begins, so that a full queue or a broken image has its status.
        first = await unless_gone(request, anext(pages))
        return Lines(_lines(request, first, pages), {"X-Page-Count": str(first.count)}, held.pop_all(), end + LAST_LINE)


class Lines(StreamingResponse):
    """What is `held` for them is given back when the client has them all or is gone, and at `end`, the loop's time, whatever it takes."""

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncGenerator[bytes, None], headers: dict[str, str], held: contextlib.AsyncExitStack, end: float) -> None:
        super().__init__(lines, headers=headers)
        self.held, self.end = held, end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.held:
            try:
                await asyncio.wait_for(super().__call__(scope, receive, send), self.end - asyncio.get_running_loop().time())
            except asyncio.TimeoutError:
                # The server closes the connection of an answer without an end.
                scope["state"]["log"]["error"] = "NotTaken"
                service_of(Request(scope)).errors["NotTaken"] += 1


def _picture(image: Any, _: OcrResult) -> str:
    return pictures.jpeg(pictures.of(image))


async def _lines(request: Request, first: PageRead, rest: AsyncGenerator[PageRead, None]) -> AsyncGenerator[bytes, None]:
    def line(number: int, page: PageRead) -> bytes:
        counted(request, page)
        return dumped(page_object(number, page.result, **({"image": page.picture} if page.picture else {}))) + b"\n"

    try:
        number = 1
        yield line(number, first)
        async for page in rest:
            number += 1
            yield line(number, page)
    except (OcrError, Problem) as error:
        problem = error if isinstance(error, Problem) else problems.of(error)
        service_of(request).errors[problem.kind] += 1
        yield dumped({"error": problem.body()}) + b"\n"
