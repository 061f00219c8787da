"""What ONNX Runtime says and writes, as the environment asks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_the_runtime_is_silent_unless_asked(run_python: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read = "ThreadSafeOCR(device='cpu').read(LINE)"
    monkeypatch.delenv("THREADSAFE_OCR_LOG", raising=False)
    assert run_python(read).stderr == ""
    monkeypatch.setenv("THREADSAFE_OCR_LOG", "info")
    assert "[I:onnxruntime:" in run_python(read).stderr
    monkeypatch.setenv("THREADSAFE_OCR_LOG", "warning")
    assert "[I:onnxruntime:" not in run_python(read).stderr


def test_a_profile_tells_provider_and_thread_of_every_node(run_python: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THREADSAFE_OCR_PROFILE", str(tmp_path / "run"))
    done = run_python(
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
    names = json.loads(done.stdout)
    events = [event for path in tmp_path.glob("run-*.json") for event in json.loads(path.read_text())]
    nodes = [event for event in events if event["cat"] == "Node"]
    assert {event["args"]["provider"] for event in nodes} == {"CPUExecutionProvider"}
    assert {names[str(event["tid"])].rstrip("0123456789") for event in nodes if str(event["tid"]) in names} == {"ocr-cpu-"}
