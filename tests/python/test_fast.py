"""precision="fast" on a CPU: `v6-cascade-int8`, whose f32 networks multiply in bfloat16 where the processor has a matrix unit."""

from __future__ import annotations

import difflib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conftest import LINES, PAGES, Run, key
from threadsafe_ocr import ThreadSafeOCR

PRINT = PAGES / "docs_zh" / "qyxf-book-doc-p005.png"
CONTENTS = PAGES / "derived" / "qyxf-book-doc-p003_rot90.png"


def alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, "".join(one.split()), "".join(other.split()), autojunk=False).ratio()


def test_what_the_first_reader_cannot_know_is_read_again(ocr: ThreadSafeOCR) -> None:
    """The small recogniser has few traditional characters and takes others for them without a doubt."""
    page = PAGES.parent / "traditional.png"
    with ThreadSafeOCR(precision="fast") as fast:
        assert [line.text for line in fast.read(page).lines] == [line.text for line in ocr.read(page).lines]


def test_a_page_that_the_first_reader_is_not_sure_of_is_left_to_the_other_one() -> None:
    with ThreadSafeOCR("v6-cascade-int8") as cascade, ThreadSafeOCR(precision="int8") as other:
        assert key(cascade.read(CONTENTS)) == key(other.read(CONTENTS))


def test_a_page_that_the_first_reader_is_sure_of_is_its_own_but_for_some_lines() -> None:
    with ThreadSafeOCR("v6-cascade-int8") as cascade, ThreadSafeOCR(precision="int8") as other:
        read, again = key(cascade.read(PRINT)), key(other.read(PRINT))
    same = sum(one == another for one, another in zip(read, again, strict=True))
    assert 0 < same < len(read) / 2


def test_print_is_read_as_well_by_another_reader(ocr: ThreadSafeOCR) -> None:
    with ThreadSafeOCR(precision="fast") as fast:
        read, again = fast.read(PRINT), ocr.read(PRINT)
    assert alike(read.text, again.text) > 0.99
    assert key(read) != key(again)


def test_16_threads_get_the_lone_answers_to_the_last_bit() -> None:
    inputs = [*LINES, PRINT]
    with ThreadSafeOCR(precision="fast") as fast:
        alone = [key(fast.read(path)) for path in inputs]
        with ThreadPoolExecutor(16) as threads:
            together = list(threads.map(fast.read, inputs * 3))
    assert [key(page) for page in together] == alone * 3


def test_it_is_a_named_set_without_the_matrix_unit_and_as_good_with_it(run_python: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"""
        import json
        def said(models, precision):
            with ThreadSafeOCR(models, precision=precision, device="cpu") as ocr:
                pages = [ocr.read(page) for page in ({str(PRINT)!r}, {str(CONTENTS)!r})]
                return [[line.text, line.polygon.tolist(), line.score] for page in pages for line in page.lines]
        unit = threadsafe_ocr._core.has_matrix_unit()
        print(json.dumps([said("v6-small", "fast"), said("v6-cascade-int8", "f32"), unit]))
        """
    answers: dict[str, Any] = {}
    for wanted in ("0", "1"):
        monkeypatch.setenv("THREADSAFE_OCR_AMX", wanted)
        answers[wanted] = json.loads(run_python(script))
    without, named, _ = answers["0"]
    assert without == named
    assert len(without) > 40
    with_unit, _, has_unit = answers["1"]
    assert (with_unit == without) is not has_unit
    assert alike("".join(line[0] for line in with_unit), "".join(line[0] for line in without)) > 0.995
