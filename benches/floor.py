"""What this package adds to its networks: the bare networks' runs and whole reads of the same pages, in turns, A B A B.

    python benches/floor.py [--precision f32|int8|fast] [--clients 16] [--answers 48] [--rounds 3] [PAGE...]

The runs are those that ONNX Runtime writes down while each page is read alone (THREADSAFE_OCR_PROFILE): both looks of detection, every
line's orientation and reading. The floor does them again from Python, on sessions of its own, one page after the other in one loop a core,
each of one thread, all in ONNX Runtime's own kernels. The pages are arrays, those of tests/data/pages where none is given. Prints CPU
seconds a page, pages/s, both ratios, and what of the floor is whose.
Needs Linux and a machine without other work.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pages

# Recent versions otherwise write files and upload.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from threadsafe_ocr import ThreadSafeOCR, model_sets

SET = {"f32": "v6-small", "int8": "v6-small-int8", "fast": "v6-cascade-int8"}
# A network and the shape of its input.
Run = tuple[str, tuple[int, ...]]
# By which an engine sees, when it is made, that detection works.
TRIAL: Run = ("det", (1, 3, 32, 32))


def networks(precision: str) -> dict[str, str]:
    """Name -> file."""
    name = SET[precision]
    parts = [part for part in ("det", "cls", "rec", "rec_first") if part in model_sets.manifest()["sets"][name]["files"]]
    return {part: str(model_sets.part(name, part) / "inference.onnx") for part in parts}


def session(path: str, profile: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def read_by(precision: str, **options: Any) -> ThreadSafeOCR:
    return ThreadSafeOCR(precision=precision, **options)


def inputs(profile: Path) -> tuple[list[tuple[int, ...]], str]:
    """Of every page or line in a session's profile the shape, and by whom: the first weights, a line or not."""
    found = []
    for event in json.loads(profile.read_text()):
        shapes = [next(iter(shape.values())) for shape in event["args"].get("input_type_shape", [])]
        if shapes and len(shapes[0]) == 4 and shapes[0][1] == 3:
            found.append((tuple(shapes[0]), str(shapes[1:])))
    # Later nodes take 3 channels too, of integers. Two at once are the check of a session when it is made.
    first = found[0][1] if found else ""
    runs = [shape for shape, weights in found if weights == first and shape[0] == 1]
    return runs, f"{first} {bool(runs) and runs[0][2] == 48}"


def record(precision: str, files: list[Path]) -> list[list[Run]]:
    """The runs of every page."""
    with tempfile.TemporaryDirectory() as name:
        folder, owners = Path(name), {}
        for network, path in networks(precision).items():
            bare = session(path, folder / network)
            height = 64 if network == "det" else 48
            bare.run(None, {bare.get_inputs()[0].name: np.zeros((1, 3, height, 192), np.float32)})
            owners[inputs(Path(bare.end_profiling()))[1]] = network
        taken = []
        for i, file in enumerate(files):
            command = [sys.executable, __file__, "--read", precision, str(file)]
            subprocess.run(command, env={**os.environ, "THREADSAFE_OCR_PROFILE": str(folder / f"page{i}")}, check=True)
            profiles = list(folder.glob(f"page{i}-*.json"))
            sessions = sorted((told for profile in profiles if (told := inputs(profile))[0]), key=lambda told: len(told[0]), reverse=True)
            names = [owners[owner] for _, owner in sessions]
            taken.append([(name, shape) for name, (runs, _) in zip(names, sessions, strict=True) for shape in runs])
            taken[-1].remove(TRIAL)
            for profile in profiles:
                profile.unlink()
        return taken


