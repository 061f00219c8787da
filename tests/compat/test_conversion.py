"""Networks in Paddle's own format, as users of PaddleOCR 2.x have them, converted by the real paddle2onnx. `make test-compat`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from test_services import DOWNLOADS, ROOT, home

from threadsafe_ocr.compat.paddle import PaddleOCR

__all__ = ["home"]  # the fixture

PAGE = ROOT / "tests" / "data" / "pages" / "formats" / "rgb.png"
FOLDERS = dict(zip(("det_model_dir", "rec_model_dir", "cls_model_dir"), DOWNLOADS, strict=True))


def test_own_networks_in_paddles_format_read_as_the_set_of_the_same_networks(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREADSAFE_OCR_CACHE", str(tmp_path))
    assert importlib.util.find_spec("paddle2onnx"), 'pip install "threadsafe-ocr[paddle]"'
    subprocess.run([sys.executable, "-m", "threadsafe_ocr.cli", "models", "get", "v4-mobile"], check=True)
    (wanted,) = PaddleOCR(api="2", use_angle_cls=True).ocr(str(PAGE))
    assert len(wanted) > 20
    own = {name: str(home / ".paddleocr" / "whl" / folder) for name, folder in FOLDERS.items()}
    converted = PaddleOCR(api="2", use_angle_cls=True, **own)
    assert set(converted.model_settings["2"].values()) == set(own.values())
    (found,) = converted.ocr(str(PAGE))
    assert [box for box, _ in found] == [box for box, _ in wanted]
    assert [text for _, (text, _) in found] == [text for _, (text, _) in wanted]
    assert max(abs(a[1][1] - b[1][1]) for a, b in zip(found, wanted, strict=True)) < 1e-3
