"""The pytest plugin where it takes long: many runs of planted races, many of this engine, and PaddleOCR 2.7.3's real failure.

`make test-plugin`. The last installs 0.5 GB into the environment of `make before-after`.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_threadsafe_ocr import assert_thread_safe
from threadsafe_ocr import ThreadSafeOCR

ROOT = Path(__file__).parents[2]
LINES = sorted((ROOT / "tests" / "data" / "pages" / "rec_lines").glob("*.png"))
# Among the smallest, and two scripts.
SMALL = [path for path in LINES if path.stat().st_size < 3000]
sys.path.insert(0, str(ROOT / "benches"))

import before_after  # noqa: E402


class Workspace:
    """Shared buffer: a page is scaled into memory that all calls use, and read from there."""

    def __init__(self) -> None:
        self.pixels = bytearray(64)

    def read(self, page: bytes) -> int:
        for n, byte in enumerate(page):
            self.pixels[n] = 255 - byte
        return sum(self.pixels[: len(page)])


class Configured:
    """Options written to the object: they hold for whoever reads next."""

    def __init__(self) -> None:
        self.upper = False

    def read(self, case: tuple[str, bool]) -> str:
        text, self.upper = case
        words = [word for word in text.split() if word]
        return " ".join(word.upper() if self.upper else word for word in words)


class Mailbox:
    """Answers swapped: they lie under a number that two calls may both have drawn."""

    def __init__(self) -> None:
        self.number = 0
        self.answers: dict[int, Any] = {}

    def read(self, page: np.ndarray) -> list[int]:
        number = self.number
        self.number = number + 1
        self.answers[number] = np.cumsum(page).tolist()
        return self.answers.pop(number, [])


RACES: list[tuple[Callable[[], Any], list[Any]]] = [
    (Workspace, [bytes([n] * 64) for n in range(6)]),
    (Configured, [("a quick brown fox", True), ("jumps over the dog", False), ("lazily", True)]),
    (Mailbox, [np.arange(n, n + 5) for n in range(6)]),
]


@pytest.mark.parametrize(("kind", "inputs"), RACES, ids=[kind.__name__ for kind, _ in RACES])
def test_planted_races_are_found_in_20_of_20_runs(kind: Callable[[], Any], inputs: list[Any]) -> None:
    found = 0
    for _ in range(20):
        try:
            assert_thread_safe(kind().read, inputs)
        except AssertionError:
            found += 1
    assert found == 20


def test_a_hundred_runs_on_this_engine_give_no_alarm() -> None:
    pages = [path.read_bytes() for path in SMALL]
    # The option shows in the score.
    cases = list(itertools.product(pages[1:], [{}, {"rec_min_width": 240}]))
    with ThreadSafeOCR() as ocr:
        for _ in range(50):
            # 320 calls each, 6 to 9 CPU-seconds.
            assert_thread_safe(ocr.recognize, [*pages, b"no image"])
            assert_thread_safe(lambda case: ocr.recognize(case[0], **case[1]), cases)


PADDLE = f"""
import sys

sys.path.insert(0, {str(ROOT / "benches")!r})
import before_after_service
from pytest_threadsafe_ocr import assert_thread_safe

PAGES = [open(path, "rb").read() for path in {list(map(str, SMALL))!r}]

def test_one_object_for_all_threads():
    assert_thread_safe(before_after_service.shared(), PAGES, threads=8)

def test_one_object_behind_a_lock():
    assert_thread_safe(before_after_service.lock(), PAGES, threads=8)
"""


def test_paddleocrs_failure_is_found_and_so_is_that_a_lock_does_not_mend_it(tmp_path: Path) -> None:
    before_after.FOLDER.mkdir(parents=True, exist_ok=True)
    before_after.make_environment()
    before_after.attempt("pytest", [str(before_after.PYTHON), "-m", "pip", "install", "--quiet", "pytest>=8", "pytest-xdist>=3.6"])
    (tmp_path / "test_paddle.py").write_text(PADDLE)
    # A process of its own for the tests, since the first may end it.
    done = subprocess.run(
        [before_after.PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "-n", "1", "test_paddle.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    print(done.stdout[-6000:])
    assert "2 failed" in done.stdout
    shared = r"crashed while running '.*::test_one_object_for_all_threads'|shared\S* (does not answer from 8 threads|hangs)"
    assert re.search(shared, done.stdout)
    assert re.search(r"lock\S* does not answer from 8 threads(.|\n)*RuntimeError: could not execute a primitive", done.stdout)
