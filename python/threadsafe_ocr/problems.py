"""Errors as answers over HTTP: status, headers and a body in the form of RFC 9457. Shared by the server and the helpers.

>>> from threadsafe_ocr import OverloadedError
>>> answer = of(OverloadedError("the queue is full"))
>>> answer.status, answer.headers, answer.body()["type"]
(503, {'Retry-After': '2'}, 'urn:threadsafe-ocr:OverloadedError')
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from threadsafe_ocr.exceptions import (
    ConfigError,
    EngineClosedError,
    EngineUnavailableError,
    ImageNotFoundError,
    InvalidImageError,
    OcrError,
    OcrTimeoutError,
    OverloadedError,
)

MEDIA_TYPE = "application/problem+json"
# An OcrError of another class is 500.
STATUS: dict[type[Exception], int] = {
    ConfigError: 400,
    TypeError: 400,
    InvalidImageError: 400,
    ImageNotFoundError: 404,
    OverloadedError: 503,
    EngineClosedError: 503,
    EngineUnavailableError: 503,
    OcrTimeoutError: 504,
}
# Seconds: a few pages are read in that time, so some of those who come again find room.
RETRY_AFTER = "2"


class Problem(Exception):
    """What is answered instead of a page. kind: its name, which clients may rely on."""

    def __init__(self, status: int, kind: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.headers = headers or ({"Retry-After": RETRY_AFTER} if status in (429, 503) else {})

    def body(self, **more: Any) -> dict[str, Any]:
        """The members of RFC 9457, and `more`."""
        title = HTTPStatus(self.status).phrase
        return {"type": f"urn:threadsafe-ocr:{self.kind}", "title": title, "status": self.status, "detail": self.detail, **more}


def of(error: OcrError | TypeError) -> Problem:
    """How a service answers `error`; docs/errors.md has the table."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    if isinstance(error, InvalidImageError) and "max_pixels" in str(error):
        status = 413
    return Problem(status, type(error).__name__, str(error))
