"""The form of a network that runs on a GPU.

Copying to and from a card costs time, so a page or a line travels as bytes and what comes back is small: of a recogniser's 18,710 numbers a
column the best class and its probability. The graph is extended by that once, and kept in the cache folder.

    pixels   uint8    [N, height, width, 3], the image's own order of channels
    factor   float32  [3], offset float32 [3]: the network sees pixels * factor + offset
    output   of recognition float32 [N, columns, 2]: class and probability; else float32 and as the network has it
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from threadsafe_ocr import _core, model_sets
from threadsafe_ocr.exceptions import EngineUnavailableError, ModelLoadError

if TYPE_CHECKING:
    import onnx

    from threadsafe_ocr.ocr import ThreadSafeOCR

# Part of the files' names: raised with every change of the graphs made here.
FORM = 1
PRECISIONS = ("f32", "fp16")
# Kept in f32 at fp16: probabilities, which thresholds look at, and the sums and squares of the normalisations, which leave fp16's range.
SENSITIVE = ("Softmax", "Sigmoid", "ReduceMean", "Pow", "Sqrt")


def on_card(models: Any, precision: str) -> dict[Path, Path]:
    """For each ONNX file of the models the one to load on a GPU, at a precision of PRECISIONS, else at f32.

    Raises EngineUnavailableError where the package onnx is missing, ModelLoadError where a network is not what it should be.
    """
    wanted = precision if precision in PRECISIONS else "f32"
    return {file: prepared(file, kind, wanted) for file, kind in _core.networks(models, str(model_sets.folder()))}


def prepared(file: Path, kind: str, precision: str) -> Path:
    """The file in the form for a GPU, made where it is not in the cache folder."""
    content = file.read_bytes()
    name = f"{hashlib.sha256(content).hexdigest()[:16]}-{kind}-{precision}-{FORM}.onnx"
    path = model_sets.cache() / "cuda" / name
    if not path.is_file():
        made = extended(content, kind, precision, file).SerializeToString()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Whole or not at all: other processes may look for it now.
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{name}-", delete=False) as unfinished:
                unfinished.write(made)
            os.replace(unfinished.name, path)
        except OSError as error:
            raise EngineUnavailableError(
                f"{path.parent}, where networks for a GPU are kept, cannot be written ({error}); set THREADSAFE_OCR_CACHE to another folder"
            ) from error
    return path


def extended(content: bytes, kind: str, precision: str, file: Path) -> onnx.ModelProto:
    """The network with its steps from bytes, and to classes, at a precision of PRECISIONS."""
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError as error:
        raise EngineUnavailableError(
            f'device="cuda" prepares networks with a package that is missing ({error}): pip install "threadsafe-ocr[gpu]"'
        ) from error
    try:
        model = onnx.load_from_string(content)
    except Exception as error:
        raise ModelLoadError(f"{file} cannot be read ({error}); it must be a model in ONNX format, whole and readable") from error
    if len(model.graph.input) != 1 or len(model.graph.output) != 1:
        raise ModelLoadError(f"{file}: the model has {len(model.graph.input)} inputs and {len(model.graph.output)} outputs, not 1")
    drop_identities(model.graph)
    if precision == "fp16" and kind == "rec":
        fuse_gelu(model)
        to_fp16(model.graph)
    graph = model.graph
    (image,), (answer,) = graph.input, graph.output
    sizes = [(size.dim_param or "n", size.dim_value) for size in image.type.tensor_type.shape.dim]
    batch, _, height, width = (value or f"{name}.{place}" for place, (name, value) in enumerate(sizes))

    def tensor(name: str, kind: Any, shape: list[Any]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    before = [
        helper.make_node("Cast", ["pixels"], ["card.pixels.f32"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["card.pixels.f32", "factor"], ["card.pixels.scaled"]),
        helper.make_node("Add", ["card.pixels.scaled", "offset"], ["card.pixels.normalised"]),
        helper.make_node("Transpose", ["card.pixels.normalised"], [image.name], perm=[0, 3, 1, 2]),
    ]
    after = []
    if kind == "rec":
        columns = answer.type.tensor_type.shape.dim[1]
        after = [
            # Faster on a card than ArgMax with ReduceMax: 3.5 ms less of 20 for 16 lines of 1,280 pixels (H200).
            helper.make_node("TopK", [answer.name, "card.one"], ["card.probability", "card.class"], axis=2),
            helper.make_node("Cast", ["card.class"], ["card.class.f32"], to=TensorProto.FLOAT),
            helper.make_node("Concat", ["card.class.f32", "card.probability"], ["card.best"], axis=2),
        ]
        graph.initializer.append(helper.make_tensor("card.one", TensorProto.INT64, [1], [1]))
        answer = tensor("card.best", TensorProto.FLOAT, [batch, columns.dim_value or columns.dim_param or "columns", 2])
        del graph.output[:]
        graph.output.append(answer)
    nodes = [*before, *graph.node, *after]
    del graph.input[:]
    graph.input.extend(
        [
            tensor("pixels", TensorProto.UINT8, [batch, height, width, 3]),
            tensor("factor", TensorProto.FLOAT, [3]),
            tensor("offset", TensorProto.FLOAT, [3]),
        ]
    )
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def plan(ocr: ThreadSafeOCR) -> None:
    """Runs every width of a line, and an upright and a lying A4 page, on both workers of each network, which plan them: half a minute."""
    # A4 at detection's first look.
    pages = [np.full(shape, 255, np.uint8) for shape in ((1120, 800, 3), (800, 1120, 3)) for _ in range(2)]
    for _ in ocr.read_many(pages):
        pass
    for width in _core.line_widths():
        # Unlike ones, since like lines are read once; as many as two runs of orientation take.
        ocr.recognize([np.full((48, width, 3), shade, np.uint8) for shade in range(128)])


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
        found = [user for user in users.get(node.output[0], []) if user.op_type != "Identity"]
        return found[0] if len(found) == 1 and found[0].op_type == kind else None

    for erf in [node for node in graph.node if node.op_type == "Erf"]:
        scaled, plus = maker.get(erf.input[0]), only_user(erf, "Add")
        product = only_user(plus, "Mul") if plus else None
        half = only_user(product, "Mul") if product else None
        if not (plus and product and half and scaled) or scaled.op_type != "Div" or scaled.input[0] not in product.input:
            continue
        constants = [numbers.get(name) for node in (scaled, plus, half) for name in node.input if name in numbers]
        if [round(float(number.reshape(-1)[0]), 3) for number in constants if number is not None] != [1.414, 1.0, 0.5]:
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
