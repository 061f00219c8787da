"""Starlette's background tasks: a request is answered at once, the page is read afterwards. The answers are kept by one process."""

import uuid

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse
from starlette.routing import Route

from threadsafe_ocr import OcrError, ThreadSafeOCR

ocr = ThreadSafeOCR()
pages = {}


def read(number, image):
    try:
        pages[number] = ocr.read(image).to_dict()
    except OcrError as error:
        pages[number] = {"error": str(error)}


async def start(request):
    number, image = uuid.uuid4().hex, await request.body()
    return JSONResponse({"page": f"/pages/{number}"}, 202, background=BackgroundTask(read, number, image))


async def page(request):
    """The page, once; 404 until it is there."""
    found = pages.pop(request.path_params["number"], None)
    return JSONResponse(found, 200 if found else 404)


app = Starlette(routes=[Route("/pages", start, methods=["POST"]), Route("/pages/{number}", page)])
