#!/usr/bin/env python3
"""Compares threadsafe_ocr.compat.paddle.PaddleOCR with recorded answers of PaddleOCR.

Fails when too few texts or numbers of lines are equal; of arrays also when a box, a score, a key or a kind of value differs.

    python scripts/golden_check.py GOLDEN_DIR [--oracle 2.10] [--files]

GOLDEN_DIR holds images/ and the oracles' files, whose image paths begin with img/ in place of images/. Each image is decoded by OpenCV, as
the oracle did, or with --files by threadsafe_ocr. Needs threadsafe_ocr, numpy, pillow and opencv-python-headless.
"""

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from threadsafe_ocr import OcrError
from threadsafe_ocr.compat.paddle import PaddleOCR

# Version -> its file, and what its PaddleOCR was made with.
ORACLES = {
    "3.7": (
        "paddleocr3.7_ort_v6small.json",
        {
            "api": "3",
            "text_detection_model_name": "PP-OCRv6_small_det",
            "text_recognition_model_name": "PP-OCRv6_small_rec",
            "use_doc_orientation_classify": False,
            "use_doc_unwarping": False,
            "use_textline_orientation": False,
        },
    ),
    "2.10": ("paddleocr2.10_onnx_v4.json", {"api": "2", "use_angle_cls": True, "strict_models": True}),
}
# Shares of texts, and of pages with as many lines.
LEAST_EQUAL = {"arrays": (0.995, 1.0), "files": (0.99, 0.95)}
SAME_LINE = 0.7  # overlap (intersection over union) from which two boxes are of one line
BOX_TOLERANCE = 2.0  # pixels, of every coordinate of a box
SCORE_TOLERANCE = 0.01


@dataclass
class Tally:
    oracle: int = 0  # lines the oracle has
    extra: int = 0  # lines only the product has
    paired: int = 0  # lines both have
    same_count: int = 0  # pages with as many lines
    pages: int = 0
    alike: int = 0  # pages whose other parts are equal: 2.10's boxes in the order found; 3.7's keys, kinds, settings, word boxes
    texts: int = 0  # equal texts
    boxes: int = 0  # boxes within BOX_TOLERANCE
    in_order: int = 0  # lines that stand where the oracle has them
    score: float = 0.0  # largest difference of two scores of one text

    def add(self, other):
        self.oracle += other.oracle
        self.extra += other.extra
        self.paired += other.paired
        self.same_count += other.same_count
        self.pages += other.pages
        self.alike += other.alike
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
            f"in order {self.in_order:5}  score {self.score:.5f}  same count {self.same_count:2} of {self.pages:2}, alike {self.alike:2}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("golden", type=Path, metavar="GOLDEN_DIR")
    parser.add_argument("--differences", action="store_true", help="print every pair of unequal texts")
    parser.add_argument("--oracle", choices=ORACLES, default="3.7")
    parser.add_argument("--files", action="store_true", help="let threadsafe_ocr decode the images")
    arguments = parser.parse_args()
    file, keywords = ORACLES[arguments.oracle]
    oracle = json.loads((arguments.golden / file).read_text(encoding="utf-8"))

    total = Tally()
    ocr = PaddleOCR(**keywords)
    for name, entry in oracle["images"].items():
        if "exc" in entry:
            print(f"{name}: the oracle failed ({entry['exc']}), left out")
            continue
        path = arguments.golden / "images" / Path(name).relative_to("img")
        image = decode(path, entry["sha256"], arguments.oracle)
        given = str(path) if arguments.files and path.suffix != ".npy" else image
        try:
            answer, alike = READ[arguments.oracle](ocr, given, entry)
        except OcrError as error:
            print(f"{name}: {error!r}")
            answer, alike = as_json([None]), False
        tally = compare(entry.get("json") or as_json(entry["ocr"]), answer, arguments.differences)
        tally.alike = alike
        print(f"{tally}  {name}")
        total.add(tally)
    ocr.close()
    print(f"{total}  total: {total.equal_share():.2%} of texts equal")
    failed = failures(total, arguments.files)
    print(*failed, sep="\n", end="\n" if failed else "")
    return 1 if failed else 0


