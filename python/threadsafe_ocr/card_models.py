"""The form of a network that runs on a GPU.

Copying to and from a card costs time, so a page or a line travels as bytes and what comes back is small: of a recogniser's 18,710 numbers a
column the best class and its probability. The graph is extended by that once, and kept in the cache folder.

    card.pixels  uint8   [N, height, width, 3], the image's own order of channels
    card.factor  float32 [3], card.offset float32 [3]: the network sees pixels * factor + offset
    output       of recognition float32 [N, columns, 2], class and probability; else float32 and as the network has it
    metadata     "classes": the recogniser's, which the output does not tell any more
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from threadsafe_ocr import _core, model_sets
from threadsafe_ocr.exceptions import ConfigError, EngineUnavailableError, InferenceError, InvalidImageError, ModelLoadError

if TYPE_CHECKING:
    import onnx

    from threadsafe_ocr.ocr import ThreadSafeOCR

# Part of the files' names: raised with every change of the graphs made here.
FORM = 2
# Kept in f32 at fp16: probabilities, which thresholds look at, and the sums and squares of the normalisations, which leave fp16's range.
SENSITIVE = ("Softmax", "Sigmoid", "ReduceMean", "Pow", "Sqrt")
# Dimensions of what a network of each kind gives.
ANSWERS = {"det": 4, "rec": 3, "cls": 2}
# Seconds for planning one shape; it takes 2 to 4.
PLANNING = 120


def on_card(models: Any, precision: str) -> dict[Path, Path]:
    """For each ONNX file of the models the one to load on a GPU; at "fp16" of recognisers in half precision, else in f32.

    Raises EngineUnavailableError where the package onnx or a cache folder that can be written is missing, ModelLoadError where a network is
    not what it should be, ModelNotFoundError.
    """
    prepared_files = {}
    for file, kind in _core.networks(models, str(model_sets.folder())):
        state = file.stat()
        prepared_files[file] = prepared(file, kind, precision == "fp16" and kind == "rec", state.st_size, state.st_mtime_ns)
    return prepared_files


@functools.lru_cache
def prepared(file: Path, kind: str, half: bool, *_state: int) -> Path:
    """The file in the form for a GPU, made where it is not in the cache folder; looked at once a process, while its state stays."""
    content = file.read_bytes()
    name = f"{hashlib.sha256(content).hexdigest()[:16]}-{kind}{'-fp16' if half else ''}-{FORM}.onnx"
    try:
        path = model_sets.cache() / ".cuda" / name
        if not path.is_file():
            made = extended(file, kind, half=half).SerializeToString()
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(path, made)
    except (ConfigError, OSError) as error:
        raise EngineUnavailableError(
            f"networks for a GPU cannot be kept in the cache folder ({error}); set THREADSAFE_OCR_CACHE to a folder that can be written"
        ) from error
    return path


def _write_whole(path: Path, content: bytes) -> None:
    """Whole or not at all: other processes may look for it now."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as unfinished:
        try:
            unfinished.write(content)
            unfinished.close()
            # As other files of the folder: another user may run the service.
            Path(unfinished.name).chmod(0o644)
            os.replace(unfinished.name, path)
        except BaseException:
            Path(unfinished.name).unlink(missing_ok=True)
            raise


def extended(file: Path, kind: str, *, half: bool) -> onnx.ModelProto:
    """The network with its steps from bytes, and to classes; `half`: its inner numbers are fp16.

    Raises EngineUnavailableError where the package onnx is missing, ModelLoadError.
    """
    try:
        import onnx
        from onnx import version_converter
    except ImportError as error:
        raise EngineUnavailableError(
            f'device="cuda" prepares networks with a package that is missing ({error}): pip install "onnx>=1.16"'
        ) from error
    try:
        model = onnx.load(file)
        if max((entry.version for entry in model.opset_import if not entry.domain), default=0) < 11:
            model = version_converter.convert_version(model, 11)
        _check(model.graph, kind)
        drop_identities(model.graph)
        if half:
            fuse_gelu(model)
            to_fp16(model.graph)
        if kind == "rec":
            _tell_classes(model)
        _take_pixels(model.graph)
    # Whatever onnx makes of a file that is none.
    except Exception as error:
        raise ModelLoadError(
            f"{file} cannot be prepared for a GPU ({error}); it must be a {kind} model in ONNX format, whole and readable"
        ) from error
    return model


