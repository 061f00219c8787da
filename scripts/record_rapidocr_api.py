#!/usr/bin/env python3
"""Records what a real server of rapidocr_api answers for a page, into tests/data/golden/rapidocr_api.json.

    python -m venv oracle
    oracle/bin/pip install rapidocr_api==0.2.0 rapidocr==3.10.0 onnxruntime==1.32.0 opencv-python-headless==4.11.0.86 httpx
    oracle/bin/python scripts/record_rapidocr_api.py
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = "formats/q30.jpg"
OUTPUT = REPOSITORY / "tests/data/golden/rapidocr_api.json"
PORT = 9003


def main():
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}  # recent versions otherwise write files and upload
    server = subprocess.Popen([str(Path(sys.executable).with_name("rapidocr_api")), "-ip", "127.0.0.1", "-p", str(PORT)], env=environment)
    try:
        answer = ask((REPOSITORY / "tests/data/pages" / PAGE).read_bytes())
    finally:
        server.terminate()
    versions = {name: importlib.metadata.version(name) for name in ("rapidocr_api", "rapidocr", "onnxruntime")}
    lines = ",\n".join(f"{json.dumps(number)}: {json.dumps(line, ensure_ascii=False)}" for number, line in answer.items())
    OUTPUT.write_text(f'{{"versions": {json.dumps(versions)}, "page": {json.dumps(PAGE)}, "answer": {{\n{lines}\n}}}}\n', encoding="utf-8")
    print(OUTPUT)


def ask(content):
    while True:
        try:
            return httpx.post(f"http://127.0.0.1:{PORT}/ocr", files={"image_file": content}, timeout=60).raise_for_status().json()
        except httpx.ConnectError:
            time.sleep(0.5)


if __name__ == "__main__":
    main()
