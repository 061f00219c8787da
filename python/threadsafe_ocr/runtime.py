"""Finds ONNX Runtime's library in whichever onnxruntime package is installed, without importing it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import sys
from pathlib import Path

from threadsafe_ocr import _core
from threadsafe_ocr.exceptions import EngineUnavailableError

UNSET = "unset ORT_DYLIB_PATH, or let it name ONNX Runtime's library"
GPU = ("onnxruntime-gpu",)
CPU = ("onnxruntime", "onnxruntime-openvino", "onnxruntime-gpu", "onnxruntime-migraphx", "onnxruntime-webgpu")


def library(*, gpu: bool) -> Path:
    """The library to load: ORT_DYLIB_PATH, else that of the flavour that fits, by its own version.

    Several flavours share one folder and leave libraries of different versions there, so a pattern is no guide.
    """
    given = os.environ.get("ORT_DYLIB_PATH")
    if given:
        return Path(given)
    spec = importlib.util.find_spec("onnxruntime")
    # A folder alone is what pip leaves of two builds that shared it.
    if spec is None or not spec.submodule_search_locations or not any(map(version, CPU)):
        raise EngineUnavailableError('ONNX Runtime is not installed; install it with: pip install "onnxruntime>=1.23"')
    folder = Path(next(iter(spec.submodule_search_locations))) / "capi"
    for name in (*GPU, *CPU) if gpu else CPU:
        if (found := version(name)) and (path := folder / _file_name(found)).is_file():
            return path
    raise EngineUnavailableError(
        f"{folder} has no library of an installed onnxruntime version (another flavour may have overwritten it); "
        'reinstall one: pip install --force-reinstall "onnxruntime>=1.23"'
    )


def version(name: str) -> str | None:
    """The version of an installed distribution; None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _file_name(version: str) -> str:
    if sys.platform == "win32":
        return "onnxruntime.dll"
    if sys.platform == "darwin":
        return f"libonnxruntime.{version}.dylib"
    return f"libonnxruntime.so.{version}"


# In the order in which they need each other.
NVIDIA = ("libcudart", "libcublasLt", "libcublas", "libnvrtc", "libcurand", "libcufft", "libcudnn")


def nvidia_libraries() -> list[str]:
    """NVIDIA's libraries from its PyPI packages, where they are installed, in loading order."""
    spec = importlib.util.find_spec("nvidia")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    found = [path for root in roots for path in sorted(Path(root).glob("*/lib/*.so.*"))]
    return [str(path) for name in NVIDIA for path in found if path.name.startswith(f"{name}.so")]


def has_gpu_flavour() -> bool:
    """Whether onnxruntime-gpu is installed."""
    return version("onnxruntime-gpu") is not None


_started = False
_gpu_failed = False


def start(device: str) -> None:
    """Loads ONNX Runtime for `device`, once a process.

    Raises EngineUnavailableError, saying what to install.
    """
    global _started
    gpu = device.startswith("cuda")
    if _started and not gpu:
        return  # any build runs on the CPU
    if gpu and not has_gpu_flavour() and not os.environ.get("ORT_DYLIB_PATH"):
        raise EngineUnavailableError(
            f'device="{device}" needs the GPU build of ONNX Runtime, which is not installed: pip uninstall -y onnxruntime && '
            'pip install "onnxruntime-gpu[cuda,cudnn]>=1.23" "onnx>=1.16"; it also needs an NVIDIA driver. Without a GPU use device="cpu"'
        )
    # onnxruntime 1.29 and later send telemetry from the moment the library starts, and hang forked children at exit.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        _core.init(str(library(gpu=gpu)), nvidia_libraries() if gpu else [])
    except EngineUnavailableError as error:
        if os.environ.get("ORT_DYLIB_PATH"):
            raise EngineUnavailableError(f"{UNSET}: {error}") from error
        raise
    _started = True


def may_use_gpu() -> bool:
    """Whether device="auto" tries a GPU: who installed the GPU build has one in mind. What failed once is not tried again."""
    return not _gpu_failed and has_gpu_flavour()


def use_cpu_instead(error: EngineUnavailableError) -> None:
    """device="auto" found no GPU that works: says why, once."""
    global _gpu_failed
    _gpu_failed = True
    logging.getLogger("threadsafe_ocr").warning('device="auto" uses the CPU although onnxruntime-gpu is installed: %s', error)
