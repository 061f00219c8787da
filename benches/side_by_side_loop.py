"""One run of side_by_side.py: side_by_side_loop.py ENGINE CLIENTS ANSWERS. Prints a JSON object."""

from __future__ import annotations

import itertools
import json
import logging
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import measure
import pages

Read = Callable[[Any], Any]


def rapid() -> Read:
    from rapidocr import RapidOCR

    logging.disable(logging.WARNING)
    return RapidOCR()


def rapid_lock() -> Read:
    read, lock = rapid(), threading.Lock()

    def one_at_a_time(page: Any) -> Any:
        with lock:
            return read(page)

    return one_at_a_time


_read: Read | None = None


def _make() -> None:
    global _read
    _read = rapid()


def _call(page: Any) -> int:
    assert _read
    return len(_read(page).txts or ())


def rapid_pool() -> Read:
    pool = ProcessPoolExecutor(measure.cores(), multiprocessing.get_context("spawn"), _make)
    return lambda page: pool.submit(_call, page).result()


def ours(**settings: Any) -> Read:
    from threadsafe_ocr import ThreadSafeOCR

    return ThreadSafeOCR(**settings).read


def ours_fast() -> Read:
    return ours(precision="fast")


def ours_rapid() -> Read:
    from threadsafe_ocr.compat.rapidocr import RapidOCR

    return RapidOCR()


ENGINES = {engine.__name__: engine for engine in (rapid, rapid_lock, rapid_pool, ours_rapid, ours, ours_fast)}


def cpu() -> float:
    """Seconds of this process and of a pool's."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = time.process_time()
    for child in multiprocessing.active_children():
        with open(f"/proc/{child.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def main() -> None:
    engine, clients, answers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.setpgid(0, 0)
    images = [pages.page(path) for path in pages.names()]
    read = ENGINES[engine]()
    with ThreadPoolExecutor(min(clients, 4)) as warm:
        list(warm.map(read, images))
    peak, ended = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.5):
            peak = max(peak, measure.proportional_of_group(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    turns, times = itertools.count(), []
    begin, used = time.perf_counter(), cpu()

    def client(_: int) -> None:
        while (turn := next(turns)) < answers:
            start = time.perf_counter()
            read(images[turn % len(images)])
            times.append(time.perf_counter() - start)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    seconds, used = time.perf_counter() - begin, cpu() - used
    ended.set()
    watcher.join()
    figures = {"rate": answers / seconds, "cpu": used / answers, "p50": statistics.median(times), "longest": max(times), "memory": peak}
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
