"""Flask under gunicorn's gevent workers. A greenlet that called `ocr.read` itself would hold up all others, so a real thread does."""

import gevent
from flask import Flask, request

from threadsafe_ocr import ThreadSafeOCR

app = Flask(__name__)
ocr = ThreadSafeOCR()


@app.post("/ocr")
def read():
    return gevent.get_hub().threadpool.apply(ocr.read, (request.data,)).to_dict()
