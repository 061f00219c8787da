#!/usr/bin/env python3
"""Records what the real PaddleOCR answers on tests/data/pages into tests/data/golden/paddleocr37.json.

    python -m venv oracle && oracle/bin/pip install paddleocr==3.7.0 paddlex==3.7.2 onnxruntime==1.32.0
    oracle/bin/python scripts/record_golden.py

PaddleOCR runs on onnxruntime with the files of models/v6-small and its own defaults; document and line orientation are
off. "pages" holds whole readings of every image, "lines" holds recognition alone, one crop a run, of rec_lines/.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # recent versions otherwise write files and upload
os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"  # the files are here, no hub is asked

import cv2
from paddleocr import PaddleOCR, TextRecognition

REPOSITORY = Path(__file__).resolve().parent.parent
MODELS = REPOSITORY / "models/v6-small"
PAGES = REPOSITORY / "tests/data/pages"
OUTPUT = REPOSITORY / "tests/data/golden/paddleocr37.json"
SUFFIXES = {".png", ".jpg", ".bmp", ".tif", ".webp"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()

    common = {"engine": "onnxruntime", "device": "cpu"}
    ocr = PaddleOCR(
        text_detection_model_name="PP-OCRv6_small_det",
        text_detection_model_dir=str(MODELS / "det"),
        text_recognition_model_name="PP-OCRv6_small_rec",
        text_recognition_model_dir=str(MODELS / "rec"),
        use_doc_orientation_classify=False,
        use_doc_unwarping=False,
        use_textline_orientation=False,
        **common,
    )
    recognizer = TextRecognition(model_name="PP-OCRv6_small_rec", model_dir=str(MODELS / "rec"), **common)

    pages, lines, settings = {}, {}, None
    for path in sorted(path for path in PAGES.rglob("*") if path.suffix in SUFFIXES):
        image = decode(path)
        if image is None:
            print(f"left out, transparent: {path.name}")
            continue
        name, entry = path.relative_to(PAGES).as_posix(), identity(path, image)
        page = ocr.predict(image)[0].json["res"]
        settings = {key: page[key] for key in ("text_det_params", "text_rec_score_thresh")}
        pages[name] = entry | {
            "dt_polys": page["dt_polys"],
            "rec_texts": page["rec_texts"],
            "rec_scores": [rounded(score) for score in page["rec_scores"]],
            "rec_polys": page["rec_polys"],
        }
        if path.parent.name == "rec_lines":
            line = recognizer.predict(image, batch_size=1)[0].json["res"]
            lines[name] = entry | {"rec_text": line["rec_text"], "rec_score": rounded(line["rec_score"])}

    golden = {"versions": versions(), "settings": settings, "pages": pages, "lines": lines}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(dump(golden), encoding="utf-8")
    print(f"{len(pages)} pages, {sum(len(page['rec_texts']) for page in pages.values())} texts, {len(lines)} lines")


def decode(path):
    """The BGR array PaddleOCR would make of the file; None where pixels are transparent.

    OpenCV drops transparency (black on transparent becomes all black), which is no answer to compare with.
    """
    alpha = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if alpha.ndim == 3 and alpha.shape[2] == 4 and alpha[..., 3].min() < 255:
        return None
    return cv2.imread(str(path), cv2.IMREAD_COLOR)


def identity(path, image):
    """The file and the pixels: where only the second differs, it is the decoder's version, not the reading."""
    return {
        "sha256": sha256(path.read_bytes()),
        "pixels_sha256": sha256(image.tobytes()),
        "height": image.shape[0],
        "width": image.shape[1],
    }


def versions():
    packages = {name: importlib.metadata.version(name) for name in ("paddleocr", "paddlex", "onnxruntime", "numpy")}
    models = {
        f"{stage}/{name}": sha256((MODELS / stage / name).read_bytes())
        for stage in ("det", "rec")
        for name in ("inference.onnx", "inference.yml")
    }
    return packages | {"cv2": cv2.__version__, "models_sha256": models}


def rounded(score):
    return round(float(score), 5)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def dump(golden):
    """JSON with one image a line: small, and a changed answer is one changed line."""
    sections = []
    for key, value in golden.items():
        if key in ("pages", "lines"):
            value = ",\n".join(member(name, row) for name, row in value.items())
            sections.append(f"{json.dumps(key)}: {{\n{value}\n}}")
        else:
            sections.append(member(key, value))
    return "{\n" + ",\n".join(sections) + "\n}\n"


def member(key, value):
    return f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"


if __name__ == "__main__":
    main()
