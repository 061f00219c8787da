"""RapidOCR behind a plain FastAPI, as people write it. Runs in an environment of load.py. usage: load_service.py lock|pool PORT

lock: one object, one request at a time. pool: two processes, each with an object of its own.
"""

import multiprocessing
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import Annotated

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, File
from rapidocr import RapidOCR

app = FastAPI()


@app.post("/ocr")
def ocr(image_file: Annotated[bytes, File()]) -> list[str]:
    return read(image_file)


def read_here(content: bytes) -> list[str]:
    return list(engine(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)).txts or ())


def start() -> None:
    global engine
    engine = RapidOCR()


def locked(content: bytes) -> list[str]:
    with lock:
        return read_here(content)


if __name__ == "__main__":
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "lock":
        start()
        lock, read = threading.Lock(), locked
    else:
        processes = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), start)

        def read(content: bytes) -> list[str]:
            return processes.submit(read_here, content).result()

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
