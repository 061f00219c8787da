"""The files that `make wheel` left in dist/, in clean environments: they install, and read what the build from source reads."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "tests" / "data" / "pages" / "docs_en" / "tex-nutshell-p013.png"
UV = ROOT / ".cache" / "wheel" / "bin" / "uv"

READ = """
import json, sys
from threadsafe_ocr import ThreadSafeOCR
with ThreadSafeOCR(device="cpu") as ocr:
    print(json.dumps([[line.text, line.score, line.polygon.tolist()] for line in ocr.read(sys.argv[1]).lines]))
"""


def built(pattern: str) -> Path:
    (path,) = (ROOT / "dist").glob(pattern)
    return path


def environment(folder: Path, python: str) -> Path:
    """The interpreter of a new, empty environment. uv finds that Python on PATH (with pyenv: in PYENV_VERSION) or downloads it."""
    done = subprocess.run([UV, "venv", "--quiet", "--python", python, folder], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"Python {python} is not here and uv could not download it; {done.stderr.splitlines()[0]}")
    return folder / "bin" / "python"


def install(python: Path, package: Path, *options: str, path: str) -> None:
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *options, package]
    subprocess.run(command, check=True, timeout=900, env={**os.environ, "PATH": path})


def read(python: str | Path, home: Path, **variables: str) -> Any:
    """Text, score and polygon of every line of the page, read in a namespace whose only network is a loopback that is down."""
    unshare = shutil.which("unshare")
    assert unshare, "unshare (util-linux) is needed to read without a network"
    done = subprocess.run(
        [unshare, "--map-root-user", "--net", python, "-I", "-c", READ, PAGE],
        env={"HOME": str(home), "PATH": "", **variables}, cwd=home, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def read_by_the_source_build(python: Path, home: Path) -> Any:
    """What the installation that runs the tests reads with that environment's ONNX Runtime: a score's last bits depend on its version."""
    (library,) = python.parents[1].glob("lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*")
    return read(sys.executable, home, ORT_DYLIB_PATH=str(library))


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_the_wheel_reads_as_the_source_build_without_compiler_and_network(version: str, tmp_path: Path) -> None:
    python = environment(tmp_path / "environment", version)
    install(python, built("*.whl"), "--only-binary=:all:", path=str(python.parent))
    lines = read(python, tmp_path)
    assert len(lines) > 20
    assert lines == read_by_the_source_build(python, tmp_path)


def test_the_wheel_brings_the_pth_that_replaces_other_packages(tmp_path: Path) -> None:
    python = environment(tmp_path / "environment", sys.executable)
    install(python, built("*.whl"), "--only-binary=:all:", path=str(python.parent))
    script = "import subprocess, sys; print(subprocess.run([sys.executable, '-c', sys.argv[1]], capture_output=True, text=True).stdout)"
    child = "from rapidocr import RapidOCR; print(RapidOCR.__module__)"
    variables = {"PATH": "", "THREADSAFE_OCR_AS": "rapidocr"}
    done = subprocess.run([python, "-c", script, child], env=variables, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "threadsafe_ocr.compat.rapidocr.ocr"


def test_the_sdist_builds_and_reads_as_the_source_build(tmp_path: Path) -> None:
    python = environment(tmp_path / "environment", sys.executable)
    install(python, built("*.tar.gz"), "--only-binary=numpy,onnxruntime", path=os.environ["PATH"])
    assert read(python, tmp_path) == read_by_the_source_build(python, tmp_path)


def test_the_wheel_is_for_every_python_from_3_10_and_every_glibc_from_2_28() -> None:
    assert built("*.whl").name.endswith(f"-cp310-abi3-manylinux_2_28_{platform.machine()}.whl")


def test_the_wheel_is_below_40_mb() -> None:
    assert built("*.whl").stat().st_size < 40e6


def test_the_wheel_says_what_is_in_it() -> None:
    with zipfile.ZipFile(built("*.whl")) as wheel:
        (metadata,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
        for name in ("LICENSE", "THIRD_PARTY.md", "models/NOTICE"):
            assert wheel.read(f"{metadata}/licenses/{name}") == (ROOT / name).read_bytes()
        bill = json.loads(wheel.read(f"{metadata}/sboms/threadsafe-ocr.cyclonedx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    assert {"image", "ort", "pyo3"} <= {component["name"] for component in bill["components"]}


def test_the_wheel_brings_the_pytest_plugin() -> None:
    with zipfile.ZipFile(built("*.whl")) as wheel:
        (points,) = (wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/entry_points.txt"))
        assert {"pytest_threadsafe_ocr/plugin.py", "pytest_threadsafe_ocr/py.typed"} <= set(wheel.namelist())
    assert "[pytest11]\nthreadsafe_ocr=pytest_threadsafe_ocr.plugin" in points.replace(" ", "")


def test_the_wheel_has_the_page_of_the_service() -> None:
    folder = ROOT / "python" / "threadsafe_ocr" / "server" / "static"
    with zipfile.ZipFile(built("*.whl")) as wheel:
        assert {f"threadsafe_ocr/server/static/{path.name}" for path in folder.iterdir()} <= set(wheel.namelist())


def test_the_sdist_leaves_the_pages_of_the_tests_out() -> None:
    with tarfile.open(built("*.tar.gz")) as sdist:
        assert [name for name in sdist.getnames() if "/tests/data/" in name] == []
