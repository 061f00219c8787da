"""One engine for a Flask application, its errors answered with their status, in the form of RFC 9457.

>>> from flask import Flask, request
>>> from threadsafe_ocr.flask import ThreadSafeOCR
>>> app = Flask(__name__)
>>> ocr = ThreadSafeOCR(app, timeout=30)
>>> @app.post("/ocr")
... def read():
...     return ocr.read(request.data).to_dict()
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from flask import Flask, Response

import threadsafe_ocr
from threadsafe_ocr import OcrError, problems

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from threadsafe_ocr.options import Settings


class ThreadSafeOCR(threadsafe_ocr.ThreadSafeOCR):
    """`threadsafe_ocr.ThreadSafeOCR`, and `init_app`. After a fork (gunicorn's `--preload`) a worker makes its own models on first use.

    Raises as `threadsafe_ocr.ThreadSafeOCR`.
    """

    def __new__(
        cls,
        app: Flask | None = None,
        *,
        models: Any = "v6-small",
        device: str = "auto",
        precision: str = "f32",
        **settings: Unpack[Settings],
    ) -> ThreadSafeOCR:
        self = super().__new__(cls, models, device=device, precision=precision, **settings)
        assert isinstance(self, ThreadSafeOCR)
        if app is not None:
            self.init_app(app)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the application, which is not of this process's making there.
        made, arguments = super().__reduce__()
        return functools.partial(threadsafe_ocr.ThreadSafeOCR, **made.keywords), arguments

    def init_app(self, app: Flask) -> None:
        """Warms the engine, and answers what it raises in `app`: `app.extensions["threadsafe_ocr"]`.

        Flask does not tell when an application is over. The engine ends with the process by itself; `close` ends it sooner.
        """
        self.warmup()
        app.register_error_handler(OcrError, _answer)
        app.extensions["threadsafe_ocr"] = self


def _answer(error: OcrError) -> Response:
    answer = problems.of(error)
    return Response(json.dumps(answer.body()), answer.status, answer.headers, mimetype=problems.MEDIA_TYPE)
