"""`threadsafe-ocr paddle`: both command lines of PaddleOCR."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import TEXT
from paddle_calls import CROP
from threadsafe_ocr.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:PaddleOCR. :UserWarning")
SMALL = ["--text_detection_model_name", "PP-OCRv6_small_det", "--text_recognition_model_name=PP-OCRv6_small_rec"]


def test_the_third_generations_prints_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    off = ["--use_doc_orientation_classify", "False", "--use_doc_unwarping", "false", "--use_textline_orientation", "False"]
    assert main(["paddle", "ocr", "-i", str(CROP), "--save_path", str(tmp_path), "--text_rec_score_thresh", "0.5", *off, *SMALL]) == 0
    printed = capsys.readouterr().err
    assert printed.startswith("{'res': {'input_path'")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["en0005_ocr_res_img.png", "en0005_res.json"]
    saved = json.loads((tmp_path / "en0005_res.json").read_text(encoding="utf-8"))
    assert (saved["rec_texts"], saved["text_rec_score_thresh"]) == ([TEXT], 0.5)


def test_the_second_generations_prints_lines_and_saves_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save = ["--savefile", "true", "--output", str(tmp_path / "out")]
    assert main(["paddle", "--image_dir", str(CROP), "--use_angle_cls", "true", "--use_gpu", "false", "--lang", "en", *save]) == 0
    title, line = capsys.readouterr().out.splitlines()
    assert title == f"**********{CROP}**********"
    assert repr(TEXT) in line
    assert repr(TEXT) in (tmp_path / "out" / "en0005.txt").read_text(encoding="utf-8")
    assert main(["paddle", "--image_dir", str(CROP), "--det", "false", *SMALL]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"({TEXT!r}, 0.9")


def test_without_an_image_it_says_how_to_call_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paddle", "--help"]) == 0
    assert main(["paddle", "ocr"]) == 2
    assert capsys.readouterr().out.count("--image_dir") == 2
    for wrong in ("page.png", "text_recognition"):
        with pytest.raises(SystemExit, match="2"):
            main(["paddle", wrong])
        assert "there is ocr alone" in capsys.readouterr().err
    assert main(["paddle", "--image_dir"]) == 2
    assert main(["paddle", "ocr", "-i", "missing.png", *SMALL]) == 1
    assert "missing.png" in capsys.readouterr().err
