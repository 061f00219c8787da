"""What a client sends: a form with a file, or JSON with base64. Read as it comes, and refused as soon as it is too much."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from threadsafe_ocr import OcrTimeoutError
from threadsafe_ocr.problems import Problem
from threadsafe_ocr.server.fetching import fetch
from threadsafe_ocr.server.fields import Fields, ReadFields
from threadsafe_ocr.server.service import ServerSettings, Share

# Beside the file: the fields, and what a form puts around them.
AROUND = 64 << 10
# Objects, lists and members of a JSON body, far more than a request has; base64 has none of these characters.
MOST_JSON = 10_000
# The value of a hexadecimal digit, 255 of what is none; bytes that are unescaped at once.
HEXADECIMAL = np.full(256, 255, np.uint8)
HEXADECIMAL[list(b"0123456789abcdef")] = HEXADECIMAL[list(b"0123456789ABCDEF")] = range(16)
PIECE = 1 << 20


T = TypeVar("T")


class Upload(NamedTuple):
    """A file, how to read it, and what the client calls it."""

    content: bytes
    fields: Fields
    name: str


class File(NamedTuple):
    """A file in a form, and what the client calls it."""

    content: bytes
    name: str


class InMemory(MultiPartParser):
    """Without temporary files: the room for uploads bounds memory, and a file costs a thread a piece."""

    spool_max_size = 1 << 62


async def receive(request: Request, settings: ServerSettings, share: Share, end: float) -> Upload:
    """The upload of a request, within the limits. Raises Problem 400, 408, 413, 415, 503; OcrTimeoutError at `end`; ClientDisconnect."""
    return Upload(*await within_time(_receive(request, settings, share), settings, end))


async def within_time(receiving: Coroutine[Any, Any, T], settings: ServerSettings, end: float) -> T:
    """What `receiving` gives; Problem 408 when it takes too long, OcrTimeoutError at the request's `end`, the loop's time."""
    left = end - asyncio.get_running_loop().time()
    try:
        return await asyncio.wait_for(receiving, min(settings.upload_timeout, left))
    except asyncio.TimeoutError:
        # Where both are as long, as by default, it is the upload that is late.
        if left < settings.upload_timeout - 1:
            raise OcrTimeoutError("the upload was not there within the timeout") from None
        raise Problem(408, "UploadTimeout", f"the upload was not there within {settings.upload_timeout:g} s") from None


async def _receive(request: Request, settings: ServerSettings, share: Share) -> tuple[bytes, Fields, str]:
    if _kind(request) == "application/json":
        fields = await json_object(request, settings, share)
        file = File(await named_or_encoded(fields.pop("file", None), settings, share), "")
    else:
        fields = await form(request, settings, share, fields=len(ReadFields.model_fields))
        file = fields.pop("file", None)
        if not isinstance(file, File):
            raise Problem(400, "MissingFile", 'the form has no file in the field "file"; with curl: -F file=@page.png')
    try:
        return within_size(file.content, settings), ReadFields.model_validate(fields), file.name
    except ValidationError as error:
        raise Problem(400, "InvalidField", said(error)) from None


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def form(request: Request, settings: ServerSettings, share: Share, *, fields: int, part: int = AROUND) -> dict[str, Any]:
    """The members of a form, str and File: at most one file and so many `fields`, each of at most `part` bytes. Raises as `receive`."""
    stream = pieces(request, max(settings.max_upload, part) + AROUND, share, settings.max_upload)
    kind = _kind(request)
    try:
        if kind == "application/x-www-form-urlencoded":
            body = b"".join([piece async for piece in stream])
            return await asyncio.to_thread(_urlencoded, body, fields)
        if kind == "multipart/form-data":
            return await _multipart(InMemory(request.headers, stream, max_files=1, max_fields=fields, max_part_size=part))
    except (MultiPartException, ValueError) as error:
        raise Problem(400, "InvalidForm", f"not a form: {error}; send multipart/form-data, with curl: -F file=@page.png") from None
    raise Problem(415, "UnsupportedMediaType", f"Content-Type {kind!r}: send multipart/form-data, or application/json with base64")


def _urlencoded(body: bytes, most: int) -> dict[str, str]:
    """The fields of a form, at most so many. As `urllib.parse.parse_qsl`, which has a Python object for every escaped byte: a body of
    nothing else would take thirty times its size. Raises ValueError.
    """
    if not body.isascii():
        raise ValueError("it has bytes that are to be escaped")
    if body.count(b"&") >= most:
        raise ValueError(f"more than {most} fields")
    pairs = (pair.replace(b"+", b" ").partition(b"=") for pair in body.split(b"&"))
    return {_unescaped(name).decode(errors="replace"): _unescaped(value).decode(errors="replace") for name, _, value in pairs if value}


def _unescaped(text: bytes) -> bytes:
    """With %XX as the byte that it says; what is no such escape stays."""
    found, begin = [], 0
    while begin < len(text):
        end = begin + PIECE
        # Not in the middle of an escape.
        end -= next((cut for cut in (1, 2) if text[end - cut : end - cut + 1] == b"%"), 0) if end < len(text) else 0
        raw = np.frombuffer(text, np.uint8, min(end, len(text)) - begin, begin)
        high, low = HEXADECIMAL[raw[1:-1]], HEXADECIMAL[raw[2:]]
        escapes = (raw[:-2] == ord("%")) & (high < 16) & (low < 16)
        kept, bytes_ = np.ones(len(raw), bool), raw.copy()
        bytes_[:-2][escapes] = (high << 4 | low)[escapes]
        kept[1:-1][escapes] = kept[2:][escapes] = False
        found.append(bytes_[kept].tobytes())
        begin = end
    return b"".join(found)


async def _multipart(parser: MultiPartParser) -> dict[str, Any]:
    members = await parser.parse()
    try:
        return {
            name: File(await value.read(), value.filename or "") if isinstance(value, UploadFile) else value
            for name, value in members.items()
        }
    finally:
        await members.close()


def within_size(content: bytes, settings: ServerSettings) -> bytes:
    """The file itself; Problem 413 when it is too large."""
    if len(content) > settings.max_upload:
        raise _too_large(settings.max_upload)
    return content


async def json_object(request: Request, settings: ServerSettings, share: Share) -> dict[str, Any]:
    """The members of a JSON body. Raises as `receive`."""
    # Base64 takes four characters for three bytes.
    most = settings.max_upload * 4 // 3 + AROUND
    body = b"".join([piece async for piece in pieces(request, most, share, settings.max_upload)])
    # Before it is parsed, since an empty object takes two bytes of a body and 64 of memory.
    if sum(map(body.count, b"{[,")) > MOST_JSON:
        raise Problem(400, "InvalidJson", f"the body has more than {MOST_JSON} objects, lists and members; it needs a file and its options")
    try:
        # Elsewhere: a large one takes a while.
        members = await asyncio.to_thread(json.loads, body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "InvalidJson", f'the body is not JSON: {error}; send {{"file": "base64 of it"}}') from None
    if not isinstance(members, dict):
        raise Problem(400, "InvalidJson", 'the body is JSON, but no object; send {"file": "base64 of it"}')
    return members


async def named_or_encoded(text: Any, settings: ServerSettings, share: Share) -> bytes:
    """The file in the member `file`: base64, or its address where the server fetches those. Raises Problem."""
    if settings.fetch_urls and isinstance(text, str) and text.startswith(("http://", "https://")):
        return await fetch(text, settings.max_upload, share)
    return await asyncio.to_thread(from_base64, text)


def from_base64(text: Any, name: str = "file") -> bytes:
    """The file in the member `name`."""
    if not isinstance(text, str) or not text:
        raise Problem(400, "MissingFile", f'the member "{name}" is missing: the file\'s bytes as base64')
    if text.startswith(("http://", "https://", "file:")):
        raise Problem(400, "UrlNotFetched", "the server fetches no addresses; send the file itself, as base64")
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(400, "InvalidBase64", f'the member "{name}" is not base64: {error}') from None


async def pieces(request: Request, most: int, share: Share, limit: int) -> AsyncGenerator[bytes, None]:
    """The body as it comes, up to `most` bytes; `limit` is what the message names."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > most:
        raise _too_large(limit)
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise _too_large(limit)
        share.resize(size)
        yield piece


def _too_large(limit: int) -> Problem:
    return Problem(413, "UploadTooLarge", f"the file is larger than {limit} bytes, the most that this server takes")


def said(error: ValidationError) -> str:
    """What is wrong with which field, in a line."""
    found = error.errors(include_url=False, include_input=False)
    words = {"extra_forbidden": "there is no such field; docs/settings.md has the options of a page"}
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {words.get(one['type'], one['msg'])}" for one in found)
