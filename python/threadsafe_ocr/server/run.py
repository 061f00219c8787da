"""Starting the server: one process, or several under uvicorn's parent."""

from __future__ import annotations

import signal
import sys
from typing import Any

import uvicorn

from threadsafe_ocr import unload
from threadsafe_ocr.server.access import log_to_stdout
from threadsafe_ocr.server.app import create_app
from threadsafe_ocr.server.connections import Connection
from threadsafe_ocr.server.service import ServerSettings

# Seconds that a worker may take to answer its parent, which then replaces it: its thread for that waits for a core like all others.
HEALTH_CHECK = 60
# Seconds for what is left when `Service.close` is done: idle connections.
AFTER_GRACE = 5


def run(settings: ServerSettings, *, host: str, port: int, workers: int) -> None:
    """Serves until a signal ends it. Raises what the engine raises when it is made."""
    # uvicorn raises the signal again when it is done.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "http": Connection,
        "ws": "none",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": AFTER_GRACE,
    }
    if workers == 1:
        log_to_stdout()
        uvicorn.run(create_app(settings, settings.engine()), **options)
        return
    # Says at once, and once, what every worker would find out.
    settings.engine().close()
    unload()
    settings.to_environment()
    factory = "threadsafe_ocr.server:from_environment"
    uvicorn.run(factory, factory=True, workers=workers, timeout_worker_healthcheck=HEALTH_CHECK, **options)
