"""A PDF through `read_pages`, and through the route that RapidOCR's users take: pypdfium2 renders a page, then RapidOCR reads it.

    python -m venv both && both/bin/pip install rapidocr==3.10.0 onnxruntime==1.32.0 opencv-python-headless==4.11.0.86 ".[pdf]"
    both/bin/python benches/documents.py [--rounds 3]

The PDF has the sixteen pages of tests/data/pages, A4, rendered at 200 dpi by both. Every run is a process of its own that has read a page
before the clock starts; engines in turns, medians. docs/documents.md has the figures. Needs a machine without other work.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pages
import pypdfium2
from PIL import Image

DPI = 200


def rapid(path: str) -> Iterator[int]:
    from rapidocr import RapidOCR

    logging.disable(logging.WARNING)
    read = RapidOCR()
    for page in pypdfium2.PdfDocument(path):
        yield len(read(page.render(scale=DPI / 72).to_numpy()).txts or ())


def ours_rapid(path: str) -> Iterator[int]:
    from threadsafe_ocr.compat.rapidocr import RapidOCR

    return (len(page.lines) for page in RapidOCR().engine.read_pages(path, dpi=DPI))


def ours(path: str) -> Iterator[int]:
    from threadsafe_ocr import ThreadSafeOCR

    return (len(page.lines) for page in ThreadSafeOCR().read_pages(path, dpi=DPI))


ENGINES = {"rapid": rapid, "ours_rapid": ours_rapid, "ours": ours}


def document() -> bytes:
    images = []
    for path in pages.names():
        image = Image.open(path).convert("RGB")
        scale = min(side / own for side, own in zip(pages.A4, image.size, strict=True))
        sheet = Image.new("RGB", pages.A4, "white")
        sheet.paste(image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC))
        images.append(sheet)
    with tempfile.TemporaryFile() as made:
        images[0].save(made, "PDF", save_all=True, append_images=images[1:], resolution=DPI)
        made.seek(0)
        return made.read()


def run(engine: str, path: str) -> None:
    """Prints pages/s of all pages but the first, and the lines found."""
    counts = ENGINES[engine](path)
    first, begun = next(counts), time.perf_counter()
    others = list(counts)
    print(len(others) / (time.perf_counter() - begun), first + sum(others))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("ENGINE", "PDF"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return run(*arguments.one)
    rates: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pages.pdf"
        path.write_bytes(document())
        for _, engine in itertools.product(range(arguments.rounds), ENGINES):
            said = subprocess.check_output([sys.executable, __file__, "--one", engine, str(path)], text=True)
            rate, lines = said.split()
            rates[engine].append(float(rate))
            print(f"{engine}: {float(rate):.2f} pages/s, {lines} lines", flush=True)
    base = statistics.median(rates["rapid"])
    for engine, taken in rates.items():
        print(f"{engine}: median {statistics.median(taken):.2f} pages/s, {statistics.median(taken) / base:.2f} of RapidOCR's")
    return None


if __name__ == "__main__":
    main()
