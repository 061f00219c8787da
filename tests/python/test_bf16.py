"""bfloat16 where it cannot be had; `tests/openvino` reads in it."""

from __future__ import annotations

import pytest

from threadsafe_ocr import ConfigError, EngineUnavailableError, ThreadSafeOCR, runtime


def test_a_processor_without_amx_is_told_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_amx", lambda: False)
    with pytest.raises(EngineUnavailableError, match=r'AMX.*use "f32" or "fast"'):
        ThreadSafeOCR(device="cpu", precision="bf16")


def test_without_openvino_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_amx", lambda: True)
    monkeypatch.setattr(runtime, "_openvino", lambda: None)
    with pytest.raises(EngineUnavailableError, match=r"pip install .*onnxruntime-ep-openvino"):
        ThreadSafeOCR(device="cpu", precision="bf16")
    assert not runtime.may_use_openvino()


def test_a_provider_that_cannot_be_loaded_is_named_and_f32_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(runtime, "has_amx", lambda: True)
    monkeypatch.setattr(runtime, "_openvino", lambda: f"{tmp_path}/none.so")
    with pytest.raises(EngineUnavailableError, match=r"none\.so.*force-reinstall onnxruntime-ep-openvino"):
        ThreadSafeOCR(device="cpu", precision="bf16")
    ThreadSafeOCR(device="cpu").close()


def test_a_gpu_has_none() -> None:
    with pytest.raises(ConfigError, match="fp16"):
        ThreadSafeOCR(device="cuda", precision="bf16")
