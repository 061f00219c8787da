"""Throw-away environments, one for each mix of onnxruntime packages, and the stand-ins for NVIDIA's libraries."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PAGES = ROOT / "tests" / "data" / "pages"
PAGE, LINE = PAGES / "formats" / "rgb.png", PAGES / "rec_lines" / "en0005.png"
FOLDER = ROOT / ".cache" / "flavours"

# Versions of which both packages exist, so that one can overwrite the other; the stand-in follows their CUDA.
CPU, GPU = "1.32.0", "1.31.1"
CPU_PACKAGE, GPU_PACKAGE = f"onnxruntime=={CPU}", f"onnxruntime-gpu=={GPU}"
# What the provider is linked to. cuDNN, cuFFT and NVRTC (0.7 GB more) are opened later than these tests get.
NVIDIA_PACKAGES = ("nvidia-cuda-runtime==13.*", "nvidia-cublas==13.*", "nvidia-curand==10.*")
# It makes the networks' form for a card.
ONNX = ("onnx", "ml-dtypes", "protobuf", "typing-extensions")


@dataclass(frozen=True)
class Environment:
    """A virtual environment with this package and some onnxruntime packages."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def capi(self) -> Path:
        return next(self.folder.glob("lib/python3*/site-packages/onnxruntime/capi"))

    def pip_install(self, *packages: str) -> None:
        subprocess.run([self.python, "-m", "pip", "install", "-q", "--no-deps", *packages], check=True, timeout=900)

    def run(self, script: str, *, libraries: Path | None = None, **variables: str | Path) -> Any:
        """What `script` says with answer(..), in a process of its own; a crash or anything on stderr fails.

        libraries: a folder that the loader searches first. In the script `tell(call, ..)` is the error of a call, `logged` what was logged.
        """
        prelude = f"""
            import json, logging, os, threading
            import threadsafe_ocr
            from threadsafe_ocr import EngineUnavailableError, ThreadSafeOCR
            PAGE, LINE = {str(PAGE)!r}, {str(LINE)!r}
            def answer(value): print(json.dumps(value))
            def texts(ocr): return [line.text for line in ocr.read(PAGE).lines]
            def tell(call, *arguments, **keywords):
                try: call(*arguments, **keywords)
                except EngineUnavailableError as error: return str(error)
                raise SystemExit("no error")
            def mapped(name): return sorted({{line.split()[-1] for line in open("/proc/self/maps") if name in line}})
            logged = []
            class Keep(logging.Handler):
                def emit(self, record): logged.append(record.getMessage())
            logging.getLogger("threadsafe_ocr").addHandler(Keep())
        """
        known = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(libraries or ""), "THREADSAFE_OCR_CACHE": str(FOLDER / "cache")}
        done = subprocess.run(
            [self.python, "-c", textwrap.dedent(prelude) + textwrap.dedent(script)],
            env={**known, **{name: str(value) for name, value in variables.items()}},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0 and not done.stderr, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def make_environment() -> Iterator[Callable[..., Environment]]:
    """Makes an environment and installs packages in the given order."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", FOLDER, ROOT], check=True, timeout=900)
    (wheel,) = FOLDER.glob("*.whl")

    def make(name: str, *packages: tuple[str, ...]) -> Environment:
        made = Environment(FOLDER / name)
        subprocess.run([sys.executable, "-m", "venv", made.folder], check=True, timeout=120)
        made.pip_install("numpy", *ONNX, str(wheel))
        for step in packages:
            made.pip_install(*step)
        return made

    yield make
    shutil.rmtree(FOLDER)


@pytest.fixture(scope="session")
def without(make_environment: Callable[..., Environment]) -> Environment:
    return make_environment("without")


@pytest.fixture(scope="session")
def gpu_only(make_environment: Callable[..., Environment]) -> Environment:
    return make_environment("gpu_only", (GPU_PACKAGE, *NVIDIA_PACKAGES))


@pytest.fixture(scope="session")
def cpu_then_gpu(make_environment: Callable[..., Environment]) -> Environment:
    return make_environment("cpu_then_gpu", (CPU_PACKAGE,), (GPU_PACKAGE,))


@pytest.fixture(scope="session")
def gpu_then_cpu(make_environment: Callable[..., Environment]) -> Environment:
    return make_environment("gpu_then_cpu", (GPU_PACKAGE,), (CPU_PACKAGE,))


def compile_library(target: Path, *sources: Path) -> None:
    subprocess.run(["cc", "-w", "-shared", "-fPIC", "-o", target, *sources], check=True, timeout=60)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the driver of a machine that has no card."""
    folder = tmp_path_factory.mktemp("driver")
    compile_library(folder / "libcuda.so.1", HERE / "driver.c")
    return folder


@pytest.fixture(scope="session")
def card(tmp_path_factory: pytest.TempPathFactory, cpu_then_gpu: Environment) -> Path:
    """A folder with the libraries of two cards that compute nothing."""
    folder = tmp_path_factory.mktemp("card")
    provider = cpu_then_gpu.capi / "libonnxruntime_providers_cuda.so"
    linked = subprocess.run(["nm", "-D", "-u", provider], capture_output=True, text=True, check=True, timeout=60).stdout
    needed = set(re.findall(r" U ((?:__)?cu\w+)", linked))
    # cuDNN is not linked, its functions are looked up by name.
    needed |= {name.decode() for name in re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", provider.read_bytes())}
    written = (HERE / "card.c").read_text()
    missing = sorted(name for name in needed if not re.search(rf"\b{name}\(", written))
    (folder / "rest.c").write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in missing))
    compile_library(folder / "libcuda.so.1", HERE / "card.c", folder / "rest.c")
    for name in ("libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10", "libcudnn.so.9"):
        (folder / name).symlink_to("libcuda.so.1")
    return folder
