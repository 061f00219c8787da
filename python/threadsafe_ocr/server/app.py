"""The application: routes, errors and limits around one engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from threadsafe_ocr import ThreadSafeOCR, __version__
from threadsafe_ocr.server import errors, paddlex, page, rapidocr, reading, status
from threadsafe_ocr.server.access import Access
from threadsafe_ocr.server.drain import draining
from threadsafe_ocr.server.limits import Admission, Unread
from threadsafe_ocr.server.metrics import Metrics
from threadsafe_ocr.server.service import ServerSettings, Service

HELPERS = 32
ROUTERS = (reading.router, paddlex.router, rapidocr.router, status.router, page.router)


def create_app(settings: ServerSettings | None = None, ocr: ThreadSafeOCR | None = None) -> FastAPI:
    """The application of `threadsafe-ocr serve`, for any ASGI server. Without `ocr` it makes its engine when it starts, in the process that
    serves; either way it closes it at the end.
    """
    settings = settings or ServerSettings()
    service = Service(settings, ocr)
    paths = {route.path for router in ROUTERS for route in router.routes if isinstance(route, Route)}
    metrics = Metrics(service, paths)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        # What writes an answer, makes a picture or looks up an address: on few cores asyncio has six threads, which a few slow ones take.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(HELPERS, "ocr-server"))
        warming = asyncio.create_task(service.warm_up())
        with draining(service.close):
            yield
        service.ocr.close(cancel=True)
        await asyncio.gather(warming, return_exceptions=True)

    told = ["X-Page-Count", "X-Request-ID", "Retry-After"]
    cross_origin = Middleware(CORSMiddleware, allow_origins=settings.cors, allow_methods=["*"], allow_headers=["*"], expose_headers=told)
    app = FastAPI(
        title="threadsafe-ocr",
        version=__version__,
        lifespan=lifespan,
        # Access makes the request's span, with any version of FastAPI; one that makes none takes no notice of this.
        telemetry={"tracing": False},
        middleware=[
            Middleware(Access, service=service, metrics=metrics),
            *([cross_origin] if settings.cors else []),
            Middleware(Unread),
            Middleware(Admission, service=service),
        ],
    )
    app.state.service, app.state.metrics = service, metrics
    errors.add_to(app, service)
    for router in ROUTERS:
        app.include_router(router)
    return app
