"""Every error of the server as its answer."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from threadsafe_ocr import OcrError, problems
from threadsafe_ocr.problems import Problem
from threadsafe_ocr.server.formats import dumped
from threadsafe_ocr.server.service import Service

# nginx's number for a client that hung up: nobody gets it, the log and the metrics show it.
HUNG_UP = 499


def answer(problem: Problem, scope: Scope, service: Service) -> Response:
    """Counts it."""
    service.errors[problem.kind] += 1
    scope["state"]["log"]["error"] = problem.kind
    request_id = scope["state"]["request_id"]
    more: dict[str, Any] = {"request_id": request_id}
    if scope["state"]["path"] == "/ocr":
        # What clients of PaddleX look at.
        more |= {"logId": request_id, "errorCode": problem.status, "errorMsg": problem.detail}
    return Response(dumped(problem.body(**more)), problem.status, problem.headers, problems.MEDIA_TYPE)


def add_to(app: FastAPI, service: Service) -> None:
    """Answers what the routes raise."""

    async def ocr_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, OcrError)
        return answer(problems.of(error), request.scope, service)

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return answer(error, request.scope, service)

    async def no_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = HTTPStatus(error.status_code).phrase.replace(" ", "")
        detail = f"{request.method} {request.url.path}: {error.detail}; /docs lists what there is"
        return answer(Problem(error.status_code, kind, detail, dict(error.headers or {})), request.scope, service)

    async def hung_up(request: Request, error: Exception) -> Response:
        return Response(status_code=HUNG_UP)

    app.add_exception_handler(OcrError, ocr_error)
    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(HTTPException, no_route)
    app.add_exception_handler(ClientDisconnect, hung_up)
