"""RapidOCR, the ways people share it, and this package, on the same pages in turns: A B C A B C, medians.

    python benches/side_by_side.py [--clients 1 16] [--answers 32] [--rounds 2]

Makes an environment in .cache/bench on its first run (RapidOCR 3.10 and this checkout, about 0.3 GB). The pages are the sixteen of
tests/data/pages, as arrays. Every run is a process of its own: it reads every page once, unmeasured, then the clients share one object
until there are ANSWERS. Written to docs/performance.md. Needs Linux and a machine without other work.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import measure

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "bench"
PYTHON = FOLDER / "environment" / "bin" / "python"
LOOP = Path(__file__).with_name("side_by_side_loop.py")
PACKAGES = ("rapidocr==3.10.0", "onnxruntime==1.32.0", "opencv-python-headless==4.11.0.86", "pillow", str(ROOT))
ENGINES = {
    "rapid": "RapidOCR 3.10, one object",
    "rapid_lock": "RapidOCR 3.10 behind a lock",
    "rapid_pool": "RapidOCR 3.10, a process a core (spawn)",
    "ours_rapid": "threadsafe-ocr, RapidOCR's settings",
    "ours": "threadsafe-ocr",
    "ours_fast": 'threadsafe-ocr, precision="fast"',
}
FIRST_LINES = """\
## Engines side by side

Written by `make bench` (`benches/side_by_side.py`). {date}, {processor}, {cores} cores, Python {python}, onnxruntime 1.32.0.
Sixteen pages of print in English and Chinese, scans and photographs, PP-OCRv6 small; every engine in turns with the others, medians of
{rounds} rounds. CPU: seconds of all threads a page. Memory: the peak, shared pages by share.
"""
HEADER = """
### {clients} client{s}

| | pages/s | CPU, s a page | p50, s | longest, s | memory, MB |
| --- | --- | --- | --- | --- | --- |
"""


def prepare() -> None:
    """The environment, once."""
    if PYTHON.exists():
        return
    subprocess.run([sys.executable, "-m", "venv", PYTHON.parents[1]], check=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)


def run(engine: str, clients: int, answers: int) -> dict[str, float]:
    """One run in a process of its own."""
    command = [PYTHON, LOOP, engine, str(clients), str(answers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def row(name: str, runs: list[dict[str, Any]]) -> str:
    rate, cpu, p50, longest, memory = (statistics.median(run[key] for run in runs) for key in ("rate", "cpu", "p50", "longest", "memory"))
    return f"| {name} | {rate:.2f} | {cpu:.2f} | {p50:.2f} | {longest:.2f} | {memory:,.0f} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--answers", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    prepare()
    about = {"date": date.today(), "processor": measure.processor(), "cores": measure.cores(), "python": platform.python_version()}
    text = FIRST_LINES.format(**about, rounds=arguments.rounds)
    for clients in arguments.clients:
        runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
        for _ in range(arguments.rounds):
            for engine, taken in runs.items():
                taken.append(run(engine, clients, arguments.answers))
                print(clients, "clients", ENGINES[engine], taken[-1], flush=True)
        text += HEADER.format(clients=clients, s="" if clients == 1 else "s")
        text += "".join(row(ENGINES[engine], taken) for engine, taken in runs.items())
    measure.write_section(text)


if __name__ == "__main__":
    main()
