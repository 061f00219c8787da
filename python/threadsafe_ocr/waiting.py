"""Futures and asyncio: two daemon threads that hand finished answers over. They never run for ever-blocked user code of one another."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
from typing import TYPE_CHECKING, Any

from threadsafe_ocr import _core
from threadsafe_ocr.exceptions import OcrTimeoutError
from threadsafe_ocr.result import OcrResult, from_raw

if TYPE_CHECKING:
    import asyncio

    from threadsafe_ocr.ocr import ThreadSafeOCR

FUTURES, ASYNCIO = 0, 1

numbers = itertools.count(1)
# Whoever waits for the request of a number. Each entry keeps its handle alive.
waiting: dict[int, Any] = {}
_started: set[int] = set()
_lock = threading.Lock()


class OcrFuture(concurrent.futures.Future[OcrResult]):
    """A `concurrent.futures.Future` whose `result()` works on any thread, inside a callback too.

    Callbacks run on the thread `ocr-futures` (or on the thread that called `result()` first): one that blocks by other means than
    `result()` delays other callbacks, nothing else. Cancelling it cancels the request.
    """

    def __init__(self, handle: ThreadSafeOCR, number: int) -> None:
        super().__init__()
        self._handle = handle
        self._number = number
        self._pending: _core.Pending | None = None

    def cancel(self) -> bool:
        """Cancels the request, unless it is answered; what it had queued is taken out."""
        cancelled = super().cancel()
        if cancelled and self._pending is not None:
            waiting.pop(self._number, None)
            self._pending.cancel()
        return cancelled

    def result(self, timeout: float | None = None) -> OcrResult:
        """The answer; waits for it with the GIL released. Raises what the request raised, TimeoutError, CancelledError."""
        self._settle(timeout)
        return super().result()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the request raised, or None."""
        self._settle(timeout)
        return super().exception()

    def _settle(self, timeout: float | None) -> None:
        """Waits natively and resolves itself; of several threads that wait the first one does."""
        if self.done() or self._pending is None:
            return
        answer: OcrResult | None = None
        error: BaseException | None = None
        try:
            answer = from_raw(self._pending.wait(timeout))
        except OcrTimeoutError as timed_out:
            if not self._is_own_deadline(timed_out):
                raise concurrent.futures.TimeoutError from None
            error = timed_out
        except Exception as failed:  # noqa: BLE001 - the future carries it
            error = failed
        self._resolve(answer, error)

    def _is_own_deadline(self, error: OcrTimeoutError) -> bool:
        return "timeout of" in str(error)

    def _resolve(self, answer: OcrResult | None, error: BaseException | None) -> None:
        first = waiting.pop(self._number, None) is not None
        if not first or not self.set_running_or_notify_cancel():
            return
        if error is not None:
            self.set_exception(error)
        elif answer is not None:
            self.set_result(answer)


def _serve_futures() -> None:
    while (number := _core.next_finished(FUTURES)) is not None:
        future = waiting.get(number)
        if future is not None:
            future._settle(None)
        future = None


def _serve_asyncio() -> None:
    while (number := _core.next_finished(ASYNCIO)) is not None:
        entry = waiting.pop(number, None)
        if entry is None:
            continue
        loop, future, _ = entry
        try:
            loop.call_soon_threadsafe(_wake, future)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            pass
        entry = loop = future = None


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def ensure_thread(line: int) -> None:
    """Starts the daemon thread of a line, once a process."""
    with _lock:
        if line in _started:
            return
        _started.add(line)
    name, target = ("ocr-futures", _serve_futures) if line == FUTURES else ("ocr-aio", _serve_asyncio)
    threading.Thread(target=target, name=name, daemon=True).start()


def forget_parent() -> None:
    """In a forked child: the parent's futures never complete here, and its daemon threads are not here."""
    global _lock
    _lock = threading.Lock()
    waiting.clear()
    _started.clear()