def _check(graph: onnx.GraphProto, kind: str) -> None:
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ValueError(f"it has {len(inputs)} inputs and {len(graph.output)} outputs, not 1")
    del graph.input[:]
    graph.input.extend(inputs)
    taken, given = (len(value.type.tensor_type.shape.dim) for value in (inputs[0], graph.output[0]))
    if (taken, given) != (4, ANSWERS[kind]):
        raise ValueError(f"its input has {taken} dimensions and its output {given}, not 4 and {ANSWERS[kind]}")
    batch = inputs[0].type.tensor_type.shape.dim[0].dim_value
    if batch > 0 and kind != "det":
        raise ValueError(f"it takes {batch} at once, and a GPU's runs take more: export it with a free first dimension")


def _take_pixels(graph: onnx.GraphProto) -> None:
    from onnx import TensorProto, helper

    (image,) = graph.input
    sizes: list[int | str] = [size.dim_value or f"card.{place}" for place, size in enumerate(image.type.tensor_type.shape.dim)]
    shapes: dict[str, list[int | str]] = {"card.pixels": [sizes[0], sizes[2], sizes[3], 3], "card.factor": [3], "card.offset": [3]}
    kinds = dict.fromkeys(shapes, TensorProto.FLOAT) | {"card.pixels": TensorProto.UINT8}
    nodes = [
        helper.make_node("Cast", ["card.pixels"], ["card.f32"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["card.f32", "card.factor"], ["card.scaled"]),
        helper.make_node("Add", ["card.scaled", "card.offset"], ["card.normalised"]),
        helper.make_node("Transpose", ["card.normalised"], [image.name], perm=[0, 3, 1, 2]),
        *graph.node,
    ]
    del graph.input[:], graph.node[:]
    graph.input.extend(helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in shapes.items())
    graph.node.extend(nodes)


def _tell_classes(model: onnx.ModelProto) -> None:
    from onnx import TensorProto, helper

    graph = model.graph
    (answer,) = graph.output
    batch, columns, classes = answer.type.tensor_type.shape.dim
    sizes = [batch.dim_value or "card.0", columns.dim_value or "card.columns", 2]
    # Faster on a card than ArgMax with ReduceMax: 3.5 ms less of 20 for 16 lines of 1,280 pixels (H200).
    graph.initializer.append(helper.make_tensor("card.one", TensorProto.INT64, [1], [1]))
    graph.node.extend(
        [
            helper.make_node("TopK", [answer.name, "card.one"], ["card.probability", "card.class"], axis=2),
            helper.make_node("Cast", ["card.class"], ["card.class.f32"], to=TensorProto.FLOAT),
            helper.make_node("Concat", ["card.class.f32", "card.probability"], ["card.best"], axis=2),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("card.best", TensorProto.FLOAT, sizes))
    model.metadata_props.add(key="classes", value=str(classes.dim_value))


def plan(ocr: ThreadSafeOCR) -> None:
    """Runs every width of a line, and an upright and a lying A4 page, on both workers of each network, which plan them: half a minute.

    A shape that this object refuses, or for which the card has no memory, is logged and left to the requests that need it.
    """

    def planned(run: Callable[..., object], images: list[Any]) -> None:
        try:
            run(images, timeout=PLANNING)
        except (InferenceError, InvalidImageError) as error:
            logging.getLogger("threadsafe_ocr").warning("not planned beforehand: %s", error)

    def read(pages: list[Any], timeout: float) -> None:
        deque(ocr.read_many(pages, timeout=timeout), maxlen=0)

    # A4 at detection's first look.
    for shape in ((1120, 800, 3), (800, 1120, 3)):
        planned(read, [np.full(shape, 255, np.uint8)] * 2)
    # Unlike lines, since like ones are read once; as many as two runs take, of twice the default size.
    for width in _core.line_widths():
        planned(ocr.recognize, [np.full((48, width, 3), shade, np.uint8) for shade in range(64)])


def drop_identities(graph: onnx.GraphProto) -> None:
    """Names what an Identity passes on by its first name: Paddle's exports pass weights through them, which hides them as such."""
    answers = {answer.name for answer in graph.output}
    first: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        node.input[:] = [first.get(name, name) for name in node.input]
        if node.op_type == "Identity" and node.output[0] not in answers:
            first[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def fuse_gelu(model: onnx.ModelProto) -> None:
    """Makes x / sqrt(2) -> Erf -> + 1 -> * x -> * 0.5 one operation of ONNX Runtime's, which looks for it in f32 only."""
    from onnx import helper, numpy_helper

    graph = model.graph
    maker = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    numbers = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}

    def only_user(node: onnx.NodeProto, kind: str) -> onnx.NodeProto | None:
        found = users.get(node.output[0], [])
        return found[0] if len(found) == 1 and found[0].op_type == kind else None

    for erf in [node for node in graph.node if node.op_type == "Erf"]:
        scaled, plus = maker.get(erf.input[0]), only_user(erf, "Add")
        product = only_user(plus, "Mul") if plus else None
        half = only_user(product, "Mul") if product else None
        if not (plus and product and half and scaled) or scaled.op_type != "Div" or scaled.input[0] not in product.input:
            continue
        constants = [numbers[name] for node in (scaled, plus, half) for name in node.input if name in numbers]
        if [round(float(number.reshape(-1)[0]), 3) for number in constants] != [1.414, 1.0, 0.5]:
            continue
        half.CopyFrom(helper.make_node("Gelu", [scaled.input[0]], half.output, domain="com.microsoft"))
        for node in (scaled, erf, plus, product):
            graph.node.remove(node)
    if not any(entry.domain == "com.microsoft" for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def to_fp16(graph: onnx.GraphProto) -> None:
    """Makes the numbers inside of a network fp16; those that go in and come out stay f32.

    onnxconverter-common 1.16 does it too, but fails on PP-OCRv6's recognisers ("the downstream node of the second cast node").
    """
    from onnx import TensorProto, helper, numpy_helper

    tensors = {weight.name: weight for weight in graph.initializer}
    tensors |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    weights = {name: tensor for name, tensor in tensors.items() if tensor.data_type == TensorProto.FLOAT}
    nodes: list[onnx.NodeProto] = []
    made: set[str] = set()
    # Means and deviations: a layer's normalisation is one operation where all of it is f32.
    moments: set[str] = set()
    # The precision of every tensor that holds numbers of the network; those that hold sizes are not here.
    precision = {value.name: TensorProto.FLOAT for value in graph.input}

    def at(name: str, wanted: int) -> str:
        """The tensor's name at another precision."""
        is_weight = name in weights
        if precision.get(name, TensorProto.FLOAT) == wanted or not (is_weight or name in precision):
            return name
        other = f"{name}.{TensorProto.DataType.Name(wanted).lower()}"
        if other not in made:
            made.add(other)
            if is_weight:
                half = numpy_helper.to_array(weights[name]).clip(-65504, 65504).astype("float16")
                graph.initializer.append(numpy_helper.from_array(half, other))
            else:
                nodes.append(helper.make_node("Cast", [name], [other], to=wanted))
        return other

    for node in graph.node:
        takes = [name for name in node.input if name in precision or name in weights]
        if takes and node.op_type not in ("Shape", "Cast"):
            is_sensitive = node.op_type in SENSITIVE or (node.op_type in ("Sub", "Add", "Div") and any(name in moments for name in takes))
            if node.op_type in ("ReduceMean", "Sqrt"):
                moments.update(node.output)
            wanted = TensorProto.FLOAT if is_sensitive else TensorProto.FLOAT16
            # What Resize takes beside the tensor are scales and sizes.
            count = 1 if node.op_type == "Resize" else len(node.input)
            inputs = [at(name, wanted) for name in node.input[:count]] + list(node.input[count:])
            node.input[:] = inputs
            precision.update(dict.fromkeys(node.output, wanted))
        nodes.append(node)
    for answer in graph.output:
        if precision[answer.name] == TensorProto.FLOAT16:
            inner = f"{answer.name}.inner"
            for node in nodes:
                for names in (node.input, node.output):
                    names[:] = [inner if name == answer.name else name for name in names]
            nodes.append(helper.make_node("Cast", [inner], [answer.name], to=TensorProto.FLOAT))
    used = {name for node in nodes for name in node.input}
    initializers = [weight for weight in graph.initializer if weight.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(initializers)
