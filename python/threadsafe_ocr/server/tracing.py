"""Spans of OpenTelemetry, where `opentelemetry-api` is installed; without it, and without a provider, they cost nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
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
