"""A PDF through `read_pages`, and through the peers' routes: RapidOCR's users render a page with pypdfium2 and have it read, PaddleOCR 3.7
reads PDFs itself.

    python -m venv both && both/bin/pip install rapidocr==3.10.0 onnxruntime==1.32.0 opencv-python-headless==4.11.0.86 ".[pdf]"
    python -m venv paddle && paddle/bin/pip install paddleocr==3.7.0 paddlex==3.7.2 onnxruntime==1.32.0
    both/bin/python benches/documents.py [--rounds 3] --paddle paddle/bin/python

The PDF has the sixteen pages of tests/data/pages, A4, rendered at 200 dpi by both. Every run is a process of its own that has read a page
before the clock starts; engines in turns, medians. docs/documents.md has the figures. Needs a machine without other work.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
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


NO_STEPS = dict.fromkeys(("use_doc_orientation_classify", "use_doc_unwarping", "use_textline_orientation"), False)


def paddle(path: str) -> Iterator[int]:
    os.environ |= {"PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True", "PADDLE_PDX_PDF_RENDER_SCALE": str(DPI / 72)}
    from paddleocr import PaddleOCR

    logging.disable(logging.WARNING)
    models = {
        name: value
        for kind, part in (("detection", "det"), ("recognition", "rec"))
        for name, value in (
            (f"text_{kind}_model_name", f"PP-OCRv6_small_{part}"),
            (f"text_{kind}_model_dir", str(Path(__file__).parents[1] / "models" / "v6-small" / part)),
        )
    }
    read = PaddleOCR(engine="onnxruntime", device="cpu", **NO_STEPS, **models)
    return (len(page["rec_texts"]) for page in read.predict_iter(path))


def ours_paddle(path: str) -> Iterator[int]:
    os.environ["PADDLE_PDX_PDF_RENDER_SCALE"] = str(DPI / 72)
    from threadsafe_ocr.compat.paddle import PaddleOCR

    models = {f"text_{kind}_model_name": f"PP-OCRv6_small_{part}" for kind, part in (("detection", "det"), ("recognition", "rec"))}
    return (len(page["rec_texts"]) for page in PaddleOCR(api="3", **NO_STEPS, **models).predict_iter(path))


ENGINES = {"rapid": rapid, "ours_rapid": ours_rapid, "paddle": paddle, "ours_paddle": ours_paddle, "ours": ours}


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
    parser.add_argument("--paddle", required=True, metavar="PYTHON", help="of an environment with PaddleOCR 3.7")
    if sys.argv[1:2] == ["--one"]:
        return run(*sys.argv[2:])
    arguments = parser.parse_args()
    rates: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pages.pdf"
        path.write_bytes(document())
        for _, engine in itertools.product(range(arguments.rounds), ENGINES):
            python = arguments.paddle if engine == "paddle" else sys.executable
            said = subprocess.check_output([python, __file__, "--one", engine, str(path)], text=True)
            rate, lines = said.split()
            rates[engine].append(float(rate))
            print(f"{engine}: {float(rate):.2f} pages/s, {lines} lines", flush=True)
    medians = {engine: statistics.median(taken) for engine, taken in rates.items()}
    for engine, rate in medians.items():
        ratios = ", ".join(f"{rate / medians[peer]:.2f} of {peer}'s" for peer in ("rapid", "paddle"))
        print(f"{engine}: median {rate:.2f} pages/s, {ratios}")
    return None


if __name__ == "__main__":
    main()
