"""Who may come in: keys, each client's share, nobody once the server closes; and what becomes of a body that nobody reads."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from threadsafe_ocr.problems import Problem
from threadsafe_ocr.server.errors import answer
from threadsafe_ocr.server.service import Service

# The calls that keep the engine busy.
READS = ("/v1/read", "/v1/read/stream", "/ocr", "/rapidocr/ocr")
# What needs a key, where there are keys; health, the page and its files do not.
KEYED = ("/v1/", "/ocr", "/rapidocr/", "/metrics")
# Seconds that a refused client may still send, so that it gets to read why: a connection that is closed on it drops the answer.
LINGER = 2.0


class Admission:
    """Refuses before the body is read."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service
        self.keys = [key.encode() for key in service.settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            client = self._client(scope)
            with self._inside(client) if scope["state"]["path"] in READS and scope["method"] == "POST" else contextlib.nullcontext():
                await self.app(scope, receive, noted)
        except Problem as problem:
            await answer(problem, scope, self.service)(scope, receive, send)
        except asyncio.CancelledError:
            if started or not self.service.closing:
                raise
            await answer(_closing(), scope, self.service)(scope, receive, send)

    def _client(self, scope: Scope) -> str:
        """Who asks: the key where there are keys, else the address. Raises Problem 401."""
        address = scope["client"][0] if scope.get("client") else ""
        if not self.keys or not scope["state"]["path"].startswith(KEYED):
            return address
        headers = Headers(scope=scope)
        kind, _, token = headers.get("authorization", "").partition(" ")
        given = (token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")).encode()
        if not any([secrets.compare_digest(given, key) for key in self.keys]):
            detail = "send the key as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            raise Problem(401, "Unauthorized", detail, {"WWW-Authenticate": "Bearer"})
        return given.decode()

    @contextlib.contextmanager
    def _inside(self, client: str) -> Iterator[None]:
        service = self.service
        if service.closing:
            service.came = asyncio.get_running_loop().time()
            raise _closing()
        most = service.settings.max_per_client
        if most is not None and sum(other == client for other in service.active.values()) >= most:
            raise Problem(429, "TooManyRequests", f"{most} requests of this client are inside, its share; wait for one of them")
        task = asyncio.current_task()
        assert task is not None
        service.active[task] = client
        try:
            yield
        finally:
            del service.active[task]


def _closing() -> Problem:
    return Problem(503, "ShuttingDown", "the server is shutting down; ask another one, or later")


class Unread:
    """Closes the connection after an answer to a request whose body was not read, and first lets the client send on for a moment."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            await self.app(scope, receive, send)
            return
        rest = True

        async def noted() -> Message:
            nonlocal rest
            message = await receive()
            rest = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def drained() -> None:
            while rest:
                await noted()

        closes = False

        async def closing(message: Message) -> None:
            nonlocal closes
            if message["type"] == "http.response.start":
                closes = rest
                if closes:
                    MutableHeaders(scope=message)["Connection"] = "close"
            elif closes and not message.get("more_body", False):
                await send({**message, "more_body": True})
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(drained(), LINGER)
                message = {"type": "http.response.body"}
            await send(message)

        await self.app(scope, noted, closing)
