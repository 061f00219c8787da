#!/usr/bin/env python3
"""Writes models/v6-small-int8: the recogniser of v6-small with most of its products in integers of 8 bits.

    python scripts/quantize_recogniser.py PAGES     # a folder of images, none of them a page that accuracy is judged by
    python scripts/prepare_models.py                # brings the manifest up to date

The lines of the pages show how far the values of every layer go. Convolutions of 1x1, four fifths of the products, get integers: their weights 7
bits a value and a scale for each output (with 8 bits the 16-bit sums of processors without VNNI overflow, and texts would depend on the
processor), their inputs and outputs 8 bits. The first layers, depthwise and pooled ones and the attention at the end stay in f32: they cost
little and lose most. The last layer's weights are 8 bits in the file only. All other weights are half precision in the file.

Needs threadsafe_ocr, pillow, scipy, onnx 1.23, sympy; made with onnxruntime 1.32.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # recent versions otherwise write files and upload

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper, version_converter
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image
from scipy.special import erf
from threadsafe_ocr import ThreadSafeOCR, _core, card_models

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCE = REPOSITORY / "models/v6-small/rec/inference.onnx"
TARGET = REPOSITORY / "models/v6-small-int8/rec/inference.onnx"
HEAD = "linear_8.w_0"
BINS = 4096
LINES = 400


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path)
    lines = list(sample_lines(parser.parse_args().pages))
    print(f"{len(lines)} lines")
    with tempfile.TemporaryDirectory() as name:
        prepared, quantized = Path(name) / "prepared.onnx", Path(name) / "quantized.onnx"
        prepare(prepared)
        model = onnx.load(prepared)
        chosen = layers(model)
        limits = {value: [{"rmin": low, "rmax": high}] for value, (low, high) in limits_of(model, chosen, lines).items()}
        quantization.quantize_static(
            prepared,
            quantized,
            Lines(model.graph.input[0].name, lines[:1]),
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=chosen,
            extra_options={"TensorQuantOverrides": limits},
        )
        model = onnx.load(quantized)
    integers = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT8]
    # Twice 255 * 64 fits into 16 bits.
    if not all(-64 <= values.min() and values.max() <= 64 for values in integers):
        sys.exit("there are weights of 8 bits")
    make_small(model)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, TARGET)
    print(f"wrote {TARGET}, {TARGET.stat().st_size} bytes")


def sample_lines(folder):
    """Lines of the pages as the recogniser's input."""
    crops = []
    with ThreadSafeOCR() as ocr:
        for file in sorted(folder.iterdir()):
            page = np.ascontiguousarray(np.asarray(Image.open(file).convert("RGB"))[:, :, ::-1])
            found = ocr.read(page).lines
            crops += _core.crops(page, np.array([line.polygon for line in found], np.float32).reshape(-1, 4, 2))
    if not crops:
        sys.exit(f"no lines in {folder}")
    for crop in [crops[k] for k in np.random.default_rng(0).permutation(len(crops))[:LINES]]:
        width = min(max(round(48 * crop.shape[1] / crop.shape[0]), 8), 3200)
        tensor = np.zeros((1, 3, 48, -(-width // 32) * 32), np.float32)
        tensor[0, :, :, :width] = np.asarray(Image.fromarray(crop).resize((width, 48)), np.float32).transpose(2, 0, 1) / 127.5 - 1
        yield tensor


class Lines(quantization.CalibrationDataReader):
    """The library wants to see some."""

    def __init__(self, name, lines):
        self._left = iter([{name: line} for line in lines])

    def get_next(self):
        return next(self._left, None)


def prepare(path):
    """The network with shapes and folded constants, at an opset that has scales for each output, and Gelu as the one operator that it is.

    The runtime does not find it between integers: 11 ms of a line of 640 pixels for 4.
    """
    onnx.save(version_converter.convert_version(onnx.load(SOURCE), 17), path)
    quant_pre_process(path, path, skip_symbolic_shape=True)
    model = onnx.load(path)
    card_models.fuse_gelu(model)
    if any(node.op_type == "Erf" for node in model.graph.node):
        sys.exit("there is a Gelu in another form")
    onnx.save(model, path)


def layers(model):
    """The convolutions of 1x1 between the first layers and the pooling before the attention, but for those of single columns."""
    sizes = {weights.name: list(weights.dims) for weights in model.graph.initializer}
    nodes = list(model.graph.node)
    end = next(place for place, node in enumerate(nodes) if node.op_type == "AveragePool")
    means = {node.output[0] for node in nodes if node.op_type == "ReduceMean"}
    gates = set(means)
    for node in nodes:
        if node.op_type in ("Conv", "Relu") and node.input[0] in gates:
            gates.add(node.output[0])
    seen_depthwise, chosen = False, []
    for node in nodes[:end]:
        if node.op_type != "Conv":
            continue
        size = sizes[node.input[1]]
        seen_depthwise |= size[1] == 1
        if seen_depthwise and size[1] > 1 and size[2:] == [1, 1] and node.input[0] not in gates:
            chosen.append(node.name)
    return chosen


def limits_of(model, chosen, lines):
    """Value -> the least and the largest number that its integers stand for: where rounding and cutting off together lose least.

    What goes into Gelu is judged behind it, where all below -3 is 0.
    """
    nodes = {node.name: node for node in model.graph.node}
    before_gelu = {node.input[0] for node in model.graph.node if node.op_type == "Gelu"}
    values = sorted({name for layer in chosen for name in (nodes[layer].input[0], nodes[layer].output[0])})
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    seen.graph.output.extend(helper.make_tensor_value_info(value, TensorProto.FLOAT, None) for value in values)
    session = ort.InferenceSession(seen.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(line):
        return zip(values, session.run(values, {session.get_inputs()[0].name: line}), strict=True)

    ends = dict.fromkeys(values, (0.0, 0.0))
    for line in lines:
        for name, found in run(line):
            ends[name] = (min(ends[name][0], float(found.min())), max(ends[name][1], float(found.max())))
    counts = dict.fromkeys(values, 0)
    for line in lines:
        for name, found in run(line):
            counts[name] = counts[name] + np.histogram(found, BINS, ends[name])[0]
    return {name: best_limits(counts[name], *ends[name], gelu if name in before_gelu else np.asarray) for name in values}


def best_limits(counts, low, high, then):
    middles = (np.arange(BINS) + 0.5) / BINS * (high - low) + low
    wanted, best = then(middles), None
    for least in np.linspace(0.1, 1, 46) * low:
        for most in np.linspace(0.1, 1, 46) * high:
            step = (most - least) / 255
            error = (counts * (then(np.round((middles - least) / step).clip(0, 255) * step + least) - wanted) ** 2).sum()
            if best is None or error < best[0]:
                best = (error, np.float32(least), np.float32(most))
    return best[1:]


def gelu(values):
    return values * 0.5 * (1 + erf(values / np.sqrt(2)))


def make_small(model):
    """The last layer's weights to integers, other large ones to half precision; the runtime, and this package, make them f32 again."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    del model.graph.value_info[:]
    for name, tensor in weights.items():
        values = numpy_helper.to_array(tensor)
        if name == HEAD:
            scale = np.abs(values).max(axis=0) / 127
            stored = [("integers", np.round(values / scale).astype(np.int8)), ("scale", scale)]
            node = helper.make_node("DequantizeLinear", [f"{name}.{part}" for part, _ in stored], [name], axis=1)
        elif tensor.data_type == TensorProto.FLOAT and values.ndim > 1 and values.size > 1000:
            stored = [("half", values.astype(np.float16))]
            node = helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT)
        else:
            continue
        model.graph.initializer.remove(tensor)
        model.graph.initializer.extend(numpy_helper.from_array(array, f"{name}.{part}") for part, array in stored)
        model.graph.node.insert(0, node)


if __name__ == "__main__":
    main()
