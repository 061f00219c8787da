"""One engine for a FastAPI application: made and warmed when it starts, closed when it stops, its errors answered with their status.

>>> from typing import Annotated
>>> from fastapi import Body, Depends, FastAPI
>>> from threadsafe_ocr import ThreadSafeOCR
>>> from threadsafe_ocr.fastapi import Lifespan, get_ocr
>>> app = FastAPI(lifespan=Lifespan(timeout=30, max_queue_size=64))
>>> @app.post("/ocr")
... async def read(image: Annotated[bytes, Body(media_type="image/png")], ocr: Annotated[ThreadSafeOCR, Depends(get_ocr)]):
...     return (await ocr.aread(image, wait=False)).to_dict()
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, HTTPException
from fastapi.requests import HTTPConnection

from threadsafe_ocr import OcrError, ThreadSafeOCR, problems

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from threadsafe_ocr.options import Settings


class Lifespan:
    """`FastAPI(lifespan=Lifespan(...))`; keywords as `ThreadSafeOCR`. The engine is `app.state.ocr`.

    Code of your own around it: `async with Lifespan(...)(app): yield` in a lifespan of yours.
    """

    def __init__(self, models: Any = "v6-small", *, device: str = "auto", precision: str = "f32", **settings: Unpack[Settings]) -> None:
        make = functools.partial(ThreadSafeOCR, models, device=device, precision=precision, **settings)
        self._make: Callable[[], ThreadSafeOCR] = make

    @contextlib.asynccontextmanager
    async def __call__(self, app: FastAPI) -> AsyncIterator[None]:
        """Made here, in the process that serves: after a fork, before the first request."""
        with self._make() as ocr:
            await asyncio.to_thread(ocr.warmup)
            app.state.ocr = ocr
            yield


lifespan = Lifespan()


async def get_ocr(connection: HTTPConnection) -> AsyncIterator[ThreadSafeOCR]:
    """`Depends(get_ocr)`: the engine, for `def` and `async def`. What it raises there is answered with the status of docs/errors.md."""
    try:
        yield connection.app.state.ocr
    except (OcrError, TypeError) as error:
        answer = problems.of(error)
        raise HTTPException(answer.status, answer.detail, answer.headers) from error
