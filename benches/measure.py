"""What the benches read from Linux about their own process."""

from __future__ import annotations

import os
import time
from pathlib import Path

PROCESS = Path("/proc/self")


def resident(field: str = "VmRSS") -> float:
    """Megabytes; "VmHWM" is the peak."""
    return _kilobytes("status", field) / 1e3


def proportional() -> float:
    """Megabytes, shared ones by share."""
    return _kilobytes("smaps_rollup", "Pss") / 1e3


def _kilobytes(file: str, field: str) -> float:
    lines = (PROCESS / file).read_text().splitlines()
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
