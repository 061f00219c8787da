"""What the package promises to a service, measured at full size.

    python benches/soak.py          every row; about an hour and a half on 2 cores
    python benches/soak.py 5 7      these rows

Every part runs in a process of its own. The figures are printed and written to docs/soak.md, where those of other rows stay. The exit
code is 1 when a figure is missed; all parts run nevertheless. Needs Linux, Pillow and a machine without other work: latencies are
compared with those of a lone call.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib.metadata
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import measure
import numpy as np

TABLE = Path(__file__).parents[1] / "docs" / "soak.md"
HEADER = """\
# Soak

Written by `make soak` (`benches/soak.py`, which says how each figure is taken). A missed figure stays here until it is met.

| row | what | required | measured | | date | versions | processor |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
PART_SECONDS = 3 * 3600


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    required: str
    measured: str
    met: bool


Part = Callable[[], Iterator[Figure]]
PARTS: dict[str, Part] = {}


def part(name: str) -> Callable[[Part], Part]:
    """Part `name` of the row with its number."""

    def add(function: Part) -> Part:
        PARTS[name] = function
        return function

    return add


def key(result: Any) -> list[tuple[str, float, bytes]]:
    """Everything an answer says, bit for bit."""
    return [(line.text, line.score, line.polygon.tobytes()) for line in result.lines]


