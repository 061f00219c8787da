"""Spans of OpenTelemetry, where `opentelemetry-api` is installed; without it, and without a provider, they cost nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

try:
    from opentelemetry import propagate, trace
except ImportError:
    trace = None  # type: ignore[assignment]


@contextlib.contextmanager
def span(name: str, **attributes: Any) -> Iterator[Callable[..., None]]:
    """A span around a block; yields what adds attributes to it."""
    if trace is None:
        yield lambda **_: None
        return
    with trace.get_tracer("threadsafe_ocr").start_as_current_span(name) as made:

        def add(**more: Any) -> None:
            made.set_attributes({f"ocr.{key}": value for key, value in more.items()})

        add(**attributes)
        yield add


@contextlib.contextmanager
def request(method: str, route: str, request_id: str, headers: Mapping[str, str]) -> Iterator[Callable[[int], None]]:
    """The span of a request, in the trace that its headers name, around a block; yields what takes the answer's status. Where an
    instrumentation has made one, that stays the only one.
    """
    if trace is None:
        yield lambda _: None
        return
    if (there := trace.get_current_span()).get_span_context().is_valid:
        there.set_attribute("ocr.request_id", request_id)
        yield lambda _: None
        return
    attributes = {"http.request.method": method, "http.route": route, "ocr.request_id": request_id}
    tracer = trace.get_tracer("threadsafe_ocr")
    with tracer.start_as_current_span(f"{method} {route}", propagate.extract(headers), trace.SpanKind.SERVER, attributes) as made:

        def answered(status: int) -> None:
            made.set_attribute("http.response.status_code", status)
            if status >= 500:
                made.set_status(trace.StatusCode.ERROR)

        yield answered


def stages(seconds: Mapping[str, float]) -> None:
    """Spans below the current one for the steps of a page that has just been read, one after the other."""
    if trace is None:
        return
    start = time.time_ns() - int(sum(seconds.values()) * 1e9)
    for name, length in seconds.items():
        end = start + int(length * 1e9)
        trace.get_tracer("threadsafe_ocr").start_span(f"ocr.{name}", start_time=start).end(end)
        start = end
