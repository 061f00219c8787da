#!/usr/bin/env python3
"""RapidOCR 3.10 beside threadsafe_ocr.compat.rapidocr on the images of folders; fails when fewer than 99 % of the texts are equal.

    python -m venv both && both/bin/pip install rapidocr==3.10.0 onnxruntime==1.32.0 opencv-python-headless==4.11.0.86 .
    both/bin/python scripts/rapidocr_check.py [--differences] [FOLDER...]

Both get RapidOCR's own settings and networks and the arrays that OpenCV decodes, with word boxes. Without folders: tests/data/pages.
"""

import argparse
import logging
import sys
from pathlib import Path

import cv2
import numpy as np
from golden_check import Tally, compare
from rapidocr import RapidOCR
from threadsafe_ocr.compat.rapidocr import RapidOCR as Ours

PAGES = Path(__file__).resolve().parent.parent / "tests/data/pages"
SUFFIXES = {".png", ".jpg", ".bmp", ".tif", ".webp"}
WORD_TOLERANCE = 2  # pixels: theirs are cut to whole ones, of a crop and again of the page


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", default=[PAGES], metavar="FOLDER")
    parser.add_argument("--differences", action="store_true", help="print every pair of unequal texts")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    theirs, ours = RapidOCR(), Ours()
    total, words = Tally(), np.zeros(3, int)
    for path in sorted(path for folder in arguments.folders for path in folder.rglob("*") if path.suffix in SUFFIXES):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        wanted, got = theirs(image, return_word_box=True), ours(image, return_word_box=True)
        tally = compare(as_json(wanted), as_json(got), arguments.differences)
        found = compare_words(wanted, got)
        print(f"{tally}  words {found[0]:4} equal {found[1]:4} near {found[2]:4}  {path.name}")
        total.add(tally)
        words += found
    print(f"{total}  total: {total.equal_share():.2%} of texts equal")
    print(f"words of equal lines: {words[0]}, equal {words[1]}, within {WORD_TOLERANCE} pixels {words[2]}")
    return 0 if total.equal_share() >= 0.99 else 1


def as_json(page):
    """Its lines in the form of PaddleOCR 3.7's."""
    found = page.boxes is not None and len(page) > 0
    return {"rec_polys": page.boxes if found else [], "rec_texts": page.txts or (), "rec_scores": page.scores or ()}


def compare_words(wanted, got):
    """Of lines with the same text at the same place in the order: words, equal ones, and those whose boxes are near."""
    counts = np.zeros(3, int)
    for number, (text, theirs) in enumerate(zip(wanted.txts or (), wanted.word_results, strict=bool(wanted.txts))):
        ours = got.word_results[number] if number < len(got) and got.txts[number] == text else ()
        if not ours:
            continue
        counts[0] += len(theirs)
        for (word, _, box), (own_word, _, own_box) in zip(theirs, ours, strict=False):
            counts[1] += word == own_word
            counts[2] += np.abs(np.subtract(box, own_box)).max() <= WORD_TOLERANCE
    return counts


if __name__ == "__main__":
    sys.exit(main())
