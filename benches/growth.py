"""How cost grows with clients, with lines a page, with a page's size, with pages in a run.

    python benches/growth.py [--parts clients lines size run]

Every part is a process of its own in which one quantity grows and nothing else changes. The slope is that of the logarithms, 1 where the
CPU time grows as the quantity does: over everything, and over the last decade, where a cost that does not grow hides little. Written to
docs/performance.md. Needs Linux and a machine without other work; about ten minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import chart
import measure
import numpy as np
import pages

from threadsafe_ocr import ThreadSafeOCR


class Point(NamedTuple):
    """What grows, CPU seconds, seconds, and megabytes at the end."""

    x: float
    cpu: float
    wall: float
    memory: float


def measured(x: float, work: Callable[[], Any]) -> Point:
    begin, used = time.perf_counter(), time.process_time()
    work()
    return Point(x, time.process_time() - used, time.perf_counter() - begin, measure.resident())


def clients() -> Iterator[Point]:
    """512 small pieces of pages read by so many clients; the cost of one piece for each client."""
    pieces, total = pages.pieces(280, 160), 512
    with ThreadSafeOCR() as ocr:
        list(ocr.read_many(pieces))
        for count in (1, 4, 16, 64, 256):

            def together(count: int = count) -> None:
                with ThreadPoolExecutor(count) as pool:
                    list(pool.map(lambda turn: ocr.read(pieces[turn % len(pieces)]), range(total)))

            point = measured(count, together)
            yield point._replace(cpu=point.cpu * count / total)


def line() -> np.ndarray:
    return pages.page(pages.PAGES / "rec_lines" / "en0014.png")


def lines() -> Iterator[Point]:
    """One page with more and more of its places taken by the same line, each in a shade of its own: equal lines are read once."""
    text, columns, rows = line(), 20, 50
    height, width = (side + 20 for side in text.shape[:2])
    with ThreadSafeOCR() as ocr:
        ocr.warmup()
        for count in (1, 3, 10, 30, 100, 300, 1000):
            page = np.full((rows * height, columns * width, 3), 255, np.uint8)
            for place in range(0, columns * rows, columns * rows // count):
                row, column = divmod(place, columns)
                shade = np.array([place % 10, place // 10 % 10, place // 100], np.uint8)
                page[row * height + 10 :, column * width + 10 :][: height - 20, : width - 20] = np.maximum(text, shade) - shade
            found: list[int] = []
            yield measured(count, lambda page=page, found=found: found.append(len(ocr.read(page).lines)))
            print(f"{count} lines, {found[0]} found", file=sys.stderr)


def size() -> Iterator[Point]:
    """The same print at more and more pixels, as a JPEG."""
    print_ = pages.page(pages.PAGES / "docs_en" / "tex-nutshell-p013.png")
    with ThreadSafeOCR() as ocr:
        ocr.warmup()
        for megapixels in (1, 3, 10, 30, 99):
            file = pages.encoded(pages.scaled(print_, math.sqrt(megapixels * 1e6 / (print_.shape[0] * print_.shape[1]))), "jpeg")
            yield measured(megapixels, lambda file=file: ocr.read(file))


def run() -> Iterator[Point]:
    """So many pages of one line, 16 at once."""
    text = line()
    page = np.pad(text, ((20, 20), (20, 20), (0, 0)), constant_values=255)
    with ThreadSafeOCR() as ocr:
        list(ocr.read_many([page] * 16))
        for count in (1, 10, 100, 1000, 10_000):

            def all_pages(count: int = count) -> None:
                for _ in ocr.read_many(itertools.repeat(page, count), in_flight=16):
                    pass

            yield measured(count, all_pages)


PARTS = {"clients": clients, "lines": lines, "size": size, "run": run}
UNITS = {"clients": "clients", "lines": "lines a page", "size": "megapixels a page", "run": "pages in a run"}


def slope(points: list[Point]) -> float:
    first, last = points[0], points[-1]
    return math.log(last.cpu / first.cpu) / math.log(last.x / first.x)


def table(part: str, points: list[Point]) -> str:
    last_decade = [point for point in points if point.x * 12 > points[-1].x]
    head = f"\n| {UNITS[part]} | CPU, s | s | memory, MB |\n| --- | --- | --- | --- |\n"
    rows = "".join(f"| {point.x:,.0f} | {point.cpu:.3g} | {point.wall:.3g} | {point.memory:,.0f} |\n" for point in points)
    return f"{head}{rows}\nSlope: {slope(points):.2f}, over the last decade {slope(last_decade):.2f}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        for point in PARTS[arguments.part]():
            print(json.dumps(point), flush=True)
        return
    got = {}
    for part in arguments.parts:
        done = subprocess.run([sys.executable, __file__, "--part", part], stdout=subprocess.PIPE, text=True, check=True)
        got[part] = [Point(*json.loads(row)) for row in done.stdout.splitlines()]
        print(table(part, got[part]), flush=True)
    relative = {UNITS[part]: [(p.x / points[0].x, p.cpu / points[0].cpu) for p in points] for part, points in got.items()}
    drawn = chart.curves("growth", "CPU time, as multiples of the first", "multiples of the first", relative)
    measure.write_section("## Growth\n\n" + drawn + "".join(table(part, points) for part, points in got.items()))


if __name__ == "__main__":
    main()
