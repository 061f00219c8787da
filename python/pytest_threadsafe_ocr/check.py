"""`assert_thread_safe`: a callable, alone and from many threads at once."""

from __future__ import annotations

import collections
import functools
import inspect
import math
import random
import reprlib
import secrets
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pytest_threadsafe_ocr.answers import Answer, by_value, difference
from pytest_threadsafe_ocr.interleaving import HungError, Sites, frequent_switches, run_together

# Seconds that the calls of a round take alone. One call a thread would be over before the next thread starts, where calls are quick.
ROUND = 0.02
MOST_CALLS = 20  # of a thread in a round
# Bytecodes under the eye of a trace function, in all: some seconds.
MOST_STEPS = 3_000_000


def assert_thread_safe(
    fn: Callable[[Any], Any],
    inputs: Iterable[Any],
    threads: int = 16,
    repeat: int = 20,
    *,
    seed: int | None = None,
    timeout: float = 60,
) -> None:
    """Asserts that `fn` answers from many threads at once what it answers alone.

    fn: takes one of `inputs`; a plain or an async function (each thread then has a loop of its own). inputs: several, with different
    answers, or answers that go to the wrong caller look right. First `fn` is called with each of them on this thread, twice, then
    `repeat` rounds follow in which `threads` new threads start together and each calls it with inputs in a random order, once or, where
    calls are quick, up to 20 times. Python switches threads often meanwhile, and in every second round calls are paused at random
    bytecodes. seed: fixes orders and pauses; not what the operating system does. timeout: seconds without any answer that count as a
    deadlock; its threads are then left behind.

    Answers are compared by value: containers, dataclasses (also `OcrResult`), numpy arrays bit for bit, other objects by `==` or, where
    they have none, by their attributes. An error is an answer too: it must be of the same type and say the same. An array that changes
    after it was returned is found as well.

    Raises AssertionError at the end of the first round that went wrong, with the first wrong answer and the counts of the round; also
    where `fn` alone does not answer the same twice. Raises what `fn` raises when every lone call fails, and ValueError without inputs.
    """
    __tracebackhide__ = True
    cases = list(inputs)
    if not cases or threads < 2 or repeat < 1:
        raise ValueError(f"{len(cases)} inputs, {threads} threads, {repeat} rounds: there must be an input, 2 threads and a round")
    check = _Check(fn, cases, secrets.randbits(32) if seed is None else seed)
    check.alone_twice()
    with frequent_switches():
        for number in range(repeat):
            check.round(number, threads, repeat, timeout)


@dataclass(frozen=True)
class Wrong:
    """An answer that is not the lone one."""

    thread: int
    case: int
    answer: Answer
    note: str = ""


