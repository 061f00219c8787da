"""What ONNX Runtime says and writes, as the environment asks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import LINES, Run


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
        names = {task: open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")}
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
