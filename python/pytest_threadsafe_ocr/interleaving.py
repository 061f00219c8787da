"""Makes threads meet: all start at once, the interpreter switches between them often, and calls are paused at any of their bytecodes."""

from __future__ import annotations

import collections
import contextlib
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, TypeVar

# Seconds; Python's own 0.005 is longer than most calls. Below this the operating system's timers decide.
SWITCH_INTERVAL = 1e-5

_lock = threading.Lock()
_users = 0
_before = 0.0


@contextlib.contextmanager
def frequent_switches() -> Iterator[None]:
    """The interpreter switches threads often while anybody is in here; afterwards as seldom as before."""
    global _users, _before
    with _lock:
        if not _users:
            _before = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH_INTERVAL)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                sys.setswitchinterval(_before)


class HungError(Exception):
    """No call came back for too long; its text says where they stand."""


def run_together(
    works: Sequence[Callable[[], object]], *, progress: Callable[[], object] | None = None, timeout: float | None = None
) -> list[BaseException | None]:
    """Runs each in a thread of its own, all at once, and returns what each raised.

    Raises HungError when `progress()` has not changed for `timeout` seconds; the threads, daemons, are left behind.
    """
    errors: list[BaseException | None] = [None] * len(works)
    start = threading.Barrier(len(works))

    def run(k: int) -> None:
        try:
            start.wait()
            works[k]()
        except BaseException as error:  # noqa: BLE001 - whoever started the threads raises it
            errors[k] = error

    threads = [threading.Thread(target=run, args=(k,), name=f"concurrent-{k}", daemon=True) for k in range(len(works))]
    for thread in threads:
        thread.start()
    seen, since = object(), time.monotonic()
    while running := [thread for thread in threads if thread.is_alive()]:
        running[0].join(0.1)
        if progress is None or timeout is None:
            continue
        now = progress()
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > timeout:
            raise HungError(_where(running))
    return errors


def _where(threads: list[threading.Thread]) -> str:
    frames = sys._current_frames()
    stacks = collections.Counter("".join(traceback.format_stack(frames[t.ident])[-4:]) for t in threads if t.ident in frames)
    return "\n".join(f"{count} of them here:\n{stack}" for stack, count in stacks.most_common(3))


# Pauses of a call, on average. More of them only slow the run: every one lets all other threads by.
PAUSES = 3
# Seconds: the others get a turn, or some of their calls; that many calls may be a longer time, up to the last.
LENGTHS = (0.0, 1e-4, 1e-3)
LONGEST = 0.05

# Of a code object, and a bytecode or (below 0) a line in it.
Site = tuple[int, int]
T = TypeVar("T")


class Sites:
    """The places in the code, bytecodes and lines, that lone calls pass.

    A race shows where a thread is stopped between two certain bytecodes. These may be two of a loop's million, so a pause is drawn from
    the places in the code, not from the steps of a call: each place has the same chance, however often a call passes it.
    """

    # Steps of a call. A longer one spends its time in Python, where the interpreter's own switches come often.
    MOST_STEPS = 300_000
    # Times that a call passes a line; from then on its bytecodes are left in peace, or a loop would be all that is seen of a call.
    MOST_VISITS = 100

    def __init__(self) -> None:
        self.steps = 0
        self.calls = 0
        self.too_many = False
        self._counts: collections.Counter[Site] = collections.Counter()

    def _hot(self, line: Site) -> bool:
        return self._counts[line] > self.MOST_VISITS * self.calls

    def counted(self, call: Callable[[], T]) -> T:
        """Makes a call on this thread, with nothing beside it, and counts its steps."""
        self.calls += 1
        most = self.steps + self.MOST_STEPS

        def step(site: Site) -> None:
            self._counts[site] += 1
            self.steps += 1
            if self.steps > most:
                self.too_many = True
                sys.settrace(None)

        return call() if self.too_many else _traced(step, self._hot, call)

    def paused(self, call: Callable[[], T], chance: random.Random, others: float) -> T:
        """Makes a call on this thread and pauses it at places that `chance` draws. others: seconds in which all others have a call."""
        lengths = (*LENGTHS, min(LONGEST, max(*LENGTHS, others)))
        expected = PAUSES * self.calls / max(1, len(self._counts))

        def step(site: Site) -> None:
            # Where no lone call came by, a call comes by once.
            if chance.random() * self._counts.get(site, self.calls) < expected:
                time.sleep(chance.choice(lengths))

        return _traced(step, self._hot, call)


def _traced(step: Callable[[Site], None], hot: Callable[[Site], bool], call: Callable[[], T]) -> T:
    """Calls `step` before every line of `call` on this thread, and before every bytecode of a line that is not hot."""

    def trace(frame: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
        if event == "opcode":
            step((id(frame.f_code), frame.f_lasti))
        elif event == "line":
            line = (id(frame.f_code), -frame.f_lineno)
            frame.f_trace_opcodes = not hot(line)
            step(line)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return call()
    finally:
        sys.settrace(before)
