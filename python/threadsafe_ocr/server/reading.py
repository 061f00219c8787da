"""`POST /v1/read` and `POST /v1/read/stream`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from threadsafe_ocr import OcrError, OcrResult, problems
from threadsafe_ocr.problems import Problem
from threadsafe_ocr.server import documents, openapi, uploads
from threadsafe_ocr.server.formats import dumped, formatted, page_object
from threadsafe_ocr.server.service import Service, Share

T = TypeVar("T")
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


def counted(request: Request, page: OcrResult) -> OcrResult:
    """For the log."""
    log = request.scope["state"]["log"]
    log["pages"] = log.get("pages", 0) + 1
    log["lines"] = log.get("lines", 0) + len(page.lines)
    return page


async def read_all(request: Request, content: bytes, end: float, options: dict[str, Any]) -> list[OcrResult]:
    """All pages of an upload, unless the client hangs up."""
    service = service_of(request)
    pages = documents.read(service.ocr, content, most=service.settings.max_pages, end=end, options=options)

    async def work() -> list[OcrResult]:
        async with contextlib.aclosing(pages):
            return [counted(request, page) async for page in pages]

    return await unless_gone(request, work())


@router.post("/v1/read", summary="Read an image or a document", response_class=Response, **openapi.READ)
async def read(request: Request) -> Response:
    """All pages at once, as JSON, text or Markdown."""
    service = service_of(request)
    end = deadline(request, service)
    with service.room.share() as share:
        upload = await uploads.receive(request, service.settings, share)
        pages = await read_all(request, upload.content, end, upload.fields.options())
    return formatted(pages, upload.fields.format)


@router.post("/v1/read/stream", summary="Read a document page by page", response_class=StreamingResponse, **openapi.STREAM)
async def stream(request: Request) -> Response:
    """A line of JSON a page, in their order, each as soon as it is read. What fails after the first page is the last line, an `error`."""
    service = service_of(request)
    end = deadline(request, service)
    share = Share(service.room)
    try:
        upload = await uploads.receive(request, service.settings, share)
        most, options = service.settings.max_pages, upload.fields.options()
        pages = documents.read(service.ocr, upload.content, most=most, end=end, options=options)
        # Before the answer begins, so that a full queue or a broken image has its status.
        first = await unless_gone(request, anext(pages))
    except BaseException:
        share.resize(0)
        raise
    return StreamingResponse(_lines(request, first, pages, share), media_type="application/x-ndjson")


async def _lines(request: Request, first: OcrResult, rest: AsyncGenerator[OcrResult, None], share: Share) -> AsyncGenerator[bytes, None]:
    try:
        number = 1
        yield dumped(page_object(number, counted(request, first))) + b"\n"
        async for page in rest:
            number += 1
            yield dumped(page_object(number, counted(request, page))) + b"\n"
    except (OcrError, Problem) as error:
        problem = error if isinstance(error, Problem) else problems.of(error)
        service_of(request).errors[problem.kind] += 1
        yield dumped({"error": problem.body()}) + b"\n"
    finally:
        share.resize(0)
        await rest.aclose()
