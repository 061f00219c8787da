#!/usr/bin/env python3
"""Records what the real RapidOCR 3.10 answers on tests/data/pages into tests/data/golden/rapidocr310.json.

    python -m venv oracle && oracle/bin/pip install rapidocr==3.10.0 onnxruntime==1.32.0 opencv-python-headless==4.11.0.86
    oracle/bin/python scripts/record_rapidocr.py

Its own defaults and networks; images are the arrays that OpenCV decodes.
"""

import argparse
import concurrent.futures
import importlib.metadata
import json
import logging
import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # recent versions otherwise write files and upload

import cv2
from rapidocr import RapidOCR

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = REPOSITORY / "tests/data/pages"
OUTPUT = REPOSITORY / "tests/data/golden/rapidocr310.json"
NAMES = (
    "docs_zh/qyxf-book-doc-p003.png",
    "derived/qyxf-book-doc-p011_skew7.png",
    "derived/qyxf-book-doc-p010_rot180.png",
    "scans_en/eurotext.png",
    "scans_en/table_img2table.png",
    *(f"rec_lines/{name}.png" for name in ("en0005", "en0014", "en0017", "zh0000", "zh0004", "zh0016")),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, help="a folder whose images are all recorded, instead of the tests' pages")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    folder = arguments.pages or PAGES
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))
    names = found if arguments.pages else NAMES
    with concurrent.futures.ProcessPoolExecutor(initializer=load) as pool:
        answers = dict(zip(names, pool.map(read, [folder / name for name in names]), strict=True))
    versions = {package: importlib.metadata.version(package) for package in ("rapidocr", "onnxruntime", "opencv-python-headless", "numpy")}
    golden = json.dumps({"versions": versions, "pages": answers}, ensure_ascii=False, indent=0)
    arguments.output.write_text(golden + "\n", encoding="utf-8")
    print(f"{len(answers)} pages, {sum(len(page['lines']) for page in answers.values())} texts")


def load():
    global ocr
    logging.disable(logging.WARNING)
    # One thread a process: ONNX Runtime's answer does not depend on their number.
    ocr = RapidOCR(params={"EngineConfig.onnxruntime.intra_op_num_threads": 1})


def read(path):
    """The whole reading; of a line its characters, recognition and orientation alone, of a scan its words, detection alone."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    whole = {"use_det": True, "use_cls": True, "use_rec": True}
    page = ocr(image, **whole, return_word_box=False)
    answer = {"markdown": page.to_markdown(), "lines": page.to_json() or []}
    if path.parent.name in ("rec_lines", "scans_en"):
        words = ocr(image, **whole, return_word_box=True, return_single_char_box=path.parent.name == "rec_lines")
        answer["words"] = [[[text, box] for text, _, box in line] for line in words.word_results]
    if path.parent.name == "rec_lines":
        line, looked = ocr(image, use_det=False), ocr(image, use_det=False, use_rec=False)
        answer["line"] = {"txt": line.txts[0], "score": line.scores[0]}
        answer["label"] = [looked.cls_res[0][0], float(looked.cls_res[0][1])]
    elif path.parent.name == "scans_en":
        answer["boxes"] = ocr(image, use_det=True, use_rec=False).boxes.tolist()
    return answer


if __name__ == "__main__":
    main()
