"""This package beside what people use instead, on the same pages in turns: A B C A B C, medians.

    python benches/side_by_side.py [--clients 1 4 16 64] [--engines rapid ours] [--sets FOLDER...] [--answers N] [--rounds N]

Engines in environments of their own under .cache/bench, made on the first run (about 2 GB): RapidOCR 3.10 in four ways of sharing it,
PaddleOCR 3.7 on ONNX Runtime, the OCR of MinerU 4.0.12; besides Tesseract 5, where the system has it (apt-get install tesseract-ocr
tesseract-ocr-chi-sim). All but Tesseract and the last one with the networks of PP-OCRv6 small; v6-tiny has to be here (threadsafe-ocr
models get v6-tiny). EasyOCR is left out: no package carries its weights. The pages are documents and scans of tests/data/pages, or those
of folders with a gt.jsonl of the same form as its truth.jsonl. Every run is a process of its own: it reads every page once, which is
compared with the truth, then the clients share one object. What was measured stays in .cache/bench/results.json, so that the whole can be
done in pieces; all of it is written to docs/performance.md, in a section of this processor's. Needs Linux and a machine without other work.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import chart
import measure
import score

from threadsafe_ocr import _core

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "bench"
RESULTS = FOLDER / "results.json"
LOOP = Path(__file__).with_name("side_by_side_loop.py")
ENVIRONMENTS = {
    "rapid": ("rapidocr==3.10.0", "onnxruntime==1.32.0", "opencv-python-headless==4.11.0.86", "pillow"),
    "paddle": ("paddleocr==3.7.0", "paddlex==3.7.2", "onnxruntime==1.32.0"),
    "mineru": ("mineru==4.0.12",),
}
ENGINES = {
    "rapid": "RapidOCR 3.10, one object",
    "rapid_single": "RapidOCR 3.10, one object, one thread a network",
    "rapid_lock": "RapidOCR 3.10 behind a lock",
    "rapid_pool": "RapidOCR 3.10, two processes (spawn)",
    "paddle": "PaddleOCR 3.7 on ONNX Runtime, one object",
    "mineru": "MinerU 4.0.12's OCR, one object",
    "tesseract": "Tesseract 5, a process a page",
    "ours_rapid": "threadsafe-ocr, RapidOCR's settings",
    "ours": "threadsafe-ocr",
    "ours_int8": 'threadsafe-ocr, precision="int8"',
    "ours_fast": 'threadsafe-ocr, precision="fast"',
    "ours_bf16": 'threadsafe-ocr, precision="bf16"',
    "ours_tiny": "threadsafe-ocr, v6-tiny",
}
OWN_PAGES = ("docs_en", "docs_zh", "scans_en")
ABOUT = """\
## Side by side: {processor}

Written by `make bench`: {days}, {cores} cores, Python {python}. Engines in turns, every run in its own process. CPU: of all
threads and processes. Memory: the peak, shared pages by share. First answer: from the import on. CER: edit distance over the characters of
the truth, rows read from left to right; words: F1 of the page's words. p99 only from 300 answers on.
"""
HEADER = """
### {pages}, {clients} client{s}, {answers} answers

