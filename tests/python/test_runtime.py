"""What ONNX Runtime says and writes, as the environment asks."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import _threadsafe_ocr_startup
import threadsafe_ocr
from conftest import HAS_UNIT, LINES, MODELS, PAGES, Run


def said(level: str | None, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("THREADSAFE_OCR_LOG", raising=False)
    if level is not None:
        monkeypatch.setenv("THREADSAFE_OCR_LOG", level)
    read = f"from threadsafe_ocr import ThreadSafeOCR; ThreadSafeOCR(device='cpu').read({str(LINES[0])!r})"
    return subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, timeout=50, check=True).stderr


def test_the_runtime_is_silent_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(None, monkeypatch) == ""
    assert "[I:onnxruntime:" in said("info", monkeypatch)
    assert "[I:onnxruntime:" not in said("warning", monkeypatch)


def test_a_profile_tells_provider_and_thread_of_every_node(run_python: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THREADSAFE_OCR_PROFILE", str(tmp_path / "run"))
    printed = run_python(
        """
        import json
        ocr = ThreadSafeOCR(device="cpu")
        ocr.read(LINE)
        names = names_of_threads()
        ocr.close()
        del ocr
        threadsafe_ocr.unload()
        print(json.dumps(names))
        """
    )
    names = json.loads(printed)
    events = [event for path in tmp_path.glob("run-*.json") for event in json.loads(path.read_text())]
    nodes = [event for event in events if event["cat"] == "Node"]
    assert {event["args"]["provider"] for event in nodes} == {"CPUExecutionProvider"}
    threads = {names[str(event["tid"])].rstrip("0123456789") for event in nodes if str(event["tid"]) in names}
    # The trial run of detection is made where the object is.
    assert threads - {"python"} == {"ocr-cpu-"}


@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="networks run there as ONNX Runtime optimises them")
@pytest.mark.parametrize("models", ["v6-small", "v6-small-int8", "lines of any height"])
def test_networks_run_with_own_operators_between_their_convolutions(
    models: str, run_python: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if models == "lines of any height":
        models = str(shutil.copytree(MODELS / "v6-small", tmp_path / "set"))
        network = onnx.load(tmp_path / "set/rec/inference.onnx")
        network.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
        onnx.save(network, tmp_path / "set/rec/inference.onnx")
    monkeypatch.delenv("THREADSAFE_OCR_AMX", raising=False)
    monkeypatch.setenv("THREADSAFE_OCR_PROFILE", str(tmp_path / "run"))
    run_python(
        f"""
        ocr = ThreadSafeOCR({models!r}, device="cpu", intra_op_num_threads=2)
        ocr.read(LINE)
        ocr.detect(LINE)
        ocr.close()
        del ocr
        threadsafe_ocr.unload()
        """
    )
    profiles = [json.loads(path.read_text()) for path in tmp_path.glob("run-*.json")]
    operators = [{event["args"].get("op_name") for event in events if event["cat"] == "Node"} for events in profiles]
    used = [names for names in operators if names]
    # Detection's two, made side by side with the others.
    assert len(used) == 4
    tiled = [names for names in used if "Convolution" in names]
    # A recogniser in f32, and nothing else.
    assert len(tiled) == (HAS_UNIT and models != "v6-small-int8")
    for names in used:
        integers = {"QuantizedGelu", "Quantize", "Dequantize", "DequantizedSum"}
        own = integers if "QLinearConv" in names else {"Chain"} if "Gemm" in names else {"Gelu", "Mean"}
        if names in tiled:
            own = {"ConvolutionSum", "Mean"}
        assert names >= own | {"Gate"}


@pytest.mark.matrix_unit
@pytest.mark.parametrize("precision", ["bf16", "fast"])
def test_in_bf16_detection_is_on_the_matrix_unit_too(
    precision: str, run_python: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("THREADSAFE_OCR_PROFILE", str(tmp_path / "run"))
    run_python(
        f"""
        ocr = ThreadSafeOCR(precision={precision!r}, device="cpu", intra_op_num_threads=1)
        ocr.detect(LINE)
        ocr.close()
        del ocr
        threadsafe_ocr.unload()
        """
    )
    profiles = [path.read_text() for path in tmp_path.glob("run-*.json")]
    # Nothing else of bf16 has run.
    assert sum('"ConvolutionSum"' in profile for profile in profiles) == 1


@pytest.mark.matrix_unit
def test_answers_are_the_same_with_the_processors_matrix_unit_and_without(
    run_python: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = """
        import json
        ocr = ThreadSafeOCR(device="cpu")
        lines = [line for page in (PAGE, CHINESE) for line in ocr.read(page).lines]
        print(json.dumps([[line.text, [list(map(float, corner)) for corner in line.polygon], line.score] for line in lines]))
        ocr.close()
        del ocr
        threadsafe_ocr.unload()
        """
    answers = []
    chinese = min((PAGES / "docs_zh").glob("*.png"))
    for wanted in ("0", "1"):
        monkeypatch.setenv("THREADSAFE_OCR_AMX", wanted)
        monkeypatch.setenv("THREADSAFE_OCR_PROFILE", str(tmp_path / f"run{wanted}"))
        answers.append(json.loads(run_python(script, before=f"CHINESE = {str(chinese)!r}\n")))
        profiles = [path.read_text() for path in tmp_path.glob(f"run{wanted}-*.json")]
        assert any('"ConvolutionSum"' in profile for profile in profiles) == (wanted == "1")
    without, with_unit = answers
    assert len(without) > 30
    assert [line[:2] for line in with_unit] == [line[:2] for line in without]
    assert max(abs(a[2] - b[2]) for a, b in zip(with_unit, without, strict=True)) < 0.003


def test_the_folder_that_pip_leaves_behind_is_no_installed_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    shutil.copytree(Path(threadsafe_ocr.__file__).parent, tmp_path / "threadsafe_ocr", ignore=shutil.ignore_patterns("models"))
    shutil.copy(_threadsafe_ocr_startup.__file__, tmp_path)
    numpy = Path(np.__file__).parent
    for path in (numpy, numpy.with_name("numpy.libs")):
        (tmp_path / path.name).symlink_to(path)
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import threadsafe_ocr.runtime; threadsafe_ocr.runtime.library(gpu=False)"
    monkeypatch.delenv("ORT_DYLIB_PATH", raising=False)
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.endswith('EngineUnavailableError: ONNX Runtime is not installed; install it with: pip install "onnxruntime>=1.23"')
