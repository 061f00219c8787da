"""A service as people write it for PaddleOCR: one object for `def` (FastAPI's threads), `async def` (which it blocks), threads of one's own
and background tasks. It fails with PaddleOCR 2.7.3 (`make test-compat`).

With `from threadsafe_ocr.compat.paddle import PaddleOCR` instead of the line below this package reads. (In an `async def` of your own
rather `await ocr.aread(...)` of `ThreadSafeOCR`: a call that blocks keeps the loop's other requests waiting, whoever makes it.)

    python fastapi_app.py PORT
"""

import asyncio
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import cv2
import numpy as np
import uvicorn
from fastapi import BackgroundTasks, Body, FastAPI
from paddleocr import PaddleOCR

app = FastAPI()
ocr = PaddleOCR(use_angle_cls=True, lang="ch", show_log=False)
threads = ThreadPoolExecutor(4)
jobs = {}

Upload = Annotated[bytes, Body(media_type="application/octet-stream")]


def read(content):
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    lines = ocr.ocr(image, cls=True)[0] or []
    return [text for _, (text, _) in lines]


@app.post("/def")
def in_a_thread(content: Upload):
    return read(content)


@app.post("/async")
async def in_the_loop(content: Upload):
    return read(content)


@app.post("/threads")
async def in_threads_of_our_own(content: Upload):
    return await asyncio.get_running_loop().run_in_executor(threads, read, content)


@app.post("/background")
def later(content: Upload, tasks: BackgroundTasks):
    job = uuid.uuid4().hex
    tasks.add_task(work, job, content)
    return job


def work(job, content):
    try:
        jobs[job] = read(content)
    except (RuntimeError, ValueError, IndexError) as error:
        jobs[job] = f"failed: {error}"


@app.get("/background/{job}")
def result(job: str):
    return jobs.pop(job, None)


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
