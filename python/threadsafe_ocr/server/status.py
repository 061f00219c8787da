"""Whether the server lives, is ready, and what it counts."""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from threadsafe_ocr import __version__
from threadsafe_ocr.server.reading import service_of

router = APIRouter(tags=["status"])
_start = time.monotonic()


@router.get("/healthz", summary="The process lives")
async def healthz() -> dict[str, str]:
    """For a liveness probe."""
    return {"status": "ok"}


@router.get("/readyz", summary="Requests should be sent here", responses={503: {"description": "still loading, or shutting down"}})
async def readyz(request: Request) -> JSONResponse:
    """For a readiness probe: 503 until the models are warm, and once the server is shutting down."""
    ready = service_of(request).ready
    return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)


@router.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Of this process; with `--workers` of the one that the scrape meets."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models", summary="What reads here")
async def models(request: Request) -> dict[str, Any]:
    """The model set and its device."""
    settings = service_of(request).settings
    return {"models": [{"name": settings.models, "device": settings.device}], "version": __version__}


@router.get("/v1/stats", summary="Numbers for people")
async def stats(request: Request) -> dict[str, Any]:
    """`ocr.stats()`, and the server's own: what a live panel shows. Seconds are of the last 1,000 answers."""
    service = service_of(request)
    latencies = sorted(service.latencies)
    seconds = None
    if len(latencies) > 1:
        hundredths = statistics.quantiles(latencies, n=100, method="inclusive")
        seconds = {"p50": hundredths[49], "p99": hundredths[98]}
    return {
        "pid": os.getpid(),
        "uptime_seconds": time.monotonic() - _start,
        "ready": service.ready,
        "active": len(service.active),
        "upload_bytes": service.room.used,
        "memory_bytes": request.app.state.metrics.memory(),
        "errors": dict(service.errors),
        "seconds": seconds,
        "engine": service.ocr.stats(),
    }