def failures(total, files):
    """What is not as it must be. Of files the pixels may differ a little, so boxes and scores too."""
    least_texts, least_counts = LEAST_EQUAL["files" if files else "arrays"]
    wrong = {
        f"fewer than {least_texts:.1%} of texts are equal": total.equal_share() < least_texts,
        f"fewer than {least_counts:.0%} of pages have as many lines": total.same_count < least_counts * total.pages,
        f"a box is more than {BOX_TOLERANCE:g} pixels off": not files and total.boxes < total.paired,
        f"a score is more than {SCORE_TOLERANCE:g} off": not files and total.score > SCORE_TOLERANCE,
        "a page is not alike": not files and total.alike < total.pages,
    }
    return [what for what, failed in wrong.items() if failed]


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


def read_2(ocr, given, entry):
    """The answer, and whether the boxes are those of detection alone, in its order."""
    answer = ocr.ocr(given, cls=True)
    return as_json(answer), ocr.ocr(given, rec=False)[0] == entry["det_unsorted"]


def read_3(ocr, given, entry):
    """The answer, and whether its keys, their order, the kinds of values and all but the lines are as recorded."""
    answer, recorded = ocr.predict(given, return_word_box=True)[0].json["res"], entry["json"]
    lines = {"input_path", "dt_polys", "rec_texts", "rec_scores", "rec_polys", "rec_boxes"}
    same_kinds = [(k, kind(v)) for k, v in answer.items() if k != "input_path"] == [
        (k, kind(v)) for k, v in recorded.items() if k != "input_path"
    ]
    return answer, same_kinds and all(answer[k] == v for k, v in recorded.items() if k not in lines)


def kind(value):
    """A value's type; of a list also its first entry's, of a dict those of its values."""
    if isinstance(value, dict):
        return {key: kind(item) for key, item in value.items()}
    return [kind(item) for item in value[:1]] if isinstance(value, list) else type(value)


READ = {"2.10": read_2, "3.7": read_3}


def as_json(answer):
    """2.10's lists in the form of 3.7's."""
    lines = answer[0] or []
    return {"rec_polys": [box for box, _ in lines], "rec_texts": [text for _, (text, _) in lines], "rec_scores": [s for _, (_, s) in lines]}


def compare(oracle, answer, print_differences=False):
    """The oracle's lines against the product's, each with the one whose box it shares."""
    texts, scores = oracle["rec_texts"], oracle["rec_scores"]
    our_texts, our_scores = answer["rec_texts"], answer["rec_scores"]
    boxes, our_boxes = ([np.asarray(box, float) for box in page["rec_polys"]] for page in (oracle, answer))
    pairs = pair_by_overlap(boxes, our_boxes)

    tally = Tally(len(texts), len(our_texts) - len(pairs), len(pairs), same_count=len(texts) == len(our_texts), pages=1)
    for theirs, text in enumerate(texts):
        ours = pairs.get(theirs)
        if ours is None:
            if print_differences:
                print(f"  {text!r} has no line here")
            continue
        tally.in_order += ours == theirs
        same_shape = boxes[theirs].shape == our_boxes[ours].shape
        tally.boxes += same_shape and np.abs(boxes[theirs] - our_boxes[ours]).max() <= BOX_TOLERANCE
        if our_texts[ours] == text:
            tally.texts += 1
            tally.score = max(tally.score, abs(our_scores[ours] - scores[theirs]))
        elif print_differences:
            print(f"  {text!r} {scores[theirs]:.4f} is here {our_texts[ours]!r} {our_scores[ours]:.4f}")
    return tally


def pair_by_overlap(boxes, our_boxes):
    """Index of theirs -> index of ours, those that overlap most first; each box is used once."""
    overlaps = [(overlap(theirs, ours), i, j) for i, theirs in enumerate(boxes) for j, ours in enumerate(our_boxes)]
    pairs, used = {}, set()
    for share, theirs, ours in sorted(overlaps, key=lambda found: -found[0]):
        if share >= SAME_LINE and theirs not in pairs and ours not in used:
            pairs[theirs] = ours
            used.add(ours)
    return pairs


def overlap(a, b):
    """Intersection over union of two convex polygons."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    shared, _ = cv2.intersectConvexConvex(a, b)
    union = cv2.contourArea(a) + cv2.contourArea(b) - shared
    return shared / union if union else 0.0


if __name__ == "__main__":
    sys.exit(main())
