#!/usr/bin/env python3
"""Records what the real PaddleOCR answers to every call of tests/python/paddle_calls.py, into tests/data/golden/paddleocr{27,210,37}_calls.json.

    .cache/before-after/environment/bin/pip install pyyaml pymupdf    (of `make before-after`, with 2.7.3)
    .cache/before-after/environment/bin/python scripts/record_compat.py
    python -m venv oracle2
    oracle2/bin/pip install paddlepaddle==2.6.2 "numpy<2" setuptools paddleocr==2.10.0 onnxruntime==1.23.2 pymupdf
    oracle2/bin/python scripts/record_compat.py
    python -m venv oracle3 && oracle3/bin/pip install paddleocr==3.7.0 paddlex==3.7.2 onnxruntime==1.32.0
    oracle3/bin/python scripts/record_compat.py

All run on onnxruntime with the files of models/v6-small: other weights than those of 2.x, the same code around them.
"""

import zlib  # noqa: F401 - before paddle, which brings another one

import importlib.metadata
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # recent versions otherwise write files and upload
os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"  # the files are here, no hub is asked

import cv2
from paddleocr import PaddleOCR

REPOSITORY = Path(__file__).resolve().parent.parent
MODELS = REPOSITORY / "models/v6-small"
sys.path.insert(0, str(REPOSITORY / "tests/python"))

from paddle_calls import answer, calls2, calls3, make_files


def main():
    version = importlib.metadata.version("paddleocr")
    record = record_2 if version.startswith("2.") else record_3
    target = REPOSITORY / f"tests/data/golden/paddleocr{''.join(version.split('.')[:2])}_calls.json"
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(given, ensure_ascii=False)}" for name, given in record().items())
    target.write_text(f'{{"version": {json.dumps(version)}, "answers": {{\n{rows}\n}}}}\n', encoding="utf-8")
    print(target)


def record_2():
    import yaml

    characters = yaml.safe_load((MODELS / "rec/inference.yml").read_text(encoding="utf-8"))["PostProcess"]["character_dict"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as dictionary:
        dictionary.write("".join(f"{character}\n" for character in characters))
        dictionary.flush()
        ocr = PaddleOCR(
            use_onnx=True,
            use_gpu=False,
            show_log=False,
            use_angle_cls=True,
            lang="ch",
            rec_char_dict_path=dictionary.name,
            **{f"{part}_model_dir": str(MODELS / part / "inference.onnx") for part in ("det", "rec", "cls")},
        )
        return record_calls(calls2, ocr, lambda path: cv2.imread(str(path), cv2.IMREAD_UNCHANGED))


def record_3():
    ocr = PaddleOCR(
        text_detection_model_name="PP-OCRv6_small_det",
        text_detection_model_dir=str(MODELS / "det"),
        text_recognition_model_name="PP-OCRv6_small_rec",
        text_recognition_model_dir=str(MODELS / "rec"),
        use_doc_orientation_classify=False,
        use_doc_unwarping=False,
        use_textline_orientation=False,
        engine="onnxruntime",
        device="cpu",
    )
    return record_calls(calls3, ocr, lambda path: cv2.imread(str(path)))


def record_calls(calls, ocr, read):
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_files(Path(folder))
        return {name: answer(call, Path(folder)) for name, call in calls(ocr, read, Path(folder)).items()}


if __name__ == "__main__":
    main()
