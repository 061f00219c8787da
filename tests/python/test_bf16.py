"""precision="bf16": products rounded to bfloat16, on processors with AMX."""

from __future__ import annotations

import difflib
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import LINES, PAGES, Run, key
from threadsafe_ocr import ConfigError, EngineUnavailableError, OcrResult, ThreadSafeOCR, runtime

ALL = [path for folder in ("docs_en", "docs_zh", "scans_en", "derived") for path in sorted((PAGES / folder).iterdir())]


@pytest.fixture(scope="module")
def bf16() -> Iterator[ThreadSafeOCR]:
    with ThreadSafeOCR(precision="bf16") as ocr:
        yield ocr


@pytest.fixture(scope="module")
def alone(bf16: ThreadSafeOCR) -> dict[Path, OcrResult]:
    """What is read on each page while nothing else is read."""
    return {path: bf16.read(path) for path in ALL}


@pytest.mark.matrix_unit
def test_characters_are_those_of_f32_but_for_two_in_a_thousand(alone: dict[Path, OcrResult], ocr: ThreadSafeOCR) -> None:
    wrong = characters = 0
    for path, page in zip(ALL, ocr.read_many(ALL), strict=True):
        ours, theirs = ("".join(text.split()) for text in (alone[path].text, page.text))
        same = sum(block.size for block in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks())
        wrong += max(len(ours), len(theirs)) - same
        characters += len(theirs)
    print(f"{wrong} of {characters} characters differ")
    assert characters > 15_000
    assert 0 < wrong <= 0.002 * characters


@pytest.mark.matrix_unit
def test_16_threads_get_the_lone_answers_to_the_last_bit(bf16: ThreadSafeOCR, alone: dict[Path, OcrResult]) -> None:
    with ThreadPoolExecutor(16) as threads:
        read = list(threads.map(bf16.read, ALL * 2))
    assert [key(page) for page in read] == [key(alone[path]) for path in ALL * 2]


@pytest.mark.matrix_unit
def test_own_models_compute_in_it_too_and_f32_beside_it_as_ever(ocr: ThreadSafeOCR) -> None:
    models, before = Path(__file__).parents[2] / "models" / "v6-small", key(ocr.read(LINES[0]))
    with ThreadSafeOCR({"det": models / "det", "rec": models / "rec"}, precision="bf16") as own:
        pairs = zip(own.recognize(LINES), ocr.recognize(LINES), strict=True)
        assert 0 < statistics.median(abs(ours.score - theirs.score) for ours, theirs in pairs) < 0.01
        assert key(ocr.read(LINES[0])) == before


def test_where_there_is_no_unit_the_error_says_what_to_use(run_python: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREADSAFE_OCR_AMX", "0")
    run_python("""
        from threadsafe_ocr import EngineUnavailableError
        try:
            ThreadSafeOCR(precision="bf16")
        except EngineUnavailableError as error:
            assert "AMX" in str(error) and 'use "f32"' in str(error), error
        else:
            raise AssertionError("it was taken")
        assert ThreadSafeOCR(precision="fast").read(LINE).lines
    """)


def test_a_gpu_has_none_and_auto_does_not_ask_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="fp16"):
        ThreadSafeOCR(device="cuda", precision="bf16")
    monkeypatch.setattr(runtime, "start", lambda device: (_ for _ in ()).throw(EngineUnavailableError(device)))
    monkeypatch.setattr(runtime, "may_use_gpu", lambda: True)
    with pytest.raises(EngineUnavailableError, match="cpu"):
        ThreadSafeOCR(device="auto", precision="bf16")