def timed(function: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def run_threads(count: int, target: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(target, range(count)))


@part("2")
def same_answers() -> Iterator[Figure]:
    """64 threads x 20 reads and 100 `aread`s of sixteen whole pages; the mixed options on a piece of each."""
    import pages

    from threadsafe_ocr import ThreadSafeOCR

    whole, pieces = [pages.page(path) for path in pages.names()], pages.pieces()[:4]
    inputs: list[Any] = [page if i % 2 else pages.encoded(page, "png") for i, page in enumerate(whole)]
    required = "0 errors, every answer bit-equal to the lone one"

    def figure(what: str, answers: list[tuple[Any, Any]]) -> Figure:
        errors = [answer for answer, _ in answers if isinstance(answer, Exception)]
        unequal = sum(not isinstance(answer, Exception) and answer != alone for answer, alone in answers)
        first = f", first: {errors[0]!r}" if errors else ""
        return Figure(what, required, f"{len(answers)} answers, {len(errors)} errors{first}, {unequal} unequal", not errors and not unequal)

    def attempt(image: Any, **options: Any) -> Any:
        try:
            return key(ocr.read(image, **options))
        except Exception as error:  # noqa: BLE001 - it is counted
            return error

    with ThreadSafeOCR() as ocr:
        alone = [key(ocr.read(image)) for image in inputs]
        answers: list[tuple[Any, Any]] = []

        def client(k: int) -> None:
            for i in range(k, k + 20):
                answers.append((attempt(inputs[i % 16]), alone[i % 16]))

        run_threads(64, client)
        yield figure("64 threads x 20 reads of 16 real pages on one object", answers)

        async def tasks() -> list[Any]:
            return await asyncio.gather(*(ocr.aread(inputs[i % 16]) for i in range(100)), return_exceptions=True)

        read = [answer if isinstance(answer, BaseException) else key(answer) for answer in asyncio.run(tasks())]
        yield figure("100 aread in flight", [(answer, alone[i % 16]) for i, answer in enumerate(read)])

        options: list[dict[str, Any]] = [
            {},
            {"rec_score_thresh": 0.9},
            {"det_thresh": 0.5, "det_box_thresh": 0.7},
            {"rec_min_width": 160, "rec_width_step": 8},
            {"use_textline_orientation": False},
            {"det_limit_side_len": 480, "det_limit_type": "max"},
            {"rec_group": 6},
            {"det_use_dilation": True, "det_score_mode": "slow"},
        ]
        expected = [[key(ocr.read(image, **own)) for own in options] for image in pieces]
        mixed: list[tuple[Any, Any]] = []

        def chooser(k: int) -> None:
            for i, own in itertools.product(range(4), range(8)):
                mixed.append((attempt(pieces[i], **options[(k + own) % 8]), expected[i][(k + own) % 8]))

        run_threads(8, chooser)
        yield figure("mixed per-request options from 8 threads", mixed)


@dataclasses.dataclass(frozen=True)
class Alone:
    """Seconds without other work, detection on one thread."""

    receipts: list[float]
    detection: float

    def limit(self, receipt: int, factor: float) -> float:
        return factor * self.receipts[receipt] + self.detection


def measure_alone(receipts: list[Any], large: Any) -> Alone:
    import threadsafe_ocr

    with threadsafe_ocr.ThreadSafeOCR(intra_op_num_threads=1) as ocr:
        ocr.warmup()
        times = [statistics.median(timed(ocr.read, receipt) for _ in range(3)) for receipt in receipts]
        alone = Alone(times, min(timed(ocr.detect, large) for _ in range(2)))
    threadsafe_ocr.unload()
    return alone


def latency_figure(what: str, factor: float, alone: Alone, latencies: list[tuple[int, float]]) -> Figure:
    """Of receipts by their number; the worst is the one nearest to its limit."""
    receipt, worst = max(latencies, key=lambda entry: entry[1] / alone.limit(entry[0], factor))
    limit, lone = alone.limit(receipt, factor), alone.receipts[receipt]
    measured = f"worst {worst:.2f} s, {worst / lone:.1f}x its {lone:.2f} s; at most {limit:.2f} s, detection {alone.detection:.2f} s"
    return Figure(what, f"{factor:.0f}x the lone time plus one detection", measured, worst <= limit)


def read_in_background(ocr: Any, inputs: Iterable[Any]) -> list[threading.Thread]:
    """A thread for each, since a call may wait for its permit."""
    from threadsafe_ocr import EngineClosedError

    def read(image: Any) -> None:
        try:
            ocr.read(image)
        except EngineClosedError:
            pass

    threads = [threading.Thread(target=read, args=(image,)) for image in inputs]
    for thread in threads:
        thread.start()
    return threads


@part("5a")
def receipts_beside_large_pages() -> Iterator[Figure]:
    """The receipts come at half the rate that the machine can serve alone, so that they queue behind the pages and not each other."""
    import pages

    from threadsafe_ocr import ThreadSafeOCR

    receipts, large = pages.receipts(), pages.large(3000)
    alone = measure_alone(receipts, large)
    pause = 2 * max(alone.receipts)
    with ThreadSafeOCR() as ocr:
        ocr.warmup()
        running = read_in_background(ocr, [large] * 6)
        time.sleep(1)

        def arrive(k: int) -> tuple[int, float]:
            time.sleep(k * pause)
            if not any(thread.is_alive() for thread in running):
                # More large pages than six, where they are over before the last receipt.
                running.extend(read_in_background(ocr, [large] * 6))
            return k % len(receipts), timed(ocr.read, receipts[k % len(receipts)])

        with ThreadPoolExecutor(20) as pool:
            latencies = list(pool.map(arrive, range(20)))
        ocr.close(cancel=True)
    lines = "pages of 150 lines and 3000 px"
    yield latency_figure(f"20 receipts, one every {pause:.1f} s, while six {lines} are read", 4, alone, latencies)


def receipts_behind(side: int, count: int | None, factor: float, kinds: Iterable[str]) -> Iterator[Figure]:
    """Three receipts one after the other, the first one as soon as all large pages are there."""
    import pages

    from threadsafe_ocr import ThreadSafeOCR, unload

    receipts, large = pages.receipts(), pages.large(side)
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            receipt_inputs, large_input = [as_input(receipt, kind, folder) for receipt in receipts], as_input(large, kind, folder)
            alone = measure_alone(receipt_inputs, large_input)
            ocr = ThreadSafeOCR()
            ocr.warmup()
            # By default 512 MiB are held at once: this is more than fits.
            submitted = count or (512 << 20) // large.nbytes + 8
            running = read_in_background(ocr, [large_input] * submitted)
            while (held := ocr.stats())["queue_size"] + held["waiting_for_permit"] < submitted:
                time.sleep(0.01)
            latencies = [(k, timed(ocr.read, receipt)) for k, receipt in enumerate(receipt_inputs)]
            ocr.close(cancel=True)
            for thread in running:
                thread.join()
            unload()
            waiting = f", {held['waiting_for_permit']} of which wait for a permit" if count is None else ""
            what = f"a receipt behind {submitted} pages of 150 lines and {side} px{waiting}; {kind}"
            yield latency_figure(what, factor, alone, latencies)


def as_input(array: np.ndarray, kind: str, folder: str) -> Any:
    import pages

    if kind == "arrays":
        return array
    path = Path(folder) / f"{array.shape[0]}x{array.shape[1]}-{array[::7, ::7].sum()}.{kind}"
    path.write_bytes(pages.encoded(array, kind))
    return path


KINDS = ("arrays", "jpeg", "png")


@part("5b")
def receipt_behind_large_pages() -> Iterator[Figure]:
    return receipts_behind(3000, 20, 4, KINDS)


@part("5c")
def receipt_behind_every_large_permit() -> Iterator[Figure]:
    return receipts_behind(4000, None, 8, KINDS)


@part("6")
def overload() -> Iterator[Figure]:
    """A refused client pauses for 20 ms: 64 threads that do not would measure how Python shares its lock among them."""
    import pages

    from threadsafe_ocr import OverloadedError, ThreadSafeOCR

    pieces = pages.pieces()
    with ThreadSafeOCR(max_queue_size=4) as ocr:
        alone = [key(ocr.read(piece)) for piece in pieces]
        refusals: list[float] = []
        answers: list[bool] = []
        end = time.perf_counter() + 20

        def client(k: int) -> None:
            for i in itertools.count(k):
                if (start := time.perf_counter()) > end:
                    return
                try:
                    result = ocr.read(pieces[i % 16], wait=False)
                except OverloadedError:
                    refusals.append(time.perf_counter() - start)
                    time.sleep(0.02)
                else:
                    answers.append(key(result) == alone[i % 16])

        run_threads(64, client)
    worst, most = max(refusals) * 1e3, sorted(refusals)[len(refusals) * 99 // 100] * 1e3
    yield Figure(
        "max_queue_size=4, 64 clients with wait=False for 20 s",
        "each refusal within 50 ms, every accepted answer right",
        f"{len(refusals)} refusals: worst {worst:.1f} ms, 99 % within {most:.1f} ms; {len(answers)} answers, {answers.count(False)} wrong",
        worst <= 50 and all(answers) and bool(answers),
    )


@part("7")
def cancellation() -> Iterator[Figure]:
    import pages

    from threadsafe_ocr import ThreadSafeOCR

    # 4.2 MB each, so that all of them get a permit and no submission waits.
    array = pages.page(pages.PAGES / "docs_zh" / "qyxf-book-doc-p003.png")[:1400, :1000]
    inputs = [array, pages.encoded(array, "jpeg"), pages.encoded(array, "png")]
    with ThreadSafeOCR() as ocr:
        ocr.warmup()
        futures = [ocr.submit(inputs[i % 3]) for i in range(100)]
        time.sleep(2)
        answered = sum(future.done() for future in futures)
        start = time.perf_counter()
        for future in futures:
            future.cancel()
        cancelling = time.perf_counter() - start
        seconds = cancelling + measure.seconds_until_idle()
        left = {name: ocr.stats()[name] for name in ("queue_size", "queue_bytes", "waiting_items", "running", "activation_bytes")}
    yield Figure(
        f"{len(futures)} submitted pages, all cancelled after 2 s ({answered} were answered)",
        "CPU under 5 % of a core within 2 s, nothing held",
        f"{seconds:.2f} s" + (f", but {left}" if any(left.values()) else ""),
        seconds <= 2 and not any(left.values()),
    )


@part("8")
def many_engines() -> Iterator[Figure]:
    """Everything that starts a thread is used: a lone page's detection, futures and an event loop."""
    before = len(measure.threads())
    import pages

    from threadsafe_ocr import ThreadSafeOCR

    line = pages.page(sorted((pages.PAGES / "rec_lines").glob("*.png"))[0])

    def use(ocr: Any) -> None:
        ocr.read(line)
        ocr.submit(line).result()
        asyncio.run(ocr.aread(line))

    engines = [ThreadSafeOCR()]
    engines[0].read(pages.page(pages.names()[0]))
    for _ in range(20):
        use(engines[0])
    reading = statistics.median(timed(engines[0].read, line) for _ in range(20))
    megabytes, milliseconds = [], []
    for _ in range(19):
        memory, start = measure.proportional(), time.perf_counter()
        engines.append(ThreadSafeOCR())
        engines[-1].read(line)
        milliseconds.append((time.perf_counter() - start - reading) * 1e3)
        megabytes.append(measure.proportional() - memory)
    for ocr in engines:
        use(ocr)
    after = measure.threads()
    cores = measure.cores()
    own = len(after) - before
    counts = {name: after.count(name) for name in sorted(set(after))}
    yield Figure(
        "native threads of 20 engines in one process, all used, beyond those of `import numpy`",
        f"at most 3 x cores + 6 = {3 * cores + 6}",
        f"{own} ({', '.join(f'{name} {count}' if count > 1 else name for name, count in counts.items())}; {before} before)",
        own <= 3 * cores + 6,
    )
    yield Figure(
        "memory of each further engine, after its first read",
        "under 5 MB",
        f"largest {max(megabytes):.2f} MB, mean {statistics.mean(megabytes):.2f} MB",
        max(megabytes) < 5,
    )
    yield Figure(
        f"time of each further engine: making it and its first read, beyond that read's {reading * 1e3:.0f} ms",
        "under 50 ms",
        f"longest {max(milliseconds):.1f} ms, median {statistics.median(milliseconds):.1f} ms",
        max(milliseconds) < 50,
    )
    for ocr in engines:
        ocr.close()


READS = 2000


@part("9a")
def memory_of_many_sizes() -> Iterator[Figure]:
    """One page in twenty is a whole A4, the others are parts of it of random sides, mostly small; three quarters of it are blank."""
    import pages

    from threadsafe_ocr import ThreadSafeOCR

    whole = pages.sparse(*pages.A4)
    width, height = pages.A4
    rng = np.random.default_rng(0)

    def part_of_page() -> np.ndarray:
        if rng.random() < 0.05:
            return whole
        w, h = (int(np.exp(rng.uniform(np.log(32), np.log(side)))) for side in (width, height))
        x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        return whole[y : y + h, x : x + w]

    images = [part_of_page() for _ in range(READS)]
    with ThreadSafeOCR() as ocr:

        def read_all(some: list[np.ndarray]) -> float:
            """From 16 threads; megabytes when they are done."""
            with ThreadPoolExecutor(16) as pool:
                for done, _ in enumerate(pool.map(ocr.read, some), 1):
                    if done % 100 == 0:
                        log(f"{done} of {len(some)} reads, {measure.resident():.0f} MB, peak {measure.resident('VmHWM'):.0f} MB")
            return measure.resident()

        early = read_all(images[: READS // 5])
        late = read_all(images[READS // 5 :])
    peak = measure.resident("VmHWM")
    what = f"{READS:,} reads of random sizes from 16 threads"
    growth = f"{early:.0f} MB after a fifth, {late:.0f} MB at the end ({(late / early - 1) * 100:+.1f} %)"
    yield Figure(f"{what}: resident memory", "grows by at most 5 %", growth, late <= early * 1.05)
    yield Figure(f"{what}: peak, pages up to A4 at 200 dpi", "under 1,200 MB", f"{peak:,.0f} MB", peak < 1200)


@part("9b")
def memory_of_large_files() -> Iterator[Figure]:
    import pages

    from threadsafe_ocr import ThreadSafeOCR

    with tempfile.TemporaryDirectory() as folder:
        files = []
        for i, kind in enumerate(("png", "jpeg")):
            files.append(Path(folder) / f"{i}.{kind}")
            files[-1].write_bytes(pages.encoded(pages.sparse(2828, 4000), kind))
        pages.page.cache_clear()
        measure.forget_peak()
        with ThreadSafeOCR() as ocr:

            async def tasks() -> None:
                await asyncio.gather(*(ocr.aread(files[i % 2]) for i in range(50)))

            asyncio.run(tasks())
    peak = measure.resident("VmHWM")
    yield Figure("50 files of 2828 x 4000 px submitted at once: peak", "under 2,500 MB", f"{peak:,.0f} MB", peak < 2500)


@part("10")
def import_time() -> Iterator[Figure]:
    program = "import time, numpy; start = time.perf_counter(); import threadsafe_ocr; print(time.perf_counter() - start)"
    best = min(float(subprocess.check_output([sys.executable, "-c", program])) for _ in range(7))
    yield Figure("import threadsafe_ocr, after import numpy, best of 7", "under 0.2 s", f"{best:.3f} s", best < 0.2)


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def run_part(name: str) -> list[Figure]:
    """In a process of its own; a part that does not end, or ends badly, is a missed figure."""
    log(f"row {name}")
    command = [sys.executable, __file__, "--part", name]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=PART_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return [Figure(PARTS[name].__name__, "an end", f"none within {PART_SECONDS} s", False)]
    figures = [Figure(**json.loads(line)) for line in done.stdout.splitlines()]
    if done.returncode != 0:
        figures.append(Figure(PARTS[name].__name__, "an end without an error", f"exit code {done.returncode}", False))
    return figures


def versions() -> str:
    found = (f"{name} {importlib.metadata.version(name)}" for name in ("threadsafe-ocr", "onnxruntime", "numpy"))
    return ", ".join([*found, f"Python {platform.python_version()}"])


def table_line(name: str, figure: Figure) -> str:
    result = "pass" if figure.met else "**miss**"
    processor = f"{measure.processor()}, {measure.cores()} cores"
    cells = (name, figure.what, figure.required, figure.measured, result, f"{date.today():%Y-%m-%d}", versions(), processor)
    return f"| {' | '.join(cells)} |"


def write_table(lines: dict[str, list[str]]) -> None:
    """New lines replace those of the same part; the others stay."""
    kept: dict[str, list[str]] = {}
    if TABLE.exists():
        for line in TABLE.read_text(encoding="utf-8").splitlines():
            if line[:2] == "| " and (name := line.split(" | ")[0][2:]) in PARTS:
                kept.setdefault(name, []).append(line)
    kept.update(lines)
    TABLE.write_text(HEADER + "".join(f"{line}\n" for name in PARTS for line in kept.get(name, [])), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="numbers of rows, or parts of them such as 5a; all where none is given")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        for figure in PARTS[arguments.part]():
            print(json.dumps(dataclasses.asdict(figure)), flush=True)
        return 0
    chosen = [name for name in PARTS if not arguments.rows or name in arguments.rows or name.rstrip("abc") in arguments.rows]
    if not chosen:
        parser.error(f"there is no such row; there are: {', '.join(PARTS)}")
    missed = False
    lines = {}
    for name in chosen:
        figures = run_part(name)
        missed = missed or not all(figure.met for figure in figures)
        lines[name] = [table_line(name, figure) for figure in figures]
        log("\n".join(lines[name]))
        write_table(lines)
    print(HEADER + "\n".join(line for name in chosen for line in lines[name]))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
