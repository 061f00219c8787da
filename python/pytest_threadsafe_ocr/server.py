"""Starts `threadsafe-ocr serve` for the fixture `ocr_server`."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from pathlib import Path

# Seconds until /readyz. A start takes 2; a machine that runs other tests may need ten times as long.
PATIENCE = 50


def start(log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The process and its address, once it is ready. Raises RuntimeError with what the server said where it is not."""
    port = free_port()
    command = [sys.executable, "-m", "threadsafe_ocr.cli", "serve", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    deadline = time.monotonic() + PATIENCE
    while not ready(port):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            process.kill()
            code = process.wait()
            what = f"ended with code {code}" if ended else f"was not ready after {PATIENCE} s"
            raise RuntimeError(f"{' '.join(command[1:])} {what}; it said:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)
    return process, f"http://127.0.0.1:{port}"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
