"""Pages with what the real PaddleOCR read on them, one engine for all tests, and a process of its own where life ends."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from threadsafe_ocr import OcrResult, ThreadSafeOCR, _core

DATA = Path(__file__).parents[1] / "data"
PAGES = DATA / "pages"
# Small enough that a test of many reads takes seconds.
MODELS = Path(__file__).parents[2] / "models"
LINES = sorted((PAGES / "rec_lines").glob("*.png"))
# What the first of them says.
TEXT = r"\mynumber = \mydimen"

# Whether recognition's products in f32 have 16 bits, and bf16 can be had.
HAS_UNIT = _core.has_matrix_unit()

Run = Callable[..., str]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "matrix_unit: of processors with AMX, on Linux; elsewhere there is nothing to test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    of_unit = [item for item in items if item.get_closest_marker("matrix_unit")]
    if of_unit and not HAS_UNIT:
        config.hook.pytest_deselected(items=of_unit)
        items[:] = [item for item in items if item not in of_unit]


# Where the tests run in a shell's background, as under nohup, SIGINT is ignored, and so it would be in every process they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def key(page: OcrResult) -> list[tuple[str, float, bytes]]:
    """Everything an answer says, bit for bit."""
    return [(line.text, line.score, line.polygon.tobytes()) for line in page.lines]


def until(seen: Callable[[], object], seconds: float = 45) -> float:
    """Seconds that it took."""
    start = time.monotonic()
    while not seen():
        assert time.monotonic() - start < seconds
        time.sleep(0.02)
    return time.monotonic() - start


def upright_page_with_a_tall_line() -> np.ndarray:
    """BGR: "alpha bravo" twice, and once running down."""
    page, line = Image.new("RGB", (400, 300), "white"), Image.new("RGB", (220, 50), "white")
    ImageDraw.Draw(line).text((10, 8), "alpha bravo", fill="black", font=ImageFont.load_default(28))
    page.paste(line, (20, 60))
    page.paste(line, (20, 160))
    page.paste(line.rotate(-90, expand=True), (310, 40))
    return np.asarray(page)[:, :, ::-1]


def large() -> np.ndarray:
    """A page whose detection alone takes seconds."""
    return np.full((2800, 4000, 3), 255, np.uint8)


def ask(ocr: ThreadSafeOCR, call: str, image: object, **options: object) -> object:
    """What any of the calls answers."""
    begun = getattr(ocr, call)([image] if call == "read_many" else image, **options)
    if call == "submit":
        return begun.result()
    if call == "aread":
        return asyncio.run(begun)
    return list(begun) if call == "read_many" else begun


@pytest.fixture(scope="session")
def golden() -> dict[str, dict[str, object]]:
    return json.loads((DATA / "golden" / "paddleocr37.json").read_text())["pages"]


@pytest.fixture(scope="session")
def ocr() -> Iterator[ThreadSafeOCR]:
    with ThreadSafeOCR() as engine:
        yield engine


PRELUDE = f"""
import asyncio, atexit, os, signal, sys, threading, time
import numpy as np
import threadsafe_ocr
from threadsafe_ocr import *
LINE, TEXT = {str(LINES[0])!r}, {TEXT!r}
PAGE = {str(PAGES / "docs_en" / "tex-nutshell-p013.png")!r}
large = np.full((2800, 4000, 3), 255, np.uint8)

def child(work):
    # Forks; the child does `work` and leaves at once, the parent sees how it went.
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        try:
            work()
        except BaseException as error:
            os.write(2, f"child: {{type(error).__name__}}: {{error}}\\n".encode())
            os._exit(7)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def reads(ocr):
    text = ocr.read(LINE).text
    assert text == TEXT, text

def names_of_threads():
    # By number; one that ends meanwhile has none.
    names = {{}}
    for thread in os.listdir("/proc/self/task"):
        try:
            names[thread] = open(f"/proc/self/task/{{thread}}/comm").read().strip()
        except OSError:
            pass
    return names
"""


@pytest.fixture
def run_python() -> Run:
    """Runs a script in a process of its own, with a time limit, and returns what it printed; fails when it fails or says anything else."""

    def run(script: str, *, before: str = "", timeout: float = 50, code: int = 0) -> str:
        # Python 3.12 warns of every fork of a process with threads.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", before + PRELUDE + textwrap.dedent(script)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        assert (done.returncode, done.stderr) == (code, ""), f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
