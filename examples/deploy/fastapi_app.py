"""FastAPI under uvicorn, or under gunicorn with uvicorn's workers: one engine a process, made where the module is imported."""

from typing import Annotated

from fastapi import Body, FastAPI

from threadsafe_ocr import ThreadSafeOCR

app = FastAPI()
ocr = ThreadSafeOCR()

Image = Annotated[bytes, Body(media_type="application/octet-stream")]


@app.post("/def")
def read_in_a_thread(image: Image):
    return ocr.read(image).to_dict()


@app.post("/async")
async def read_in_the_loop(image: Image):
    return (await ocr.aread(image)).to_dict()
