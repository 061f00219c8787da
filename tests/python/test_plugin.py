"""The pytest plugin: finds what is not safe, leaves alone what is, and costs a run that does not use it nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import queue
import random
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import LINES, TEXT
from pytest_threadsafe_ocr import assert_thread_safe
from pytest_threadsafe_ocr.answers import Answer, difference
from threadsafe_ocr import ThreadSafeOCR

ROWS = [np.arange(12) * n for n in range(8)]


class OneBuffer:
    """Every call writes to the same array and reads from it afterwards."""

    def __init__(self) -> None:
        self.buffer = np.zeros(12, int)

    def __call__(self, row: np.ndarray) -> list[int]:
        self.buffer[:] = row
        return (self.buffer + 1).tolist()


class OneBufferReturned(OneBuffer):
    """The answer is the array that the next call writes to."""

    def __call__(self, row: np.ndarray) -> np.ndarray:
        self.buffer = np.array(row) if row[1] == 0 else self.buffer
        np.copyto(self.buffer, row)
        return self.buffer


class OptionsOnTheObject:
    """The options of a call are kept on the object while it runs, and put back afterwards."""

    threshold = 3

    def __call__(self, threshold: int) -> list[int]:
        before, self.threshold = self.threshold, threshold
        try:
            return [n for n in range(10) if n >= self.threshold]
        finally:
            self.threshold = before


class LastAnswer:
    """An answer goes through an attribute."""

    def __call__(self, row: np.ndarray) -> int:
        self.answer = int(row.sum())
        return self.answer


class OneQueueOfAnswers:
    """A thread answers into one queue; whoever asks first gets whatever comes first."""

    def __init__(self) -> None:
        self.questions: queue.Queue[Any] = queue.Queue()
        self.answers: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            self.answers.put(self.questions.get().sum())

    def __call__(self, row: np.ndarray) -> int:
        self.questions.put(row)
        return int(self.answers.get())


class LostUpdate:
    """A sum that is kept on the object, and taken back to nothing by whoever is done."""

    total = 0

    def __call__(self, row: np.ndarray) -> int:
        for value in row.tolist():
            self.total += value
        total, self.total = self.total, 0
        return total


RACES: list[tuple[Callable[[], Any], list[Any]]] = [
    (OneBuffer, ROWS),
    (OptionsOnTheObject, [1, 5, 9]),
    (LastAnswer, ROWS),
    (OneQueueOfAnswers, ROWS),
    (LostUpdate, ROWS),
]


@pytest.mark.parametrize(("kind", "inputs"), RACES, ids=[kind.__name__ for kind, _ in RACES])
def test_a_planted_race_is_found_every_time(kind: Callable[[], Any], inputs: list[Any]) -> None:
    for _ in range(5):
        with pytest.raises(AssertionError, match="at once what it answers alone"):
            assert_thread_safe(kind(), inputs)


def test_an_answer_that_changes_after_it_was_returned_is_found() -> None:
    with pytest.raises(AssertionError, match=r"same twice|changed afterwards|at once"):
        assert_thread_safe(OneBufferReturned(), ROWS)


def test_options_that_outlive_their_call_are_found_before_any_thread_runs() -> None:
    kept = {"threshold": 0}

    def read(options: dict[str, int]) -> int:
        kept.update(options)
        return kept["threshold"]

    with pytest.raises(AssertionError, match="depends on earlier calls"):
        assert_thread_safe(read, [{}, {"threshold": 5}])


def test_the_report_says_what_differs_where_and_how_to_see_it_again() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_thread_safe(OptionsOnTheObject(), [1, 5, 9], threads=4, repeat=50, seed=7)
    report = str(caught.value)
    assert re.search(r"OptionsOnTheObject.* from 4 threads .*\(seed 7\)", report)
    assert re.search(r"round \d+ of 50, thread \d, inputs\[\d\] = [159]", report)
    assert "--- alone" in report
    assert "+++ at once" in report
    assert re.search(r"of the \d+ calls of this round \d+ answered wrong and 0 raised", report)
    assert "assert_thread_safe(..., seed=7)" in report


def test_a_mix_up_names_whose_answer_it_is() -> None:
    with pytest.raises(AssertionError, match=r"it is the lone answer of inputs\[\d\]"):
        assert_thread_safe(LastAnswer(), ROWS)


def test_errors_that_only_many_threads_see_are_counted_and_chained() -> None:
    inside = threading.Semaphore(1)

    def one_at_a_time(number: int) -> int:
        if not inside.acquire(blocking=False):
            raise RuntimeError("could not execute a primitive")
        time.sleep(0.001)
        inside.release()
        return number

    with pytest.raises(AssertionError, match=r"\d+ x RuntimeError: could not execute a primitive") as caught:
        assert_thread_safe(one_at_a_time, [1, 2])
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_object_that_belongs_to_the_thread_that_made_it_is_found() -> None:
    owner = threading.get_ident()

    def read(number: int) -> int:
        if threading.get_ident() != owner:
            raise RuntimeError("made by another thread")
        return number

    with pytest.raises(AssertionError, match=r"of the (\d+) calls of this round 0 answered wrong and \1 raised"):
        assert_thread_safe(read, [1], repeat=1)


def test_a_deadlock_is_told_with_the_place() -> None:
    first, second = threading.Lock(), threading.Lock()

    def read(turned: bool) -> None:
        one, other = (second, first) if turned else (first, second)
        with one:
            time.sleep(0.001)
            with other:  # here they meet
                pass

    with pytest.raises(AssertionError, match=r"no call came back for 0.5 s(.|\n)*here they meet"):
        assert_thread_safe(read, [False, True], timeout=0.5)


def test_what_is_safe_passes() -> None:
    lock, kept = threading.Lock(), {"threshold": 0}

    def locked(number: int) -> dict[str, Any]:
        with lock:
            kept["threshold"] = number
            return {"row": np.full(3, kept["threshold"]), "nan": [float("nan"), np.nan], "object": SimpleNamespace(number=number)}

    assert_thread_safe(locked, [1, 2, 3], repeat=10)


def test_errors_that_lone_calls_raise_too_are_answers() -> None:
    assert_thread_safe(lambda text: int(text), ["1", "2", "three", "four"], repeat=4)


def test_a_function_that_always_fails_is_no_safe_function() -> None:
    with pytest.raises(ZeroDivisionError):
        assert_thread_safe(lambda number: number / 0, [1, 2])


def test_no_input_is_refused() -> None:
    with pytest.raises(ValueError, match="0 inputs"):
        assert_thread_safe(len, [])


def test_chance_is_told_from_a_race() -> None:
    with pytest.raises(AssertionError, match="does not answer the same twice when it is called alone"):
        assert_thread_safe(lambda number: random.random() + number, [1, 2])


def test_an_async_function_runs_in_a_loop_of_each_thread() -> None:
    kept: dict[str, int] = {}

    async def racing(number: int) -> int:
        kept["number"] = number
        await asyncio.sleep(0)
        return kept["number"]

    async def safe(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def main() -> None:
        assert_thread_safe(safe, [1, 2, 3], repeat=2)

    with pytest.raises(AssertionError, match="at once what it answers alone"):
        assert_thread_safe(racing, [1, 2, 3])
    asyncio.run(main())


def test_everything_is_afterwards_as_before() -> None:
    def trace(*_: object) -> None:
        return None

    before, threads, chance = sys.getswitchinterval(), threading.active_count(), random.getstate()
    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        assert_thread_safe(str, [1, 2], repeat=3)
        with pytest.raises(AssertionError):
            assert_thread_safe(LastAnswer(), ROWS)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(tracing)
    assert (sys.getswitchinterval(), threading.active_count(), random.getstate()) == (before, threads, chance)


def test_answers_differ_by_value_and_say_where() -> None:
    def of(value: object) -> Answer:
        return Answer.of(lambda: value)[0]

    a, b = np.zeros((3, 400), np.float32), np.zeros((3, 400), np.float32)
    assert of([a, float("nan")]) == of([b, float("nan")])
    b[1, 7] = 5
    assert of(a) != of(b)
    assert "1 of 1200 values of an array differ, the first at [1, 7]: 0.0 alone, 5.0 at once" in difference(of([a]), of([b]))
    assert of(np.zeros(3, np.float32)) != of(np.zeros(3, np.float64))
    assert of(SimpleNamespace(row=a)) != of(SimpleNamespace(row=b))
    assert of(bytearray(b"a")) == of(b"a")
    assert of(ValueError("a")) != of(ValueError("b"))


def test_fields_that_a_dataclass_does_not_compare_are_no_part_of_an_answer() -> None:
    @dataclasses.dataclass(frozen=True)
    class Read:
        text: str
        seconds: float = dataclasses.field(compare=False)

    assert_thread_safe(lambda text: Read(text, time.perf_counter()), ["a", "b"])
    with pytest.raises(AssertionError, match="same twice"):
        assert_thread_safe(lambda text: Read(f"{text} {time.perf_counter()}", 0.0), ["a", "b"])


def test_this_engine_is_found_safe(ocr: ThreadSafeOCR) -> None:
    small = [path.read_bytes() for path in LINES if path.stat().st_size < 6000]
    assert_thread_safe(ocr.read, small, threads=8, repeat=4)
    assert_thread_safe(ocr.aread, small[:3], threads=4, repeat=2)
    options = [{}, {"rec_score_thresh": 1.0}, {"rec_min_width": 640}]
    assert_thread_safe(lambda options: ocr.read(small[0], **options), options, threads=8, repeat=2)


Run = Callable[..., str]


@pytest.fixture
def run_pytest(tmp_path: Path) -> Run:
    """Runs pytest on a file of tests in a process of its own, warnings as errors, and returns what it printed; with this plugin only."""

    def run(tests: str, *arguments: str, code: int = 0) -> str:
        (tmp_path / "test_it.py").write_text("import threading, time, pytest\n" + textwrap.dedent(tests))
        options = ["--strict-markers", "-p", "threadsafe_ocr", "-p", "no:cacheprovider", "-W", "error"]
        command = [sys.executable, "-m", "pytest", *options, *arguments, "test_it.py"]
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=55, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    return run


def test_a_run_without_the_fixtures_loads_no_engine(run_pytest: Run) -> None:
    run_pytest(
        """
        import sys

        def test_nothing_is_loaded():
            assert not {"threadsafe_ocr", "numpy", "asyncio"} & set(sys.modules)
            assert "pytest_threadsafe_ocr" in sys.modules
        """
    )


def test_a_marked_test_runs_in_as_many_threads_at_once(run_pytest: Run) -> None:
    out = run_pytest(
        """
        import sys

        met, three = threading.Barrier(8, timeout=10), threading.Barrier(3, timeout=10)

        @pytest.mark.concurrent
        def test_eight(tmp_path):
            assert sys.getswitchinterval() < 0.001
            met.wait()

        @pytest.mark.concurrent(threads=3)
        class TestThree:
            def test_three(self):
                three.wait()

        def test_afterwards():
            assert sys.getswitchinterval() == 0.005

        @pytest.mark.concurrent(4)
        def test_fails_in_some():
            assert threading.current_thread().name != "concurrent-2"

        @pytest.mark.concurrent(2)
        def test_skips():
            pytest.skip("in every thread")

        @pytest.mark.concurrent(threads=0)
        def test_would_never_run():
            pass
        """,
        code=1,
    )
    assert "2 failed, 3 passed, 1 skipped" in out
    assert "ValueError: @pytest.mark.concurrent(threads=0): at least 2" in out
    assert "in 1 of 4 threads or tasks at once: AssertionError" in out


def test_a_marked_async_test_runs_as_tasks_of_one_loop(run_pytest: Run) -> None:
    out = run_pytest(
        """
        import asyncio

        inside = []

        @pytest.mark.asyncio
        @pytest.mark.concurrent(threads=5)
        async def test_five():
            inside.append(asyncio.get_running_loop())
            while len(inside) < 5:
                await asyncio.sleep(0.001)
            assert len(set(inside)) == 1

        @pytest.mark.asyncio
        @pytest.mark.concurrent(threads=5)
        async def test_fails():
            assert not inside
        """,
        *("-p", "asyncio", "-o", "asyncio_default_fixture_loop_scope=function"),
        code=1,
    )
    assert "1 failed, 1 passed" in out
    assert "in 5 of 5 threads or tasks at once: AssertionError" in out


def test_xdist_gives_each_of_its_processes_an_engine(run_pytest: Run) -> None:
    out = run_pytest(
        f"""
        from pytest_threadsafe_ocr import assert_thread_safe

        engines = []

        @pytest.mark.parametrize("turn", range(4))
        def test_reads(ocr, turn, worker_id):
            assert worker_id.startswith("gw")
            engines.append(ocr)
            assert all(one is ocr for one in engines)
            assert_thread_safe(ocr.read, [{str(LINES[2])!r}, {str(LINES[8])!r}], threads=4, repeat=1)

        @pytest.mark.concurrent(threads=4)
        def test_marked(ocr):
            assert ocr.read({str(LINES[2])!r}).text
        """,
        *("-p", "xdist", "-n", "2"),
    )
    assert "5 passed" in out


def test_what_the_guide_shows_passes(run_pytest: Run, tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
    (tmp_path / "page.png").write_bytes(LINES[0].read_bytes())
    (tmp_path / "line.png").write_bytes(LINES[2].read_bytes())
    # As the guide has it these are 320 calls.
    out = run_pytest(block.replace('"Hello"', repr(TEXT)).replace('"line.png"]', '"line.png"], repeat=2'))
    assert "2 passed" in out


def test_the_server_fixture_is_a_real_server(run_pytest: Run) -> None:
    run_pytest(
        f"""
        import base64, json, urllib.request

        def test_reads(ocr_server):
            with open({str(LINES[0])!r}, "rb") as file:
                body = {{"file": base64.b64encode(file.read()).decode(), "format": "text"}}
            headers = {{"Content-Type": "application/json"}}
            request = urllib.request.Request(f"{{ocr_server}}/v1/read", json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=40) as answer:
                assert answer.read().decode().strip() == {TEXT!r}

        def test_it_is_the_same_for_all(ocr_server):
            with urllib.request.urlopen(f"{{ocr_server}}/readyz", timeout=40) as answer:
                assert answer.status == 200
        """
    )
