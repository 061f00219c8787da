"""One run of side_by_side.py: side_by_side_loop.py ENGINE CLIENTS ANSWERS PAGES. Prints a JSON object.

PAGES is a JSON file of [path, Tesseract's language] pairs. Runs in the engine's own environment.
"""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pages

# Texts and boxes of a page: a path, its array, its language.
Lines = list[tuple[str, list[list[float]]]]
Read = Callable[[tuple[str, Any, str]], Lines]

MODELS = Path(__file__).parents[1] / "models" / "v6-small"


def pairs(texts: Any, boxes: Any) -> Lines:
    texts, boxes = ([] if values is None else values for values in (texts, boxes))
    return [(text, np.asarray(box, float).tolist()) for text, box in zip(texts, boxes, strict=True)]


def rapid(**parameters: Any) -> Read:
    from rapidocr import RapidOCR

    logging.disable(logging.WARNING)
    ocr = RapidOCR(params=parameters or None)

    def read(page: tuple[str, Any, str]) -> Lines:
        found = ocr(page[1])
        return pairs(found.txts, found.boxes)

    return read


def rapid_single() -> Read:
    return rapid(**{"EngineConfig.onnxruntime.intra_op_num_threads": 1})


def rapid_lock() -> Read:
    read, lock = rapid(), threading.Lock()

    def one_at_a_time(page: tuple[str, Any, str]) -> Lines:
        with lock:
            return read(page)

    return one_at_a_time


_read: Read | None = None


def _make() -> None:
    global _read
    _read = rapid()


def _call(page: tuple[str, Any, str]) -> Lines:
    assert _read
    return _read(page)


def rapid_pool() -> Read:
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), _make)
    return lambda page: pool.submit(_call, page).result()


def paddle() -> Read:
    os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"
    from paddleocr import PaddleOCR

    logging.disable(logging.WARNING)
    # Its models for turned pages and lines are not in its wheel.
    off = dict.fromkeys(("use_doc_orientation_classify", "use_doc_unwarping", "use_textline_orientation"), False)
    names = {f"text_{task}_model_name": f"PP-OCRv6_small_{part}" for task, part in (("detection", "det"), ("recognition", "rec"))}
    folders = {f"text_{task}_model_dir": str(MODELS / part) for task, part in (("detection", "det"), ("recognition", "rec"))}
    ocr = PaddleOCR(engine="onnxruntime", device="cpu", **off, **names, **folders)

    def read(page: tuple[str, Any, str]) -> Lines:
        found = ocr.predict(page[1])[0]
        return pairs(found["rec_texts"], found["rec_polys"])

    return read


def mineru() -> Read:
    from mineru.model.ocr.pp_ocr_v6_onnx import PPOCRv6ONNX

    ocr = PPOCRv6ONNX(*(str(MODELS / part / "inference.onnx") for part in ("det", "rec")))

    def read(page: tuple[str, Any, str]) -> Lines:
        found = ocr.ocr(page[1])[0] or []
        return pairs([text for _, (text, _) in found], [box for box, _ in found])

    return read


def tesseract() -> Read:
    """A process a page, one thread each, as many at once as there are cores."""
    free = threading.Semaphore(measure.cores())
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}

    def read(page: tuple[str, Any, str]) -> Lines:
        with free:
            command = ["tesseract", page[0], "stdout", "-l", page[2], "tsv"]
            table = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
            ).stdout
        lines = defaultdict(list)
        for word in csv.DictReader(table.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE):
            if word["level"] == "5" and word["text"].strip():
                lines[word["block_num"], word["par_num"], word["line_num"]].append(word)
        found = []
        for words in lines.values():
            left, top, width, height = (np.array([int(word[side]) for word in words]) for side in ("left", "top", "width", "height"))
            x0, y0, x1, y1 = map(float, (left.min(), top.min(), (left + width).max(), (top + height).max()))
            found.append((" ".join(word["text"] for word in words), [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
        return found

    return read


def ours(**settings: Any) -> Read:
    from threadsafe_ocr import ThreadSafeOCR

    ocr = ThreadSafeOCR(**settings)

    def read(page: tuple[str, Any, str]) -> Lines:
        found = ocr.read(page[1]).lines
        return pairs([line.text for line in found], [line.polygon for line in found])

    return read


def ours_fast() -> Read:
    return ours(precision="fast")


def ours_int8() -> Read:
    return ours(precision="int8")


def ours_bf16() -> Read:
    return ours(precision="bf16")


def ours_tiny() -> Read:
    return ours(models="v6-tiny")


def ours_rapid() -> Read:
    from threadsafe_ocr.compat.rapidocr import RapidOCR

    ocr = RapidOCR()

    def read(page: tuple[str, Any, str]) -> Lines:
        found = ocr(page[1])
        return pairs(found.txts, found.boxes)

    return read


PEERS = (rapid, rapid_single, rapid_lock, rapid_pool, paddle, mineru, tesseract)
MAKERS = (*PEERS, ours_rapid, ours, ours_int8, ours_fast, ours_bf16, ours_tiny)
ENGINES = {maker.__name__: maker for maker in MAKERS}


def cpu() -> float:
    """Seconds of this process, of a pool's, and of those that ended."""
    ticks = os.sysconf("SC_CLK_TCK")
    times = os.times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def quantile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def main() -> None:
    engine, clients, answers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.setpgid(0, 0)
    images = [(path, pages.page(Path(path)), language) for path, language in json.loads(Path(sys.argv[4]).read_text())]
    begin = time.perf_counter()
    read = ENGINES[engine]()
    texts = [read(images[0])]
    first = time.perf_counter() - begin
    with ThreadPoolExecutor(min(clients, 4)) as warm:
        texts.extend(warm.map(read, images[1:]))

    def timed(turn: int) -> float:
        start = time.perf_counter()
        read(images[turn % len(images)])
        return time.perf_counter() - start

    with measure.sampled(lambda: measure.proportional_of_group(os.getpid()), 0.5) as sizes:
        begin, used = time.perf_counter(), cpu()
        with ThreadPoolExecutor(clients) as pool:
            times = list(pool.map(timed, range(answers)))
        seconds, used = time.perf_counter() - begin, cpu() - used
    quantiles = {f"p{percent}": quantile(times, percent / 100) for percent in (50, 95, 99)}
    memory = max(sizes, default=0.0)
    figures = {"rate": answers / seconds, "cpu": used / answers, **quantiles, "memory": memory, "first": first, "texts": texts}
    print(json.dumps(figures), flush=True)
    for child in multiprocessing.active_children():
        child.kill()  # it would keep the output open
    os._exit(0)  # some engines' end takes long


if __name__ == "__main__":
    main()
