"""Around every request: its id, a line in the log, its time in the metrics, its span, an answer where the server is at fault."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from datetime import datetime, timezone

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from threadsafe_ocr.problems import Problem
from threadsafe_ocr.server import tracing
from threadsafe_ocr.server.errors import HUNG_UP, answer
from threadsafe_ocr.server.limits import READS
from threadsafe_ocr.server.metrics import Metrics
from threadsafe_ocr.server.service import Service

# What a proxy gives is taken over, but nothing that could write into the log.
ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
log = logging.getLogger("threadsafe_ocr.access")


class Access:
    """Outside of everything else."""

    def __init__(self, app: ASGIApp, service: Service, metrics: Metrics) -> None:
        self.app, self.service, self.metrics = app, service, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), HUNG_UP
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if ID.fullmatch(given) else uuid.uuid4().hex
        noted: dict[str, object] = {}
        path = _path(scope)
        scope.setdefault("state", {}).update(request_id=request_id, path=path, log=noted)

        async def numbered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        with tracing.request(scope["method"], self.metrics.route(path), request_id, headers) as answered:
            try:
                await self.app(scope, receive, numbered)
            except Exception as error:
                if status != HUNG_UP:
                    raise
                logging.getLogger("threadsafe_ocr").exception("request %s", request_id)
                problem = Problem(500, type(error).__name__, "the server made a mistake; its log has more under this request_id")
                await answer(problem, scope, self.service)(scope, receive, numbered)
            finally:
                seconds = time.perf_counter() - start
                answered(status)
                self.metrics.answered(path, status, seconds)
                if path in READS and status == 200:
                    self.service.latencies.append(seconds)
                client = scope["client"][0] if scope.get("client") else None
                line = {"request_id": request_id, "client": client, "method": scope["method"], "path": path, "status": status}
                log.info(json.dumps({"time": _now(), **line, "seconds": round(seconds, 4), **noted}))


def _path(scope: Scope) -> str:
    """As the routes have it: without the root path, which a server or a mount puts before it."""
    path: str = scope["path"]
    root = scope.get("root_path", "")
    return path[len(root) :] if path.startswith(f"{root}/") else path


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def log_to_stdout() -> None:
    """A line of JSON a request; what the server has to say otherwise goes to stderr."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
