"""precision="int8": recognition in integers of 8 bits, on any CPU."""

from __future__ import annotations

import difflib
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import LINES, PAGES, key
from threadsafe_ocr import ConfigError, EngineUnavailableError, ThreadSafeOCR, runtime

PRINT = PAGES / "docs_zh" / "qyxf-book-doc-p005.png"


def test_integers_read_print_as_well_and_find_the_same_lines(ocr: ThreadSafeOCR) -> None:
    with ThreadSafeOCR(precision="int8") as integers:
        read, again = integers.read(PRINT), ocr.read(PRINT)
    assert [line.polygon.tobytes() for line in read.lines] == [line.polygon.tobytes() for line in again.lines]
    assert difflib.SequenceMatcher(None, "".join(read.text.split()), "".join(again.text.split()), autojunk=False).ratio() > 0.99
    assert key(read) != key(again), "it is another reader"


def test_what_integers_say_does_not_depend_on_what_else_is_read() -> None:
    with ThreadSafeOCR(precision="int8") as integers:
        alone = [integers.recognize(line) for line in LINES]
        with ThreadPoolExecutor(16) as threads:
            crowd = list(threads.map(integers.recognize, LINES * 4))
    assert [(line.text, line.score) for line in crowd] == [(line.text, line.score) for line in alone] * 4


def test_a_cascade_has_integers_too_and_other_sets_name_what_they_have(ocr: ThreadSafeOCR) -> None:
    with ThreadSafeOCR("v6-cascade", precision="int8") as cascade, ThreadSafeOCR("v6-cascade-int8") as named:
        assert key(cascade.read(PRINT)) == key(named.read(PRINT)) != key(ocr.read(PRINT))
    with pytest.raises(ConfigError, match="'v6-tiny' have: f32"):
        ThreadSafeOCR("v6-tiny", precision="int8")


def test_a_gpu_has_none_and_auto_does_not_ask_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r'"int8" is of CPUs.*"fp16"'):
        ThreadSafeOCR(device="cuda", precision="int8")

    def no_gpu(*_: object) -> None:
        raise EngineUnavailableError("a GPU was asked for")

    monkeypatch.setattr(runtime, "may_use_gpu", lambda: True)
    monkeypatch.setattr(runtime, "use_cpu_instead", no_gpu)
    with ThreadSafeOCR(precision="int8") as integers:
        assert integers.recognize(LINES[0]).text
