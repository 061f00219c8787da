"""bfloat16 on a processor with AMX: `make test-openvino`, or `pytest tests/openvino` where onnxruntime-ep-openvino is installed."""

from __future__ import annotations

import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from threadsafe_ocr import OcrResult, OcrTimeoutError, ThreadSafeOCR, _core

DATA = Path(__file__).parents[1] / "data" / "pages"
PAGES = [path for folder in ("docs_en", "docs_zh", "scans_en", "derived") for path in sorted((DATA / folder).iterdir())]
LINES = sorted((DATA / "rec_lines").glob("*.png"))


def key(page: OcrResult) -> list[tuple[str, float, bytes]]:
    """Everything an answer says, bit for bit."""
    return [(line.text, line.score, line.polygon.tobytes()) for line in page.lines]


def run(script: str, seconds: float = 120) -> str:
    """What a process of its own prints; it says nothing else, and ends by itself."""
    common = f"""
        import os, sys, threading, time
        from threadsafe_ocr import EngineUnavailableError, ThreadSafeOCR, unload
        PAGE, LINES = {str(PAGES[0])!r}, {[str(path) for path in LINES]!r}
        def key(page): return [(line.text, line.score) for line in page.lines]
    """
    script = textwrap.dedent(common) + textwrap.dedent(script)
    # Python 3.12 warns of every fork of a process with threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def bf16() -> Iterator[ThreadSafeOCR]:
    with ThreadSafeOCR(precision="bf16") as ocr:
        yield ocr


@pytest.fixture(scope="module")
def alone(bf16: ThreadSafeOCR) -> dict[Path, OcrResult]:
    """What is read on each page while nothing else is read."""
    return {path: bf16.read(path) for path in PAGES}


@pytest.fixture(scope="module")
def in_f32() -> dict[Path, OcrResult]:
    with ThreadSafeOCR() as ocr:
        return dict(zip(PAGES, ocr.read_many(PAGES), strict=True))


def test_characters_are_those_of_f32_but_for_two_in_a_thousand(alone: dict[Path, OcrResult], in_f32: dict[Path, OcrResult]) -> None:
    wrong = characters = 0
    for path in PAGES:
        ours, theirs = alone[path].text, in_f32[path].text
        same = sum(block.size for block in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks())
        wrong += max(len(ours), len(theirs)) - same
        characters += len(theirs)
    print(f"{wrong} of {characters} characters differ")
    assert characters > 15_000
    assert 0 < wrong <= 0.002 * characters


def test_boxes_are_those_of_f32(alone: dict[Path, OcrResult], in_f32: dict[Path, OcrResult]) -> None:
    boxes = {path: {line.polygon.tobytes() for line in in_f32[path].lines} for path in PAGES}
    lines = [(path, line) for path in PAGES for line in alone[path].lines]
    # A line whose score lies at the threshold is in one of the answers only.
    assert sum(line.polygon.tobytes() in boxes[path] for path, line in lines) >= len(lines) - 5 > 500


def test_16_threads_get_the_lone_answers_to_the_last_bit(bf16: ThreadSafeOCR, alone: dict[Path, OcrResult]) -> None:
    with ThreadPoolExecutor(16) as threads:
        read = list(threads.map(bf16.read, PAGES * 3))
    assert [key(page) for page in read] == [key(alone[path]) for path in PAGES * 3]


def test_a_deadline_ends_a_wait_in_the_middle_of_lines(bf16: ThreadSafeOCR, alone: dict[Path, OcrResult]) -> None:
    began = time.monotonic()
    with pytest.raises(OcrTimeoutError):
        bf16.recognize(LINES * 20 * _core.cores(), timeout=0.5)
    assert time.monotonic() - began < 2
    assert key(bf16.read(PAGES[0])) == key(alone[PAGES[0]])


def test_own_models_compute_in_it_too() -> None:
    models = Path(__file__).parents[2] / "models" / "v6-small"
    with ThreadSafeOCR({"det": models / "det", "rec": models / "rec"}, precision="bf16") as own, ThreadSafeOCR() as f32:
        pairs = zip(own.read(PAGES[0]).lines, f32.read(PAGES[0]).lines, strict=True)
    assert 0 < statistics.median(abs(ours.score - theirs.score) for ours, theirs in pairs) < 0.01


def test_lines_of_every_width_leave_memory_flat(bf16: ThreadSafeOCR) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def read_all() -> None:
        # From many threads, so that every core meets every width.
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(bf16.recognize, LINES * 8))

    def grows() -> bool:
        before = resident()
        for _ in range(3):
            read_all()
        return resident() - before > 8 << 20

    assert not all(grows() for _ in range(10))
    assert not grows()


def test_f32_is_computed_as_before_once_openvino_is_loaded() -> None:
    run("""
        ocr = ThreadSafeOCR()
        before = key(ocr.read(PAGE))
        ocr.close()
        unload()
        ocr = ThreadSafeOCR(precision="bf16")
        assert key(ocr.read(PAGE)) != before
        assert key(ThreadSafeOCR().read(PAGE)) == before
    """)


def test_children_that_are_forked_while_it_reads_answer_as_their_parent() -> None:
    run("""
        ocr = ThreadSafeOCR(precision="bf16")
        wanted = key(ocr.read(PAGE))
        # Of widths that have to be compiled.
        busy = [threading.Thread(target=lambda: [ocr.recognize(line) for line in LINES * 4]) for _ in range(3)]
        for thread in busy: thread.start()
        for _ in range(3):
            time.sleep(0.2)
            child = os.fork()
            if child == 0:
                # As a worker of a server ends, with all that runs at a process's end.
                sys.exit(0 if key(ocr.read(PAGE)) == wanted else 1)
            assert os.waitpid(child, 0)[1] == 0
        for thread in busy: thread.join()
    """)


def test_a_child_whose_parent_unloaded_it_is_refused_and_does_not_hang() -> None:
    printed = run(
        """
        ocr = ThreadSafeOCR(precision="bf16")
        ocr.close()
        unload()
        child = os.fork()
        if child == 0:
            try:
                ThreadSafeOCR(precision="bf16")
            except EngineUnavailableError as error:
                print(error, flush=True)
                sys.exit(0 if len(ThreadSafeOCR().read(PAGE).lines) > 40 else 1)
            sys.exit(1)
        assert os.waitpid(child, 0)[1] == 0
    """,
        seconds=60,
    )
    assert "spawn" in printed


@pytest.mark.parametrize("seconds", [0, 0.3, 0.6, 0.9, 1.5])
def test_a_process_ends_while_its_networks_are_loaded(seconds: float) -> None:
    run(f"""
        threading.Thread(target=lambda: ThreadSafeOCR("v6-cascade", precision="bf16"), daemon=True).start()
        time.sleep({seconds})
    """)


def test_a_process_ends_while_it_reads() -> None:
    run("""
        ocr = ThreadSafeOCR(precision="bf16")
        ocr.read(PAGE)
        for _ in range(8):
            threading.Thread(target=lambda: [ocr.read(PAGE) for _ in range(100)], daemon=True).start()
        time.sleep(1)
    """)
