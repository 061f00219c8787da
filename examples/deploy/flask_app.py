"""Flask: its own threaded server, or gunicorn's threads. One engine a process, made where the module is imported."""

from flask import Flask, request

from threadsafe_ocr import ThreadSafeOCR

app = Flask(__name__)
ocr = ThreadSafeOCR()


@app.post("/ocr")
def read():
    return ocr.read(request.data).to_dict()
