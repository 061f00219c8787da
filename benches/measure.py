"""What the benches read from Linux about processes, and where they write what they measured."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROCESS = Path("/proc/self")
PERFORMANCE = Path(__file__).parents[1] / "docs" / "performance.md"


def resident(field: str = "VmRSS") -> float:
    """Megabytes; "VmHWM" is the peak."""
    return _kilobytes("status", field) / 1e3


def proportional(process: Path = PROCESS) -> float:
    """Megabytes, shared ones by share."""
    return _kilobytes("smaps_rollup", "Pss", process) / 1e3


def proportional_of_group(group: int) -> float:
    """Megabytes of all processes of a process group."""
    total = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(process.name)) == group:
                total += proportional(process)
        except (OSError, StopIteration):
            continue  # it ended meanwhile
    return total


@contextmanager
def sampled(figure: Callable[[], float], seconds: float) -> Iterator[list[float]]:
    """What `figure` says every so many seconds, from a thread of its own, until the end."""
    taken: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(seconds):
            taken.append(figure())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield taken
    finally:
        ended.set()
        watcher.join()


def _kilobytes(file: str, field: str, process: Path = PROCESS) -> float:
    lines = (process / file).read_text().splitlines()
    return next(int(line.split()[1]) * 1.024 for line in lines if line.startswith(f"{field}:"))


def forget_peak() -> None:
    """The peak begins again at what is resident now."""
    (PROCESS / "clear_refs").write_text("5")


def threads() -> list[str]:
    """The names of the process's threads, Python's and others."""
    return [(task / "comm").read_text().strip() for task in (PROCESS / "task").iterdir()]


def cores() -> int:
    return len(os.sched_getaffinity(0))


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), os.uname().machine)


def seconds_until_idle(share: float = 0.05, window: float = 0.2, patience: float = 60) -> float:
    """Seconds from now to the first `window` in which the process uses less than `share` of a core."""
    start = time.perf_counter()
    while (begin := time.perf_counter()) - start < patience:
        used = time.process_time()
        time.sleep(window)
        if time.process_time() - used < share * (time.perf_counter() - begin):
            return begin - start
    return patience


def write_section(text: str) -> None:
    """Puts a section, whose title is its first line, into docs/performance.md: in place of the one with that title, or at the end."""
    page = PERFORMANCE.read_text(encoding="utf-8")
    title = text[: text.index("\n") + 1]
    before, _, after = page.partition(title)
    _, heading, rest = after.partition("\n## ")
    PERFORMANCE.write_text(f"{before.rstrip()}\n\n{text.rstrip()}\n{heading}{rest}", encoding="utf-8")
