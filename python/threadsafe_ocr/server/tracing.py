"""Spans of OpenTelemetry, where `opentelemetry-api` is installed; without it, and without a provider, they cost nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

try:
    from opentelemetry import trace
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


def stages(seconds: Mapping[str, float]) -> None:
    """Spans below the current one for the steps of a page that has just been read, one after the other."""
    if trace is None:
        return
    start = time.time_ns() - int(sum(seconds.values()) * 1e9)
    for name, length in seconds.items():
        end = start + int(length * 1e9)
        trace.get_tracer("threadsafe_ocr").start_span(f"ocr.{name}", start_time=start).end(end)
        start = end