class _Check:
    def __init__(self, fn: Callable[[Any], Any], cases: list[Any], seed: int) -> None:
        self.fn, self.cases, self.seed = fn, cases, seed
        self.name = getattr(fn, "__qualname__", None) or repr(fn)
        self.sites = Sites()
        self.alone: list[Answer] = []
        self.seconds = 0.0

    def call(self, case: Any) -> Any:
        returned = self.fn(case)
        return _run(returned) if inspect.iscoroutine(returned) else returned

    def alone_twice(self) -> None:
        """Takes the lone answers, how long they take, and the places in the code that they pass."""
        __tracebackhide__ = True
        if not _in_a_loop():
            wrong = self._alone_twice()
        else:
            # In an async test: this thread cannot run another loop.
            with ThreadPoolExecutor(1) as other:
                wrong = other.submit(self._alone_twice).result()
        if all(answer.error for answer in self.alone):
            raise self.alone[0].error  # type: ignore[misc]
        if wrong is not None:
            raise AssertionError(
                f"{self.name} does not answer the same twice when it is called alone, in another order of inputs (seed {self.seed}): "
                "its answer depends on earlier calls or on chance, or compares by identity\n"
                f"  {self._input(wrong.case)}\n{difference(self.alone[wrong.case], wrong.answer)}"
            ) from wrong.answer.error

    def _alone_twice(self) -> Wrong | None:
        seconds = []
        for case in self.cases:
            start = time.perf_counter()
            self.alone.append(Answer.of(functools.partial(self.call, case))[0])
            seconds.append(time.perf_counter() - start)
        self.seconds = statistics.median(seconds)
        for n in random.Random(self.seed).sample(range(len(self.cases)), len(self.cases)):
            answer, _ = Answer.of(functools.partial(self.sites.counted, functools.partial(self.call, self.cases[n])))
            if answer != self.alone[n]:
                return Wrong(0, n, answer)
        return None

    def round(self, number: int, threads: int, rounds: int, timeout: float) -> None:
        """All threads once; raises AssertionError."""
        __tracebackhide__ = True
        chance = random.Random(f"{self.seed} {number}")
        calls = max(1, min(MOST_CALLS, math.ceil(ROUND / threads / max(self.seconds, 1e-9))))
        paused = 0.0  # the share of the calls
        if number % 2 and self.sites.steps and not self.sites.too_many:
            paused = MOST_STEPS / (self.sites.steps / self.sites.calls * threads * calls * math.ceil(rounds / 2))
        # Each input about as often as any other, in a random order.
        shuffles = math.ceil(threads * calls / len(self.cases))
        order = [n for _ in range(shuffles) for n in chance.sample(range(len(self.cases)), len(self.cases))]
        done = [0] * threads
        last: list[tuple[int, Answer, Any]] = [(0, self.alone[0], None)] * threads
        wrong: list[Wrong] = []

        def work(k: int, chance: random.Random) -> None:
            for n in order[k::threads][:calls]:
                call = functools.partial(self.call, self.cases[n])
                if chance.random() < paused:
                    call = functools.partial(self.sites.paused, call, chance, self.seconds * threads)
                answer, returned = Answer.of(call)
                if answer != self.alone[n]:
                    wrong.append(Wrong(k, n, answer))
                last[k] = (n, answer, returned)
                done[k] += 1

        works = [functools.partial(work, k, random.Random(chance.random())) for k in range(threads)]
        try:
            errors = run_together(works, progress=lambda: sum(done), timeout=timeout)
        except HungError as hung:
            told = f"{self.name} hangs: in round {number + 1} of {rounds} of {threads} threads no call came back for {timeout} s"
            raise AssertionError(f"{told} (seed {self.seed}); {sum(done)} had\n{hung}") from None
        for error in errors:
            if error is not None:
                raise error
        for k, (n, answer, returned) in enumerate(last):
            if answer.raised is None and (now := Answer(by_value(returned))) != answer:
                wrong.append(Wrong(k, n, now, "it was another when it was returned, and changed afterwards"))
        if wrong:
            self._report(wrong, number, threads, rounds, sum(done))

    def _report(self, wrong: list[Wrong], number: int, threads: int, rounds: int, calls: int) -> None:
        __tracebackhide__ = True
        first = wrong[0]
        owner = next((n for n, answer in enumerate(self.alone) if answer == first.answer and answer != self.alone[first.case]), None)
        notes = [first.note] if first.note else []
        if owner is not None:
            notes.append(f"it is the lone answer of inputs[{owner}]")
        raised = collections.Counter(one.answer.raised for one in wrong if one.answer.raised is not None)
        error = next((one.answer.error for one in wrong if one.answer.error is not None), None)
        raise AssertionError(
            "\n".join(
                [
                    f"{self.name} does not answer from {threads} threads at once what it answers alone (seed {self.seed})",
                    f"  round {number + 1} of {rounds}, thread {first.thread}, {self._input(first.case)}",
                    difference(self.alone[first.case], first.answer),
                    *(f"  {note}" for note in notes),
                    f"  of the {calls} calls of this round {len(wrong) - raised.total()} answered wrong and {raised.total()} raised",
                    *(f"  {count} x {text.splitlines()[0][:200]}" for text, count in raised.most_common(10)),
                    f"  the same order and pauses again: assert_thread_safe(..., seed={self.seed})",
                ]
            )
        ) from error

    def _input(self, n: int) -> str:
        return f"inputs[{n}] = {reprlib.repr(self.cases[n])}"


def _run(coroutine: Any) -> Any:
    import asyncio

    return asyncio.run(coroutine)


def _in_a_loop() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
