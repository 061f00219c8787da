"""Starting the server: in this process, or in several under this one."""

from __future__ import annotations

import resource
import signal
import socket
import sys
from functools import partial
from typing import Any

import uvicorn

from threadsafe_ocr import ThreadSafeOCR, unload
from threadsafe_ocr.server.access import log_to_stdout
from threadsafe_ocr.server.app import create_app
from threadsafe_ocr.server.connections import Connection
from threadsafe_ocr.server.service import ServerSettings
from threadsafe_ocr.server.workers import supervise

# Seconds for what is left when `Service.close` is done: idle connections.
AFTER_GRACE = 5
# Open files, which connections are, where the system allows as many.
FILES = 65_536


def run(settings: ServerSettings, *, host: str, port: int, workers: int) -> int:
    """Serves until a signal ends it; the exit code. Raises what the engine raises when it is made."""
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "http": Connection,
        "ws": "none",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": AFTER_GRACE,
    }
    _allow_connections()
    engine = settings.engine()
    if workers == 1:
        serve(settings, options, engine)
        return 0
    # It was made to say at once, and once, what every worker would find out.
    engine.close()
    unload()
    listening = uvicorn.Config("", **options).bind_socket()
    return supervise(partial(serve, settings, options, None, [listening]), workers)


def _allow_connections() -> None:
    """The usual 1,024 open files are soon taken by clients that say nothing."""
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(most, FILES)
    if usual != resource.RLIM_INFINITY and usual < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def serve(
    settings: ServerSettings, options: dict[str, Any], engine: ThreadSafeOCR | None, sockets: list[socket.socket] | None = None
) -> None:
    """One process's part."""
    # uvicorn raises the signal again when it is done.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log_to_stdout()
    server = uvicorn.Server(uvicorn.Config(create_app(settings, engine), **options))
    try:
        server.run(sockets)
    except KeyboardInterrupt:
        pass
