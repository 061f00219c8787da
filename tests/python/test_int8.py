"""precision="int8": recognition in integers of 8 bits, on any CPU."""

from __future__ import annotations

import difflib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from conftest import HAS_UNIT, LINES, PAGES, key
from threadsafe_ocr import ConfigError, EngineUnavailableError, ThreadSafeOCR, card_models, model_sets, runtime

PRINT = PAGES / "docs_zh" / "qyxf-book-doc-p005.png"


def test_integers_read_print_as_well_and_find_the_same_lines(ocr: ThreadSafeOCR) -> None:
    with ThreadSafeOCR(precision="int8") as integers:
        read, again = integers.read(PRINT), ocr.read(PRINT)
    assert [line.polygon.tobytes() for line in read.lines] == [line.polygon.tobytes() for line in again.lines]
    assert difflib.SequenceMatcher(None, "".join(read.text.split()), "".join(again.text.split()), autojunk=False).ratio() > 0.99
    assert key(read) != key(again), "it is another reader"


@pytest.mark.parametrize("name", ["scans_en/huckleberry-finn-p029.jpg", "derived/qyxf-book-doc-p008_phone.jpg", "formats/cmyk.jpg"])
def test_integers_read_scans_and_photographs_as_well(ocr: ThreadSafeOCR, name: str) -> None:
    entries = map(json.loads, (PAGES / "truth.jsonl").read_text(encoding="utf-8").splitlines())
    truth = next("".join(entry["full_text"].split()) for entry in entries if entry["file"] == name)

    def right(reader: ThreadSafeOCR) -> float:
        read = "".join(reader.read(PAGES / name).text.split())
        return difflib.SequenceMatcher(None, read, truth, autojunk=False).ratio()

    with ThreadSafeOCR(precision="int8") as integers:
        assert right(integers) > max(0.8, right(ocr) - 0.01)


def test_what_integers_say_does_not_depend_on_what_else_is_read() -> None:
    with ThreadSafeOCR(precision="int8") as integers:
        alone = [integers.recognize(line) for line in LINES]
        with ThreadPoolExecutor(16) as threads:
            crowd = list(threads.map(integers.recognize, LINES * 4))
    assert [(line.text, line.score) for line in crowd] == [(line.text, line.score) for line in alone] * 4


def test_a_cascade_has_integers_too_and_other_sets_name_what_they_have(ocr: ThreadSafeOCR) -> None:
    twice = PAGES / "derived" / "qyxf-book-doc-p003_rot90.png"
    with ThreadSafeOCR("v6-cascade", precision="int8") as cascade, ThreadSafeOCR("v6-cascade-int8") as named:
        assert key(cascade.read(twice)) == key(named.read(twice))
        with ThreadSafeOCR("v6-cascade") as f32:
            assert key(named.read(twice)) != key(f32.read(twice)) == key(ocr.read(twice))
    with pytest.raises(ConfigError, match="'v6-tiny' have: f32"):
        ThreadSafeOCR("v6-tiny", precision="int8")


def test_models_in_integers_have_no_other_precision(ocr: ThreadSafeOCR) -> None:
    with ThreadSafeOCR("v6-small-int8") as named, ThreadSafeOCR("v6-small-int8", precision="int8") as same:
        assert key(named.read(PRINT)) == key(same.read(PRINT)) != key(ocr.read(PRINT))
    for precision in ("fp16", "bf16", "fast"):
        with pytest.raises(ConfigError, match="are int8"):
            ThreadSafeOCR("v6-small-int8", precision=precision)
    with pytest.raises(ConfigError, match=r'"int8" is of CPUs'):
        ThreadSafeOCR("v6-small-int8", device="cuda")


def test_a_gpu_has_none_and_auto_does_not_ask_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r'"int8" is of CPUs.*"fp16"'):
        ThreadSafeOCR(device="cuda", precision="int8")

    def no_gpu(*_: object) -> None:
        raise EngineUnavailableError("a GPU was asked for")

    monkeypatch.setattr(runtime, "may_use_gpu", lambda: True)
    monkeypatch.setattr(runtime, "use_cpu_instead", no_gpu)
    with ThreadSafeOCR(precision="int8") as integers:
        assert integers.recognize(LINES[0]).text


def test_fast_reads_again_in_integers_on_a_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def no_gpu(models: Any, precision: str) -> dict[Path, Path]:
        asked.append((models, precision))
        raise EngineUnavailableError("there is no GPU")

    monkeypatch.setattr(runtime, "start", lambda device: None)
    monkeypatch.setattr(card_models, "on_card", no_gpu)
    with pytest.raises(EngineUnavailableError):
        ThreadSafeOCR(device="cuda", precision="fast")
    assert asked == [("v6-cascade", "fast")]


def test_fast_is_there_with_a_manifest_that_knows_no_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = model_sets.manifest()
    for model_set in known["sets"].values():
        model_set.get("precisions", {}).pop("int8", None)
    for folder in model_sets.folder().iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").write_text(json.dumps(known), encoding="utf-8")
    monkeypatch.setenv("THREADSAFE_OCR_MODEL_DIR", str(tmp_path))
    precision = "bf16" if HAS_UNIT else "f32"
    with ThreadSafeOCR(precision="fast") as fast, ThreadSafeOCR("v6-cascade", precision=precision) as named:
        assert key(fast.read(PRINT)) == key(named.read(PRINT))
