"""Models in Paddle's own format, which ONNX Runtime cannot read: converted once, by paddle2onnx where that is installed."""

from __future__ import annotations

import hashlib
import importlib
import shutil
from pathlib import Path

from threadsafe_ocr import model_sets
from threadsafe_ocr.exceptions import ModelLoadError, ModelNotFoundError

# Paddle 2's format, and Paddle 3's.
_INSTALL = {".pdmodel": 'pip install "threadsafe-ocr[paddle]"', ".json": 'pip install "paddle2onnx>=2" "paddlepaddle>=3"'}
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


def _convert(network: Path, weights: Path, target: Path) -> None:
    install = _INSTALL[network.suffix]
    try:
        paddle2onnx = importlib.import_module("paddle2onnx")
    except ImportError as error:
        raise ModelNotFoundError(
            f"{network.parent} has Paddle's own format, and {error}; {install} converts it, or give a folder with inference.onnx"
        ) from error
    try:
        paddle2onnx.export(str(network), str(weights), str(target), opset_version=_OPSET, verbose=False)
    except Exception as error:
        raise ModelLoadError(f"paddle2onnx cannot convert {network}: {error}; this format needs {install}") from error
    if not target.is_file():
        raise ModelLoadError(f"paddle2onnx wrote nothing for {network}; this format needs {install}")
    target.write_bytes(model_sets.without_subnormals(target.read_bytes()))
