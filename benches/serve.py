"""`threadsafe-ocr serve` under load. usage: serve.py [--parts PART...] [--seconds S] [--rounds N]

The parts, all of them by default; clients and server share the machine's cores:

start   seconds from the process's start until it is ready, and those of them that imports take
engine  throughput against that of the bare engine, in turns, each with the same 16 threads in closed loop
leave   clients that hang up: how soon their work stops, and what they cost the others
many    256 clients: answers compared with those of the engine, statuses counted, latency and the server's memory
"""

from __future__ import annotations

import argparse
import collections
import http.client
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import measure
import numpy as np
import pages

from threadsafe_ocr import ThreadSafeOCR
from threadsafe_ocr.problems import RETRY_AFTER
from threadsafe_ocr.server.service import QUEUE_PER_CORE

PARTS = ("start", "engine", "leave", "many")
CLIENTS, MANY = 16, 256
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="page"\r\n\r\n'
HEADERS = {"Content-Type": "multipart/form-data; boundary=b"}


def body(content: bytes) -> bytes:
    return HEAD + content + b"\r\n--b--\r\n"


@contextmanager
def server(*flags: str) -> Iterator[tuple[int, int]]:
    """Its port and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # On a slow machine, too, every answer is waited for.
    command = [sys.executable, "-m", "threadsafe_ocr.cli", "serve", "--port", str(port), "--timeout", "600", *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while get(port, "/readyz")[0] != 200:
            time.sleep(0.02)
        yield port, process.pid
    finally:
        process.terminate()
        print(f"the server ended with {process.wait(60)}")


def get(port: int, path: str) -> tuple[int, bytes]:
    """Its status, 0 while nobody listens, and what it says."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""


class Client:
    """A connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def read(self, content: bytes) -> tuple[int, bytes]:
        self._connection.request("POST", "/v1/read", content, HEADERS)
        answer = self._connection.getresponse()
        return answer.status, answer.read()


def closed_loop(clients: int, seconds: float, ask: Callable[[], Callable[[int], None]]) -> tuple[float, list[float]]:
    """Calls a second, and what each took; the calls are numbered in their order, so that every page has its share."""
    took: list[float] = []
    numbers = itertools.count()
    start = time.perf_counter()

    def client() -> None:
        call = ask()
        while time.perf_counter() - start < seconds:
            begun = time.perf_counter()
            call(next(numbers))
            took.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(took) / (time.perf_counter() - start), took


def against_the_engine(contents: list[bytes], seconds: float, rounds: int) -> None:
    """In short turns, since the machine's own speed changes."""
    bodies = [body(content) for content in contents]
    rates: list[tuple[float, float]] = []
    with ThreadSafeOCR() as ocr, server() as (port, _):

        def engine() -> Callable[[int], None]:
            def call(number: int) -> None:
                ocr.read(contents[number % len(contents)])

            return call

        def over_http() -> Callable[[int], None]:
            client = Client(port)

            def call(number: int) -> None:
                status, _ = client.read(bodies[number % len(bodies)])
                assert status == 200, status

            return call

        for ask in (engine, over_http):
            closed_loop(CLIENTS, 1, ask)  # unmeasured
        for number in range(rounds):
            turn = [engine, over_http] if number % 2 else [over_http, engine]
            rate = {ask: closed_loop(CLIENTS, seconds, ask)[0] for ask in turn}
            rates.append((rate[engine], rate[over_http]))
    alone, served = np.median(rates, axis=0)
    ratio = np.median([over / bare for bare, over in rates])
    print(f"engine {alone:.2f} pages/s, over HTTP {served:.2f}; ratio of {rounds} turns {ratio:.3f}", flush=True)


def many(contents: list[bytes], seconds: float) -> None:
    with ThreadSafeOCR() as ocr:
        wanted = [json.loads(json.dumps(ocr.read(content).to_dict()))["lines"] for content in contents]
    bodies = [body(content) for content in contents]
    # Of every request its status; of those with an answer whether it was right, and their seconds.
    statuses: list[int] = []
    right: list[bool] = []
    took: list[float] = []
    with server() as (port, process):

        def ask() -> Callable[[int], None]:
            client = Client(port)

            def call(number: int) -> None:
                begun = time.perf_counter()
                status, answer = client.read(bodies[number % len(bodies)])
                statuses.append(status)
                if status == 200:
                    took.append(time.perf_counter() - begun)
                    right.append(json.loads(answer)["pages"][0]["lines"] == wanted[number % len(wanted)])
                else:
                    time.sleep(float(RETRY_AFTER))

            return call

        with measure.sampled(lambda: measure.proportional(measure.Path(f"/proc/{process}")), seconds / 10) as memory:
            begin = time.perf_counter()
            closed_loop(MANY, seconds, ask)
            elapsed = time.perf_counter() - begin
    p50, p99 = np.percentile(took, [50, 99])
    rate = len(took) / elapsed
    counts = dict(collections.Counter(statuses))
    print(f"{MANY} clients, {seconds:.0f} s: {counts}, {right.count(False)} wrong answers, {rate:.2f} pages/s")
    # Whoever is let in finds at most a full queue before them.
    print(f"p50 {p50:.2f} s, p99 {p99:.2f} s, a full queue {QUEUE_PER_CORE * measure.cores() / rate:.2f} s", flush=True)
    print(f"memory in MB {[round(value) for value in memory]}")


