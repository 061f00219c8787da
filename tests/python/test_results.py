"""What a call answers, and what an engine is to Python: frozen, picklable, told apart by their reprs."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

import threadsafe_ocr
from conftest import LINES, TEXT, key
from threadsafe_ocr import OcrError, OcrResult, TextLine, ThreadSafeOCR


@pytest.fixture(scope="module")
def page(ocr: ThreadSafeOCR) -> OcrResult:
    return ocr.read(LINES[0])


def test_a_result_says_where_each_line_is(page: OcrResult) -> None:
    (line,) = page.lines
    x0, y0, x1, y1 = line.box
    assert 0 <= x0 < x1 <= page.width
    assert 0 <= y0 < y1 <= page.height
    assert (line.polygon.dtype, line.polygon.shape) == (np.float32, (4, 2))
    assert line.polygon.min(axis=0).tolist() == [x0, y0]
    assert line.polygon.max(axis=0).tolist() == [x1, y1]
    assert 0.9 < line.score <= 1
    assert (line.text, page.text) == (TEXT, TEXT)


def test_a_result_is_plain_json(page: OcrResult) -> None:
    plain = page.to_dict()
    assert json.loads(page.to_json()) == plain
    assert json.loads(page.to_json(indent=2)) == plain
    assert plain["lines"][0] == page.lines[0].to_dict()
    assert plain["lines"][0]["text"] == TEXT
    assert OcrResult((TextLine("\u6587", 1.0, np.zeros((4, 2), np.float32)),), 1, 1).to_json().count("\u6587") == 1


def test_a_result_says_what_each_step_took_and_is_equal_to_a_slower_one(ocr: ThreadSafeOCR) -> None:
    start = time.perf_counter()
    page = ocr.read(LINES[0])
    whole = time.perf_counter() - start
    assert page.seconds is not None
    assert page.seconds._fields == ("decode", "detection", "orientation", "recognition")
    assert min(page.seconds) > 0
    assert sum(page.seconds) <= whole
    assert page == dataclasses.replace(page, seconds=None)
    assert pickle.loads(pickle.dumps(page)).seconds == page.seconds


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(OcrResult)])
def test_a_result_is_frozen(page: OcrResult, name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(page, name, None)
    with pytest.raises(TypeError):
        page.lines[0] = None  # type: ignore[index]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TextLine)])
def test_a_line_is_frozen(page: OcrResult, name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(page.lines[0], name, None)
    with pytest.raises(ValueError, match="read-only"):
        page.lines[0].polygon[0, 0] = 3


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_results_survive_pickling_and_copying(page: OcrResult, protocol: int) -> None:
    for twin in (pickle.loads(pickle.dumps(page, protocol)), copy.copy(page), copy.deepcopy(page)):
        assert twin == page
        assert hash(twin) == hash(page)
        assert key(twin) == key(page)
        assert twin.lines[0].upside_down is page.lines[0].upside_down
        assert not twin.lines[0].polygon.flags.writeable
    other = dataclasses.replace(page, width=page.width + 1)
    assert other != page
    assert page != "page"
    assert page.lines[0] != "line"


def test_reprs_are_short_and_say_the_text(page: OcrResult) -> None:
    assert repr(page.lines[0]) == f"TextLine(text={TEXT!r}, score={page.lines[0].score!r})"
    assert repr(page) == f"OcrResult(lines=({page.lines[0]!r},), width={page.width}, height={page.height})"


def test_errors_survive_pickling() -> None:
    kinds = [kind for kind in vars(threadsafe_ocr).values() if isinstance(kind, type) and issubclass(kind, OcrError)]
    assert len(kinds) == 15
    for kind in kinds:
        error = pickle.loads(pickle.dumps(kind("what was wrong")))
        assert type(error) is kind
        assert str(error) == "what was wrong"


def test_a_missing_files_error_survives_pickling(ocr: ThreadSafeOCR) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        ocr.read("missing.png")
    twin = pickle.loads(pickle.dumps(missing.value))
    assert (type(twin), twin.errno, twin.filename) == (threadsafe_ocr.ImageNotFoundError, 2, "missing.png")


def test_an_engine_pickles_as_its_arguments() -> None:
    models = Path(threadsafe_ocr.__file__).parent / "models" / "v6-small"
    for arguments, settings in (((), {}), (("v6-small",), {"rec_score_thresh": 1.0, "device": "cpu"}), ((models,), {"max_pixels": 10})):
        with ThreadSafeOCR(*arguments, **settings) as engine:
            for make in (lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy):
                with make(engine) as twin:
                    assert twin is not engine
                    assert answers(twin) == answers(engine)


def answers(engine: ThreadSafeOCR) -> object:
    try:
        return key(engine.read(LINES[0]))
    except OcrError as error:
        return str(error)


def test_a_subclass_pickles_as_itself() -> None:
    with Mine(rec_score_thresh=1.0) as engine, pickle.loads(pickle.dumps(engine)) as twin:
        assert type(twin) is Mine
        assert twin.read(LINES[0]).lines == ()


class Mine(ThreadSafeOCR):
    """A user's own."""


def test_the_public_names_are_importable() -> None:
    assert threadsafe_ocr.__all__ == sorted(threadsafe_ocr.__all__)
    assert all(hasattr(threadsafe_ocr, name) for name in threadsafe_ocr.__all__)
    errors = {kind.__name__ for kind in vars(threadsafe_ocr.exceptions).values() if isinstance(kind, type)}
    assert errors <= set(threadsafe_ocr.__all__), "an error that a user cannot catch by name"


def test_stats_count_what_was_done() -> None:
    with ThreadSafeOCR() as engine:
        engine.read(LINES[0])
        with pytest.raises(OcrError):
            engine.read(LINES[0].read_bytes()[:-1000])
        for refused, options in ((b"no image", {}), ("missing.png", {}), (LINES[0], {"det_thresh": 5})):
            with pytest.raises(OcrError):
                engine.read(refused, **options)
        stats = engine.stats()
    ended = {name: stats[name] for name in ("answered", "failed", "rejected", "cancelled", "timed_out")}
    assert ended == {"answered": 1, "failed": 1, "rejected": 0, "cancelled": 0, "timed_out": 0}, "what is refused at the door is no request"
    assert (stats["queue_size"], stats["queue_bytes"]) == (0, 0)
    assert stats["run_size"]["mean"] >= 1
    assert stats["lines"] == 1
    seconds = stats["inference_seconds"]
    stages = [seconds[stage] for stage in ("detection", "orientation", "recognition")]
    assert [stage["count"] > 0 for stage in stages] == [True] * 3
    assert sum(stage["sum"] for stage in stages) == pytest.approx(seconds["sum"])
    assert seconds["sum"] > 0
