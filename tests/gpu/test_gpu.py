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
        ocr.warmup()
        yield ocr


@pytest.fixture(scope="module")
def alone(gpu: ThreadSafeOCR) -> dict[Path, OcrResult]:
    """What the card reads on each page while nothing else is read."""
    return {path: gpu.read(path) for path in PAGES}


def equal_lines(a: OcrResult, b: OcrResult) -> list[tuple[int, int]]:
    """Pairs of lines of equal text, in order."""
    blocks = SequenceMatcher(None, [line.text for line in a.lines], [line.text for line in b.lines], autojunk=False).get_matching_blocks()
    return [(block.a + i, block.b + i) for block in blocks for i in range(block.size)]


@pytest.fixture(scope="module")
def on_cpu() -> dict[Path, OcrResult]:
    with ThreadSafeOCR(device="cpu") as cpu:
        return dict(zip(PAGES, cpu.read_many(PAGES), strict=True))


def test_text_is_that_of_the_cpu(alone: dict[Path, OcrResult], on_cpu: dict[Path, OcrResult]) -> None:
    equal = sum(len(equal_lines(alone[path], on_cpu[path])) for path in PAGES)
    total = sum(max(len(alone[path].lines), len(on_cpu[path].lines)) for path in PAGES)
    pairs = [(alone[path].lines[i], on_cpu[path].lines[k]) for path in PAGES for i, k in equal_lines(alone[path], on_cpu[path])]
    largest = max(abs(a.score - b.score) for a, b in pairs if (a.polygon == b.polygon).all())
    print(f"{equal} of {total} lines have equal text, scores of equal boxes within {largest:.2g}")
    assert total > 300 and equal >= 0.995 * total
    # Wider inputs than the CPU's.
    assert largest < 0.1


def test_half_precision_reads_nearly_the_same_characters(on_cpu: dict[Path, OcrResult]) -> None:
    with ThreadSafeOCR(device="cuda", precision="fp16") as half:
        pages = dict(zip(PAGES, half.read_many(PAGES), strict=True))
    equal = sum(len(equal_lines(pages[path], on_cpu[path])) for path in PAGES)
    total = sum(max(len(pages[path].lines), len(on_cpu[path].lines)) for path in PAGES)
    wrong = characters = 0
    for path in PAGES:
        ours, theirs = pages[path].text, on_cpu[path].text
        same = sum(block.size for block in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks())
        wrong += max(len(ours), len(theirs)) - same
        characters += len(theirs)
    print(f"fp16: {equal} of {total} lines have equal text, {wrong} of {characters} characters differ")
    assert wrong <= 0.002 * characters


def test_64_threads_read_ten_pages_each_and_get_the_lone_answers(gpu: ThreadSafeOCR, alone: dict[Path, OcrResult]) -> None:
    errors: list[BaseException] = []
    equal = total = 0
    largest = 0.0
    lock = threading.Lock()

    def client(number: int) -> None:
        nonlocal equal, total, largest
        for k in range(10):
            path = PAGES[(number + k) % len(PAGES)]
            try:
                page = gpu.read(path)
            except Exception as error:  # noqa: BLE001 (told below)
                errors.append(error)
                continue
            pairs = equal_lines(page, alone[path])
            with lock:
                equal += len(pairs)
                largest = max([largest, *(abs(page.lines[i].score - alone[path].lines[k].score) for i, k in pairs)])
                total += max(len(page.lines), len(alone[path].lines))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(
        f"{equal} of {total} lines of 640 reads have the lone text, scores within {largest:.2g}; {gpu.stats()['run_size']['mean']:.1f} items a run"
    )
    assert not errors
    assert total > 0 and equal == total
    assert largest < 1e-3


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


def run(script: str, *arguments: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, which must end by itself."""
    code = "import threadsafe_ocr, sys, os, threading\nfrom threadsafe_ocr import *\n" + textwrap.dedent(script)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=200, check=False)


def test_a_process_ends_with_work_in_flight() -> None:
    done = run(
        """
        ocr = ThreadSafeOCR(device="cuda")
        ocr.recognize(sys.argv[1])
        pending = [ocr.submit(path) for path in sys.argv[2:] * 20]
        print("submitted", len(pending))
        """, LINES[0], *PAGES[:3],
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()[0]) == (0, "submitted"), done.stderr


def test_a_child_forked_after_cuda_started_is_told_so_and_the_parent_goes_on() -> None:
    done = run(
        """
        ocr = ThreadSafeOCR(device="cuda")
        text = ocr.recognize(sys.argv[1]).text
        child = os.fork()
        if child == 0:
            try:
                ocr.recognize(sys.argv[1])
            except EngineUnavailableError as error:
                os._exit(17 if "spawn" in str(error) else 18)
            os._exit(19)
        assert os.waitpid(child, 0)[1] >> 8 == 17
        assert ocr.recognize(sys.argv[1]).text == text
        print("ok")
        """, LINES[0],
    )  # fmt: skip
    assert done.stdout == "ok\n", done.stderr


def test_a_child_forked_before_cuda_started_uses_the_card() -> None:
    done = run(
        """
        child = os.fork()
        text = ThreadSafeOCR(device="cuda").recognize(sys.argv[1]).text
        if child == 0:
            os._exit(0 if text else 1)
        assert os.waitpid(child, 0)[1] == 0
        print("ok")
        """, LINES[0],
    )  # fmt: skip
    assert done.stdout == "ok\n", done.stderr


def test_an_error_that_ends_the_card_fails_requests_with_advice_and_the_cpu_goes_on() -> None:
    pytest.importorskip("torch", reason="PyTorch provokes the error")
    done = run(
        """
        import torch
        ocr, cpu = ThreadSafeOCR(device="cuda"), ThreadSafeOCR(device="cpu")
        text = ocr.recognize(sys.argv[1]).text
        try:
            torch.zeros(1, device="cuda")[torch.tensor([7], device="cuda")].sum().item()
        except RuntimeError as error:
            print("torch:", str(error).splitlines()[0], file=sys.stderr)
        for _ in range(2):
            try:
                ocr.recognize(sys.argv[1])
            except EngineUnavailableError as error:
                assert "lost to this process" in str(error), error
            else:
                raise SystemExit("it read on")
        try:
            ThreadSafeOCR(device="cuda")
        except EngineUnavailableError as error:
            assert "lost to this process" in str(error), error
        else:
            raise SystemExit("a new object used the card")
        assert ThreadSafeOCR().recognize(sys.argv[1]).text == text
        assert cpu.recognize(sys.argv[1]).text == text
        print("ok")
        """, LINES[0],
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_a_page_for_which_the_card_has_no_memory_fails_alone() -> None:
    pytest.importorskip("torch", reason="PyTorch takes the memory")
    done = run(
        """
        import numpy, torch
        ocr = ThreadSafeOCR(device="cuda")
        text = ocr.recognize(sys.argv[1]).text
        page = numpy.full((3200, 2400, 3), 255, numpy.uint8)
        torch.zeros(1, device="cuda")
        free, _ = torch.cuda.mem_get_info()
        hog = torch.empty(free - (300 << 20), dtype=torch.uint8, device="cuda")
        try:
            ocr.detect(page, det_limit_type="min", det_limit_side_len=1)
        except InferenceError as error:
            print("told:", error, file=sys.stderr)
        else:
            raise SystemExit("there was memory")
        assert ocr.recognize(sys.argv[1]).text == text
        del hog
        torch.cuda.empty_cache()
        assert not ocr.detect(page, det_limit_type="min", det_limit_side_len=1).lines
        print("ok")
        """, LINES[0],
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
