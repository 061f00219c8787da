"""bfloat16 where it cannot be had; `tests/openvino` reads in it."""

from __future__ import annotations

import pytest

from conftest import Run
from threadsafe_ocr import ConfigError, EngineUnavailableError, ThreadSafeOCR, runtime


def test_a_processor_without_amx_is_told_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_amx", lambda: False)
    with pytest.raises(EngineUnavailableError, match=r'AMX.*use "f32", "int8" or "fast"'):
        ThreadSafeOCR(device="cpu", precision="bf16")


def test_without_openvino_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_amx", lambda: True)
    monkeypatch.setattr(runtime, "openvino", lambda: None)
    with pytest.raises(EngineUnavailableError, match=r"pip install .*onnxruntime-ep-openvino"):
        ThreadSafeOCR(device="cpu", precision="bf16")


def test_a_provider_that_cannot_be_loaded_is_named(run_python: Run) -> None:
    run_python("""
        from threadsafe_ocr import EngineUnavailableError, runtime
        runtime.has_amx, runtime.openvino = lambda: True, lambda: "none.so"
        try:
            ThreadSafeOCR(precision="bf16")
        except EngineUnavailableError as error:
            assert "none.so" in str(error) and "force-reinstall onnxruntime-ep-openvino" in str(error), error
        else:
            raise AssertionError("it was taken")
    """)


def test_a_gpu_has_none_and_auto_does_not_ask_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="fp16"):
        ThreadSafeOCR(device="cuda", precision="bf16")
    monkeypatch.setattr(runtime, "has_amx", lambda: False)
    monkeypatch.setattr(runtime, "may_use_gpu", lambda: True)
    with pytest.raises(EngineUnavailableError, match="AMX"):
        ThreadSafeOCR(device="auto", precision="bf16")