def stay(port: int, contents: Iterator[bytes], end: float, took: list[float]) -> None:
    """A client that waits for its answers; `contents` are those of all such clients."""
    client = Client(port)
    while time.perf_counter() < end:
        begun = time.perf_counter()
        assert client.read(next(contents))[0] == 200
        took.append(time.perf_counter() - begun)


def leave(port: int, contents: Iterator[bytes], end: float, _: list[float]) -> None:
    """A client that is gone when its page is begun."""
    while time.perf_counter() < end:
        with begun(port, next(contents)):
            time.sleep(0.25)


@contextmanager
def begun(port: int, content: bytes) -> Iterator[None]:
    """A request whose client hangs up at the end."""
    head = f"POST /v1/read HTTP/1.1\r\nHost: x\r\nContent-Type: {HEADERS['Content-Type']}\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + content)
        yield


def stopping(content: bytes, times: int) -> None:
    """Whole pages, alone: a run of a network goes on for how long when nobody waits for it?"""

    def busy(port: int) -> int:
        engine = json.loads(get(port, "/v1/stats")[1])["engine"]
        return int(engine["running"]) + int(engine["waiting_items"])

    took = []
    with server() as (port, _):
        Client(port).read(body(content))
        run = json.loads(get(port, "/v1/stats")[1])["engine"]["inference_seconds"]["detection"]["mean"]
        for number in range(times):
            with begun(port, body(content)):
                while not busy(port):
                    time.sleep(0.01)
                time.sleep(number / times * run)
            gone = time.perf_counter()
            while busy(port):
                time.sleep(0.005)
            took.append(time.perf_counter() - gone)
    print(f"{times} pages hung up while detected on, {run:.2f} s a run: their work stopped within {max(took):.2f} s", flush=True)


def leaving(contents: list[bytes], seconds: float) -> None:
    """What half of the clients wait when the others are not there, hang up, or wait too."""
    bodies, half = [body(content) for content in contents], CLIENTS // 2
    for name, other in (("absent", None), ("hang up", leave), ("wait too", stay)):
        took: list[float] = []
        with server() as (port, _):
            start = time.perf_counter()
            end = start + seconds
            clients = [stay] * half + ([other] * half if other else [])
            each = {client: itertools.cycle(bodies) for client in clients}
            threads = [threading.Thread(target=client, args=(port, each[client], end, took)) for client in clients]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rate = len(took) / (time.perf_counter() - start)
        p50, p99 = np.percentile(took, [50, 99])
        print(f"{half} clients, {half} others {name}: p50 {p50:.2f} s, p99 {p99:.2f} s, {rate:.2f} pages/s", flush=True)


def starting(times: int) -> None:
    """Medians, after a first start that reads the files."""
    until_ready, imports = [], []
    for _ in range(times + 1):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import threadsafe_ocr.server.run"], check=True)
        imports.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        with server():
            until_ready.append(time.perf_counter() - begin)
    ready, imported = (float(np.median(each[1:])) for each in (until_ready, imports))
    print(f"ready {ready:.2f} s after the start, {imported:.2f} s of it for imports", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{measure.cores()} cores, {measure.processor()}")
    contents = [pages.encoded(piece, "png") for piece in pages.pieces()]
    if "start" in arguments.parts:
        starting(arguments.rounds)
    if "engine" in arguments.parts:
        against_the_engine(contents, arguments.seconds / 4, 4 * arguments.rounds)
    if "leave" in arguments.parts:
        stopping(pages.names()[0].read_bytes(), 10 * arguments.rounds)
        leaving(contents, arguments.seconds)
    if "many" in arguments.parts:
        many(contents, 5 * arguments.seconds)


if __name__ == "__main__":
    main()
