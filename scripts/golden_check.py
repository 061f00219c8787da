#!/usr/bin/env python3
"""Compares threadsafe_ocr with recorded answers of PaddleOCR and fails when under 99.5 % of the texts are equal.

    python scripts/golden_check.py GOLDEN_DIR [--oracle 2.10]

GOLDEN_DIR holds images/ and the oracles' files, whose image paths begin with img/ in place of images/. Each image is decoded by OpenCV, as
the oracle did, and read with the model set and the options that mean what PaddleOCR does by default.
Needs threadsafe_ocr, numpy and opencv-python-headless.
"""

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from threadsafe_ocr import OcrError, ThreadSafeOCR

COMMON = {
    "det_thresh": 0.3,
    "det_box_thresh": 0.6,
    "det_unclip_ratio": 1.5,
    "rec_group": 6,
    "rec_min_width": 320,
    "rec_width_step": 1,
}
# Version -> its file and the settings that mean its defaults; 2.10 was recorded with use_angle_cls=True.
ORACLES = {
    "3.7": (
        "paddleocr3.7_ort_v6small.json",
        {
            **COMMON,
            "models": "v6-small",
            "det_limit_side_len": 64,
            "det_limit_type": "min",
            "det_max_side": 4000,
            "rec_score_thresh": 0.0,
            "rec_max_width": 3200,
            "use_textline_orientation": False,
        },
    ),
    "2.10": (
        "paddleocr2.10_onnx_v4.json",
        {
            **COMMON,
            "models": "v4-mobile",
            "numerics": "paddle2",
            "det_limit_side_len": 960,
            "det_limit_type": "max",
            "det_max_side": 65536,
            "det_max_candidates": 1000,
            "rec_score_thresh": 0.5,
            "rec_max_width": 65536,
            "use_textline_orientation": True,
        },
    ),
}
LEAST_EQUAL = 0.995
BOX_TOLERANCE = 1.0  # pixels, of every coordinate of a box


@dataclass
class Tally:
    oracle: int = 0  # lines the oracle has
    extra: int = 0  # lines only the product has
    texts: int = 0  # equal texts
    boxes: int = 0  # boxes within BOX_TOLERANCE
    in_order: int = 0  # lines that stand where the oracle has them
    score: float = 0.0  # largest difference of two scores of one text

    def add(self, other):
        self.oracle += other.oracle
        self.extra += other.extra
        self.texts += other.texts
        self.boxes += other.boxes
        self.in_order += other.in_order
        self.score = max(self.score, other.score)

    def equal_share(self):
        """A line too many counts like one too few."""
        lines = self.oracle + self.extra
        return self.texts / lines if lines else 1.0

    def __str__(self):
        return (
            f"lines {self.oracle:5}  extra {self.extra:3}  texts {self.texts:5}  boxes {self.boxes:5}  "
            f"in order {self.in_order:5}  score {self.score:.5f}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("golden", type=Path, metavar="GOLDEN_DIR")
    parser.add_argument("--differences", action="store_true", help="print every pair of unequal texts")
    parser.add_argument("--oracle", choices=ORACLES, default="3.7")
    arguments = parser.parse_args()
    file, settings = ORACLES[arguments.oracle]
    oracle = json.loads((arguments.golden / file).read_text(encoding="utf-8"))

    total = Tally()
    with ThreadSafeOCR(**settings) as ocr:
        for name, entry in oracle["images"].items():
            if "exc" in entry:
                print(f"{name}: the oracle failed ({entry['exc']}), left out")
                continue
            image = decode(arguments.golden / "images" / Path(name).relative_to("img"), entry["sha256"], arguments.oracle)
            try:
                lines = ocr.read(image).lines
            except OcrError as error:
                print(f"{name}: {error!r}")
                lines = ()
            tally = compare(entry.get("json") or as_json(entry["ocr"]), lines, arguments.differences)
            print(f"{tally}  {name}")
            total.add(tally)
    print(f"{total}  total: {total.equal_share():.2%} of texts equal")
    return 0 if total.equal_share() >= LEAST_EQUAL else 1


def decode(path, sha256, oracle):
    """3.7 turns a photo upright and drops alpha; 2.10 takes the pixels as they are stored and puts transparent ones on white."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        sys.exit(f"{path} is not the image the oracle read")
    if path.suffix == ".npy":
        return np.load(path)
    image = cv2.imread(str(path), cv2.IMREAD_COLOR if oracle == "3.7" else cv2.IMREAD_UNCHANGED)
    if image is None:
        sys.exit(f"OpenCV cannot read {path}")
    if image.ndim == 3 and image.shape[2] == 4:
        alpha = image[:, :, 3:] / 255
        image = (255 * (1 - alpha) + image[:, :, :3] * alpha).astype(np.uint8)
    return image


def as_json(answer):
    """2.10's lists in the form of 3.7's."""
    lines = answer[0] or []
    return {"rec_polys": [box for box, _ in lines], "rec_texts": [text for _, (text, _) in lines], "rec_scores": [s for _, (_, s) in lines]}


def compare(oracle, lines, print_differences=False):
    """The oracle's lines against the product's, each with the one whose box is nearest."""
    texts, scores = oracle["rec_texts"], oracle["rec_scores"]
    boxes = [np.asarray(box, float) for box in oracle["rec_polys"]]
    our_boxes = [np.asarray(line.polygon, float) for line in lines]
    pairs = pair_by_centre(boxes, our_boxes)

    tally = Tally(oracle=len(texts), extra=len(lines) - len(pairs))
    for theirs, text in enumerate(texts):
        ours = pairs.get(theirs)
        if ours is None:
            if print_differences:
                print(f"  {text!r} has no line here")
            continue
        tally.in_order += ours == theirs
        same_shape = boxes[theirs].shape == our_boxes[ours].shape
        tally.boxes += same_shape and np.abs(boxes[theirs] - our_boxes[ours]).max() <= BOX_TOLERANCE
        if lines[ours].text == text:
            tally.texts += 1
            tally.score = max(tally.score, abs(lines[ours].score - scores[theirs]))
        elif print_differences:
            print(f"  {text!r} {scores[theirs]:.4f} is here {lines[ours].text!r} {lines[ours].score:.4f}")
    return tally


def pair_by_centre(boxes, our_boxes):
    """Index of theirs -> index of ours, nearest centres first; each box is used once."""
    if not boxes or not our_boxes:
        return {}
    centres = np.array([box.mean(axis=0) for box in boxes])
    our_centres = np.array([box.mean(axis=0) for box in our_boxes])
    distances = np.linalg.norm(centres[:, np.newaxis] - our_centres, axis=2)
    pairs, used = {}, set()
    for flat in np.argsort(distances, axis=None, kind="stable"):
        theirs, ours = (int(index) for index in np.unravel_index(flat, distances.shape))
        if theirs not in pairs and ours not in used:
            pairs[theirs] = ours
            used.add(ours)
    return pairs


if __name__ == "__main__":
    sys.exit(main())
