"""Reading on a real GPU: `make test-gpu`, or `python -m pytest tests/gpu` where this package and a GPU build of ONNX Runtime are installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from threadsafe_ocr import EngineUnavailableError, OcrResult, ThreadSafeOCR

DATA = Path(__file__).parents[1] / "data" / "pages"
PAGES = [path for folder in ("docs_en", "docs_zh", "scans_en", "derived") for path in sorted((DATA / folder).iterdir())]
LINES = sorted((DATA / "rec_lines").glob("*.png"))


@pytest.fixture(scope="module")
def gpu() -> Iterator[ThreadSafeOCR]:
    with ThreadSafeOCR(device="cuda") as ocr:
        yield ocr


@pytest.fixture(scope="module")
def alone(gpu: ThreadSafeOCR) -> dict[Path, OcrResult]:
    """What the card reads on each page while nothing else is read."""
    return {path: gpu.read(path) for path in PAGES}


def equal_lines(a: OcrResult, b: OcrResult) -> list[tuple[int, int]]:
    """Pairs of lines of equal text, in order."""
    blocks = SequenceMatcher(None, [line.text for line in a.lines], [line.text for line in b.lines], autojunk=False).get_matching_blocks()
    return [(block.a + i, block.b + i) for block in blocks for i in range(block.size)]


def test_text_and_scores_are_those_of_the_cpu(gpu: ThreadSafeOCR, alone: dict[Path, OcrResult]) -> None:
    equal = total = 0
    differences = []
    with ThreadSafeOCR(device="cpu") as cpu:
        for path, on_gpu in alone.items():
            on_cpu = cpu.read(path)
            pairs = equal_lines(on_gpu, on_cpu)
            equal += len(pairs)
            total += max(len(on_gpu.lines), len(on_cpu.lines))
            # A box that differs by a pixel is another input, whose score may differ by more.
            same = [(on_gpu.lines[i], on_cpu.lines[k]) for i, k in pairs]
            differences += [abs(a.score - b.score) for a, b in same if (a.polygon == b.polygon).all()]
        crops = list(zip(gpu.recognize(LINES), cpu.recognize(LINES), strict=True))
    equal += sum(a.text == b.text for a, b in crops)
    total += len(crops)
    differences += [abs(a.score - b.score) for a, b in crops if a.text == b.text]
    assert total > 300 and equal >= 0.995 * total, f"{equal} of {total} lines have equal text"
    assert len(differences) > total / 2, "most boxes differ"
    print(f"{equal} of {total} lines have equal text; largest difference of {len(differences)} scores: {max(differences):.2g}")
    assert max(differences) < 1e-3


def test_64_threads_read_ten_pages_each_and_get_the_lone_answers(gpu: ThreadSafeOCR, alone: dict[Path, OcrResult]) -> None:
    errors: list[BaseException] = []
    equal = total = 0
    lock = threading.Lock()

    def client(number: int) -> None:
        nonlocal equal, total
        for k in range(10):
            path = PAGES[(number + k) % len(PAGES)]
            try:
                page = gpu.read(path)
            except Exception as error:  # noqa: BLE001 (told below)
                errors.append(error)
                continue
            with lock:
                equal += len(equal_lines(page, alone[path]))
                total += max(len(page.lines), len(alone[path].lines))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{equal} of {total} lines of 640 reads have the lone text; runs of {gpu.stats()['run_size']['mean']:.1f} items")
    assert not errors
    assert total > 0 and equal >= 0.995 * total


def test_sessions_are_made_and_run_by_the_cards_workers_on_the_cuda_provider(tmp_path: Path) -> None:
    script = """
        import json, os, sys, threading
        import threadsafe_ocr
        ocr = threadsafe_ocr.ThreadSafeOCR(device="cuda")
        threads = [threading.Thread(target=ocr.read, args=(path,)) for path in sys.argv[1:]]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        names = {task: open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")}
        ocr.close()
        del ocr, threads
        threadsafe_ocr.unload()
        print(json.dumps(names))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, PAGES[:8])],
        env={**os.environ, "THREADSAFE_OCR_PROFILE": str(tmp_path / "run")},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = json.loads(done.stdout)
    events = [event for path in sorted(tmp_path.glob("run-*.json")) for event in json.loads(path.read_text())]
    makers = {names.get(str(event["tid"])) for event in events if event["name"] == "session_initialization"}
    assert makers == {f"ocr-cuda0-{net}{worker}" for net in ("det", "cls", "rec") for worker in (0, 1)}
    assert {names.get(str(event["tid"])) for event in events} == makers, "something ran on another thread"
    nodes = [event["args"] for event in events if event["cat"] == "Node" and event["args"].get("provider")]
    providers = Counter(node["provider"] for node in nodes)
    print("runs of nodes by provider:", dict(providers))
    assert providers["CUDAExecutionProvider"] > 0.9 * len(nodes)
    assert {node["provider"] for node in nodes if node["op_name"] in ("Conv", "MatMul", "Gemm")} == {"CUDAExecutionProvider"}


def test_auto_uses_the_card(gpu: ThreadSafeOCR) -> None:
    before = gpu.stats()["run_size"]["count"]
    with ThreadSafeOCR() as auto:
        auto.read(LINES[0])
    # The device's counters are shared by all objects on it.
    assert gpu.stats()["run_size"]["count"] > before


def test_a_card_that_is_not_there_is_named(gpu: ThreadSafeOCR) -> None:
    cards = len(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60).stdout.splitlines())
    with pytest.raises(EngineUnavailableError, match="There is no GPU of this number"):
        ThreadSafeOCR(device=f"cuda:{cards}")
    # The card that is there goes on.
    assert gpu.read(LINES[0]).lines