def pixels(page: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A part of the page as a network's input: the whole of it, or a line from about its middle."""
    _, _, height, width = shape
    part = page if height > 48 else page[page.shape[0] // 2 :][:48]
    rows, columns = (np.linspace(0, side - 1, wanted).astype(int) for side, wanted in zip(part.shape, (height, width), strict=False))
    return np.ascontiguousarray(part[rows][:, columns].transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1)


def loops(count: int, answers: int, answer: Callable[[int], None]) -> dict[str, Any]:
    """Calls `answer` so often from `count` threads."""
    begin, used = time.perf_counter(), os.times()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(answer, range(answers)))
    seconds, now = time.perf_counter() - begin, os.times()
    user, system = ((after - before) / answers for before, after in zip(used[:2], now[:2], strict=True))
    return {"cpu": user + system, "system": system, "rate": answers / seconds}


def floor(precision: str, files: list[Path], answers: int, taken: list[list[Run]]) -> dict[str, Any]:
    sessions = {name: session(path) for name, path in networks(precision).items()}
    names = {name: bare.get_inputs()[0].name for name, bare in sessions.items()}
    work = [[(name, pixels(pages.page(file), shape)) for name, shape in runs] for file, runs in zip(files, taken, strict=True)]
    used: Counter[str] = Counter()

    def answer(turn: int) -> None:
        for name, tensor in work[turn % len(work)]:
            start = time.process_time()
            sessions[name].run(None, {names[name]: tensor})
            used[name] += time.process_time() - start

    for turn in range(min(len(work), 4)):
        answer(turn)
    figures = loops(measure.cores(), answers, answer)
    # The clock is the process's, so whose the time is shows when nothing else runs.
    used.clear()
    for turn in range(len(work)):
        answer(turn)
    return {**figures, "networks": {name: used[name] / len(work) for name in sessions}}


def whole(precision: str, files: list[Path], answers: int, clients: int) -> dict[str, Any]:
    images = [pages.page(file) for file in files]
    with read_by(precision) as ocr:
        ocr.warmup()
        list(ocr.read_many(images[:4]))
        return loops(clients, answers, lambda turn: ocr.read(images[turn % len(images)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--precision", choices=SET, default="f32")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--answers", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    for internal in ("--read", "--part"):
        parser.add_argument(internal, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        precision, file = arguments.read
        with read_by(precision, intra_op_num_threads=1) as ocr:
            ocr.read(pages.page(Path(file)))
        return
    files = arguments.pages or pages.names()
    if arguments.part:
        which, runs = arguments.part
        taken = [[(name, tuple(shape)) for name, shape in page] for page in json.loads(Path(runs).read_text())]
        common = (arguments.precision, files, arguments.answers)
        print(json.dumps(floor(*common, taken) if which == "floor" else whole(*common, arguments.clients)))
        return
    taken = record(arguments.precision, files)
    got: dict[str, list[dict[str, Any]]] = {"floor": [], "whole": []}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as runs:
        json.dump(taken, runs)
        runs.flush()
        for _ in range(arguments.rounds):
            for part, figures in got.items():
                command = [sys.executable, __file__, *sys.argv[1:], "--part", part, runs.name]
                figures.append(json.loads(subprocess.check_output(command)))
                print(part, figures[-1], file=sys.stderr, flush=True)
    cpu, system, rate = (
        {part: statistics.median(run[key] for run in figures) for part, figures in got.items()} for key in ("cpu", "system", "rate")
    )
    counts = Counter(name for page in taken for name, _ in page)
    print(f"CPU, s a page: floor {cpu['floor']:.3f}, whole {cpu['whole']:.3f}, ratio {cpu['whole'] / cpu['floor']:.3f}")
    print(f"of which the system's: floor {system['floor']:.3f}, whole {system['whole']:.3f}")
    print(f"pages/s: floor {rate['floor']:.3f}, whole {rate['whole']:.3f}, ratio {rate['whole'] / rate['floor']:.3f}")
    for name, count in counts.items():
        milliseconds = statistics.median(run["networks"][name] for run in got["floor"]) * 1e3
        print(f"{name}: {count / len(files):.1f} runs a page, {milliseconds:.0f} ms")


if __name__ == "__main__":
    main()