| | pages/s | CPU, s a page | p50, s | p95, s | p99, s | memory, MB | first answer, s | CER | words |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def python(engine: str) -> str:
    """That of the engine's environment, which is made once."""
    name = engine.split("_")[0]
    if name not in ENVIRONMENTS:
        return sys.executable
    found = FOLDER / name / "bin" / "python"
    if not found.exists():
        print("making the environment", name, flush=True)
        subprocess.run([sys.executable, "-m", "venv", FOLDER / name], check=True)
        subprocess.run([found, "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name]], check=True)
    return str(found)


class Truth(NamedTuple):
    """A page's lines, and the boxes of what is not to be judged."""

    lines: list[score.Line]
    ignored: list[score.Box]


def truth_of(folder: Path) -> dict[str, Truth]:
    """Path of every page -> what is on it."""
    name = next(path for path in (folder / "truth.jsonl", folder / "gt.jsonl") if path.exists())
    entries = [json.loads(line) for line in name.read_text(encoding="utf-8").splitlines()]
    wanted = [entry for entry in entries if folder != ROOT / "tests/data/pages" or entry["file"].split("/")[0] in OWN_PAGES]
    truths = {}
    for entry in wanted:
        lines = [(line["text"], line.get("poly")) for line in entry["lines"] if not line.get("ignore")]
        truths[str(folder / entry["file"])] = Truth(lines, [line["poly"] for line in entry["lines"] if line.get("ignore") and line["poly"]])
    return truths


def language(lines: list[score.Line]) -> str:
    """For Tesseract, which must be told."""
    return "chi_sim+eng" if any(ord(character) > 0x2E7F for text, _ in lines for character in text) else "eng"


def run(engine: str, clients: int, truth: dict[str, Truth], answers: int) -> dict[str, Any]:
    """One run in a process of its own. Whole cycles over the pages, so `answers` or some more."""
    answers = -(-max(clients, answers) // len(truth)) * len(truth)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as listed:
        json.dump([(path, language(page.lines)) for path, page in truth.items()], listed)
        listed.flush()
        done = subprocess.run(
            [python(engine), LOOP, engine, str(clients), str(answers), listed.name], stdout=subprocess.PIPE, text=True, check=True
        )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    counts: Counter[str] = Counter()
    for page, read in zip(truth.values(), figures.pop("texts"), strict=True):
        counts += score.page(page.lines, read, page.ignored)
    figures["cer"], figures["words"] = score.figures(counts)
    return {**figures, "answers": answers, "date": f"{date.today()}"}


def row(name: str, runs: list[dict[str, Any]]) -> str:
    def median(key: str, form: str = ".2f") -> str:
        values = [run[key] for run in runs if run[key] is not None]
        return format(statistics.median(values), form) if values else ""

    cells = [median(key) for key in ("rate", "cpu", "p50", "p95")]
    cells.append(median("p99") if min(run["answers"] for run in runs) >= 300 else "")
    return f"| {' | '.join([name, *cells, median('memory', ',.0f'), median('first'), median('cer', '.3f'), median('words', '.3f')])} |\n"


def write(results: dict[str, list[dict[str, Any]]]) -> None:
    """Everything that was measured so far, tables and chart."""
    days = sorted({run["date"] for runs in results.values() for run in runs})
    text = ABOUT.format(
        days=" to ".join(dict.fromkeys((days[0], days[-1]))),
        processor=measure.processor(),
        cores=measure.cores(),
        python=platform.python_version(),
    )
    tables_text = ""
    tables: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = {}
    for key, runs in results.items():
        pages, clients, engine = key.split("|")
        tables.setdefault((pages, int(clients)), {})[engine] = runs
    for (pages, clients), engines in sorted(tables.items()):
        answers = " to ".join(f"{count}" for count in sorted({sum(run["answers"] for run in runs) for runs in engines.values()}))
        tables_text += HEADER.format(pages=pages, clients=clients, s="" if clients == 1 else "s", answers=answers)
        tables_text += "".join(row(ENGINES[engine], engines[engine]) for engine in ENGINES if engine in engines)
    pages, clients = max(tables, key=lambda table: (len(tables[table]), table[1] == 16))
    rates = {ENGINES[engine]: statistics.median(run["rate"] for run in runs) for engine, runs in tables[pages, clients].items()}
    name = re.sub(r"\W+", "-", f"side-by-side-{measure.processor()}".lower()).strip("-")
    drawn = chart.bars(name, f"pages/s, {pages}, {clients} clients", dict(sorted(rates.items(), key=lambda rate: rate[1])))
    measure.write_section(f"{text}\n{drawn}{tables_text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--sets", nargs="+", type=Path, default=[ROOT / "tests/data/pages"])
    parser.add_argument("--answers", type=int, default=150, help="of a run; p99 only from 300 on")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    engines = [engine for engine in arguments.engines if engine != "tesseract" or shutil.which("tesseract")]
    if not _core.has_matrix_unit():
        engines = [engine for engine in engines if engine != "ours_bf16"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[dict[str, Any]]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for folder in arguments.sets:
        truth = truth_of(folder.resolve())
        pages = f"{len(truth)} pages of {folder.name}" if folder != ROOT / "tests/data/pages" else f"{len(truth)} documents and scans"
        for clients in arguments.clients:
            taken: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
            for _ in range(arguments.rounds):
                for engine, runs in taken.items():
                    runs.append(run(engine, clients, truth, arguments.answers))
                    print(pages, clients, engine, runs[-1], flush=True)
                    results[f"{pages}|{clients}|{engine}"] = runs
                    RESULTS.write_text(json.dumps(results, indent=1))
    write(results)


if __name__ == "__main__":
    main()
