"""`threadsafe-ocr bench`: how many pages a second this machine reads."""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from pathlib import Path
from typing import Any

from threadsafe_ocr import OcrError, ThreadSafeOCR
from threadsafe_ocr.cli.common import add_engine, add_paths, engine, files, seconds

CLIENTS = (1, 4, 16)


def add_to(commands: Any) -> None:
    """The arguments."""
    command = commands.add_parser(
        "bench",
        help="measure pages/s at 1, 4 and 16 clients",
        description="Clients on threads share one object; each reads page after page.",
    )
    add_paths(command)
    add_engine(command)
    command.add_argument("--seconds", type=seconds, default=10.0, help="time for each number of clients, at least (default: 10)")
    command.set_defaults(run=run, error=command.error)


def run(arguments: argparse.Namespace) -> int:
    """Prints a row a number of clients; 1 when a page cannot be read."""
    unreadable: list[OSError] = []
    # One image, one request.
    pages = [path for path in files(arguments.paths, unreadable.append) if path.suffix.lower() != ".pdf"]
    if unreadable:
        raise unreadable[0]
    if not pages:
        print("no images found", file=sys.stderr)
        return 1
    with engine(arguments) as ocr:
        try:
            for page in pages:  # before time counts: models load, files come into the system's cache, and all can be read
                ocr.read(page)
        except OcrError as error:
            print(f"{page}: {error}", file=sys.stderr)
            return 1
        print(f"{len(pages)} pages, models {arguments.models}, precision {arguments.precision}, device {arguments.device}")
        print(f"{'clients':>7} {'pages/s':>8} {'CPU s/page':>11} {'p50 s':>7} {'p99 s':>7}", flush=True)
        for clients in CLIENTS:
            print(measure(ocr, pages, clients, arguments.seconds), flush=True)
    return 0


def measure(ocr: ThreadSafeOCR, pages: list[Path], clients: int, seconds: float) -> str:
    """One row: whole rounds over the pages, until the time is over."""
    numbers = itertools.count()
    took: list[float] = []
    failed: list[BaseException] = []
    rounds_end = threading.Event()
    start, cpu = time.perf_counter(), time.process_time()

    def client() -> None:
        try:
            while not rounds_end.is_set():
                number = next(numbers)
                if number % len(pages) == 0 and number and time.perf_counter() - start > seconds:
                    rounds_end.set()
                    return
                began = time.perf_counter()
                ocr.read(pages[number % len(pages)])
                took.append(time.perf_counter() - began)
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            failed.append(error)
            rounds_end.set()

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    took.sort()
    p50, p99 = (took[min(int(len(took) * share), len(took) - 1)] for share in (0.5, 0.99))
    return f"{clients:>7} {len(took) / wall:>8.2f} {cpu / len(took):>11.2f} {p50:>7.2f} {p99:>7.2f}"
