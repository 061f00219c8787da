"""Futures and asyncio: two daemon threads that hand answers over, so that the callbacks of futures never keep an event loop waiting."""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

from threadsafe_ocr import _core
from threadsafe_ocr.exceptions import EngineUnavailableError, ForkedProcessError, OcrError
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

    def __init__(self, handle: ThreadSafeOCR, pending: _core.Pending) -> None:
        super().__init__()
        self._handle = handle
        self._pending = pending
        self._number = next(numbers)
        ensure_thread(FUTURES)
        waiting[self._number] = self
        pending.notify(FUTURES, self._number)

    def cancel(self) -> bool:
        """Cancels the request, unless it is answered; what it had queued is taken out."""
        if waiting.pop(self._number, None) is None:
            return super().cancel()
        # First the request: a callback may take its time.
        self._pending.cancel()
        super().cancel()
        # Tells concurrent.futures.wait() and as_completed().
        self.set_running_or_notify_cancel()
        return True

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
        if self.done():
            return
        try:
            raw = self._pending.wait(timeout)
        except ForkedProcessError:
            # The parent's future never completes here.
            raise
        except Exception as failed:  # noqa: BLE001 - the future carries it
            self._resolve(None, failed)
            return
        if raw is None:
            raise concurrent.futures.TimeoutError
        self._resolve(from_raw(raw), None)

    def _resolve(self, answer: OcrResult | None, error: BaseException | None) -> None:
        first = waiting.pop(self._number, None) is not None
        if not first or not self.set_running_or_notify_cancel():
            return
        if error is not None:
            self.set_exception(error)
        elif answer is not None:
            self.set_result(answer)


def in_order(starts: Iterable[Callable[[], OcrFuture]], most: int, *, return_errors: bool) -> Generator[Any]:
    """Starts requests, `most` of them at once, and yields their answers in order; of one that failed its error, or raises it."""
    running: deque[OcrFuture | OcrError | TypeError] = deque()

    def settle(entry: OcrFuture | OcrError | TypeError) -> Any:
        if not isinstance(entry, OcrFuture):
            return entry
        try:
            return entry.result()
        except OcrError as error:
            if not return_errors:
                raise
            return error
        except BaseException:
            # Ctrl-C: nobody will take this answer.
            entry.cancel()
            raise

    try:
        for start in starts:
            if len(running) >= most:
                yield settle(running.popleft())
            try:
                running.append(start())
            except (OcrError, TypeError) as error:
                if not return_errors:
                    raise
                running.append(error)
        while running:
            yield settle(running.popleft())
    finally:
        for entry in running:
            if isinstance(entry, OcrFuture):
                entry.cancel()


def answers(started: Iterable[_core.Pending], most: int) -> Generator[OcrResult]:
    """Answers in order of requests that start as they are asked for, `most` of them at once. What runs when nobody takes any more is
    cancelled."""
    running: deque[_core.Pending] = deque()

    def first() -> OcrResult:
        # It stays among the running ones until its answer is there.
        answer = from_raw(running[0].wait())
        running.popleft()
        return answer

    try:
        for pending in started:
            running.append(pending)
            if len(running) >= most:
                yield first()
        while running:
            yield first()
    finally:
        for pending in running:
            pending.cancel()


class Wakeups:
    """For a task that waits: the thread `ocr-aio` wakes it when it should look at its request again. Leaving it cancels the request."""

    def __init__(self, handle: ThreadSafeOCR, pending: _core.Pending) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self.event_loop = id(self._loop)
        self._handle = handle
        self._pending = pending
        self._number = next(numbers)
        ensure_thread(ASYNCIO)
        self._listen()
        pending.notify(ASYNCIO, self._number)

    def _listen(self) -> None:
        self._woken: asyncio.Future[None] = self._loop.create_future()
        waiting[self._number] = (self._loop, self._woken, self._handle)

    async def next(self) -> None:
        """Waits for news since the last time; then look at the request: what comes after is told again."""
        await self._woken
        self._listen()

    def __enter__(self) -> Wakeups:
        return self

    def __exit__(self, *_error: object) -> None:
        waiting.pop(self._number, None)
        self._pending.cancel()


def _serve_futures() -> None:
    while (number := _core.next_news(FUTURES)) is not None:
        future = waiting.get(number)
        if future is not None:
            try:
                future._settle(None)
            except BaseException:  # what a callback raises to end its thread must not end everybody's
                logging.getLogger("threadsafe_ocr").exception("a callback of a future raised")
        future = None


def _serve_asyncio() -> None:
    while (number := _core.next_news(ASYNCIO)) is not None:
        entry = waiting.pop(number, None)
        if entry is None:
            continue
        loop, woken, _ = entry
        try:
            loop.call_soon_threadsafe(_wake, woken)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            pass
        entry = loop = woken = None


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def ensure_thread(line: int) -> None:
    """Starts the daemon thread of a line, once a process. Raises EngineUnavailableError where gevent has taken the threads away."""
    if line in _started:
        return
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        # The thread would be a greenlet, whose wait in native code stops all others for ever.
        raise EngineUnavailableError(
            "submit, read_many and aread need real threads, and gevent has replaced them in this process; use "
            "gevent.get_hub().threadpool.apply(ocr.read, (image,)), or patch with gevent.monkey.patch_all(thread=False)"
        )
    name, target = ("ocr-futures", _serve_futures) if line == FUTURES else ("ocr-aio", _serve_asyncio)
    with _lock:
        if line not in _started:
            threading.Thread(target=target, name=name, daemon=True).start()
            _started.add(line)


def forget_parent() -> None:
    """In a forked child: the parent's futures never complete here, and its daemon threads are not here."""
    global _lock
    _lock = threading.Lock()
    waiting.clear()
    _started.clear()
