"""Pages with what the real PaddleOCR read on them, and one engine for all tests."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from threadsafe_ocr import OcrResult, ThreadSafeOCR

DATA = Path(__file__).parents[1] / "data"
PAGES = DATA / "pages"
# Small enough that a test of many reads takes seconds.
LINES = sorted((PAGES / "rec_lines").glob("*.png"))


def key(page: OcrResult) -> list[tuple[str, float, bytes]]:
    """Everything an answer says, bit for bit."""
    return [(line.text, line.score, line.polygon.tobytes()) for line in page.lines]


@pytest.fixture(scope="session")
def golden() -> dict[str, dict[str, object]]:
    return json.loads((DATA / "golden" / "paddleocr37.json").read_text())["pages"]


@pytest.fixture(scope="session")
def ocr() -> Iterator[ThreadSafeOCR]:
    with ThreadSafeOCR() as engine:
        yield engine


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script in a process of its own, with a time limit; fails when it fails."""

    def run(script: str, *, timeout: float = 40, code: int = 0) -> subprocess.CompletedProcess[str]:
        prelude = f"import threadsafe_ocr, threading, time, os, sys\nfrom threadsafe_ocr import *\nPAGE = {str(PAGES / 'formats/rgb.png')!r}\nLINE = {str(LINES[0])!r}\n"
        done = subprocess.run(
            [sys.executable, "-c", prelude + textwrap.dedent(script)], capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run
