"""A real server: `threadsafe-ocr serve` in a process of its own, on a free port."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import httpx
import numpy as np
from PIL import Image

# A client that waits longer has found a hang.
PATIENCE = 50.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """Started when it is made; `with` ends it and looks at what it said."""

    def __init__(self, folder: Path, *flags: str, wait: bool = True) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._out, self._err = folder / f"{self.port}.out", folder / f"{self.port}.err"
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "threadsafe_ocr.cli", "serve", "--port", str(self.port)]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen([*command, *flags], stdout=out, stderr=err)
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE)
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.process.poll() is None, self.errors()
            try:
                if self.client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready: {self.errors()}")

    def read(
        self,
        content: bytes,
        *,
        path: str = "/v1/read",
        headers: dict[str, str] | None = None,
        patience: float = PATIENCE,
        **fields: object,
    ) -> httpx.Response:
        """On a connection of its own, as curl does it."""
        data = {name: str(value) for name, value in fields.items()}
        return httpx.post(self.url + path, files={"file": ("page.png", content)}, data=data, headers=headers, timeout=patience)

    @contextmanager
    def begun(self, content: bytes, path: str = "/v1/read") -> Iterator[None]:
        """A request whose answer nobody waits for: it holds its permit inside, and the client hangs up at the end."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="p"\r\n\r\n' + content + b"\r\n--b--\r\n"
            head = (
                f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(part)}\r\n\r\n"
            )
            connection.sendall(head.encode() + part)
            while not self.stats()["engine"]["running"]:
                time.sleep(0.02)
            yield

    def read_json(self, content: bytes, *, path: str = "/v1/read", **members: object) -> httpx.Response:
        return httpx.post(self.url + path, json={"file": base64.b64encode(content).decode(), **members}, timeout=PATIENCE)

    def stats(self) -> dict[str, object]:
        return self.client.get("/v1/stats").json()

    def memory(self, which: str = "VmRSS") -> float:
        """Resident megabytes; the most so far is `VmHWM`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1e3 for line in status.splitlines() if line.startswith(f"{which}:"))

    def log(self) -> list[dict[str, object]]:
        """A line a request."""
        return [json.loads(line) for line in self._out.read_text().splitlines()]

    def errors(self) -> str:
        return self._err.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        self.client.close()
        try:
            code = self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        if kind is None:
            assert (code, "Traceback" in self.errors()) == (0, False), self.errors()


def children(process: int) -> list[int]:
    """Processes that it started, other than multiprocessing's own helper."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process and b"resource_tracker" not in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found, key=lambda number: os.stat(f"/proc/{number}").st_mtime)


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", compress_level=1)
    return file.getvalue()


def slow_page() -> bytes:
    """Its detection alone takes a second of two cores."""
    return png(np.full((2200, 2800, 3), 255, np.uint8))


def tiff(pages: list[Path], **options: object) -> bytes:
    """A document of several pages."""
    first, *rest = [Image.open(page).convert("RGB") for page in pages]
    file = io.BytesIO()
    first.save(file, "TIFF", save_all=True, append_images=rest, **options)
    return file.getvalue()
