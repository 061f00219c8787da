"""Models in Paddle's own format, which ONNX Runtime cannot read: converted once, by paddle2onnx where that is installed."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

from threadsafe_ocr import model_sets
from threadsafe_ocr.exceptions import ModelLoadError, ModelNotFoundError

# Paddle 2's format, and Paddle 3's.
_INSTALL = {".pdmodel": 'pip install "threadsafe-ocr[paddle]"', ".json": 'pip install "paddle2onnx>=2" "paddlepaddle>=3"'}
_EXTENSION = "paddle2onnx_cpp2py_export"
# What PP-OCR's networks need, and onnxruntime 1.22 reads.
_OPSET = 14


def readable(folder: Path) -> Path:
    """The folder itself where it has inference.onnx; where it has Paddle's format only, one in the cache with the same model as ONNX.

    Raises ModelNotFoundError where paddle2onnx is missing, ModelLoadError where it fails.
    """
    weights = folder / "inference.pdiparams"
    if (folder / "inference.onnx").is_file() or not weights.is_file():
        return folder
    network = next((path for path in (folder / "inference.pdmodel", folder / "inference.json") if path.is_file()), None)
    if network is None:
        raise ModelNotFoundError(f"{folder} has weights and no network: inference.pdmodel or inference.json is missing")
    digest = hashlib.sha256(network.read_bytes() + weights.read_bytes()).hexdigest()
    name = f"converted-{digest[:16]}"
    if not (model_sets.cache() / name / "inference.onnx").is_file():
        with model_sets.new_folder(name) as work:
            _convert(network, weights, work / "inference.onnx")
            config = folder / "inference.yml"
            if config.is_file():
                shutil.copyfile(config, work / config.name)
    return model_sets.cache() / name


def _export() -> Callable[[str, str, str], object]:
    """Writes a model, given its network and weights. Raises ImportError."""
    try:
        package = importlib.import_module("paddle2onnx")
    except ImportError:
        return _export_without_paddle()
    return lambda network, weights, target: package.export(network, weights, target, opset_version=_OPSET, verbose=False)


def _export_without_paddle() -> Callable[[str, str, str], object]:
    """By paddle2onnx 1.3's extension alone: its Python imports all of Paddle, half a gigabyte, for other formats than these."""
    found = importlib.util.find_spec("paddle2onnx")
    files = [file for folder in (found and found.submodule_search_locations) or () for file in Path(folder).glob(f"{_EXTENSION}.*")]
    if not files:
        raise ImportError("paddle2onnx is not installed")
    spec = importlib.util.spec_from_file_location(_EXTENSION, files[0])
    if spec is None or spec.loader is None:
        raise ImportError(f"{files[0]} cannot be loaded")
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)

    def export(network: str, weights: str, target: str) -> None:
        # As paddle2onnx 1.3.1's own `export` calls it: with checks and optimisations, no own operators, for ONNX Runtime, in f32.
        model = extension.export(network, weights, _OPSET, True, False, True, True, True, {}, "onnxruntime", "", "", False)
        Path(target).write_bytes(model)

    return export


def _convert(network: Path, weights: Path, target: Path) -> None:
    install = _INSTALL[network.suffix]
    try:
        export = _export()
    except ImportError as error:
        raise ModelNotFoundError(
            f"{network.parent} has Paddle's own format, and {error}; {install} converts it, or give a folder with inference.onnx"
        ) from error
    try:
        export(str(network), str(weights), str(target))
    except Exception as error:
        raise ModelLoadError(f"paddle2onnx cannot convert {network}: {error}; this format needs {install}") from error
    if not target.is_file():
        raise ModelLoadError(f"paddle2onnx wrote nothing for {network}; this format needs {install}")
    target.write_bytes(model_sets.without_subnormals(target.read_bytes()))
