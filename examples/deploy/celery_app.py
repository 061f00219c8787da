"""Celery: pages as tasks, from worker processes (prefork) or threads.

prefork imports this module before it forks: every child builds its own models and threads on its first page.
"""

import base64
import os

from celery import Celery

from threadsafe_ocr import ThreadSafeOCR

BROKER = os.environ.get("BROKER", "redis://127.0.0.1:6379/0")

app = Celery("celery_app", broker=BROKER, backend=os.environ.get("RESULTS", BROKER))
ocr = ThreadSafeOCR()


@app.task
def read(image):
    """image: a file's content in base64, since tasks travel as JSON."""
    return ocr.read(base64.b64decode(image)).to_dict()
