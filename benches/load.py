"""`threadsafe-ocr serve` and what people run instead, under load. usage: load.py [--servers NAME...] [--clients N...] [--rates R...]

Closed loop: N clients, each with one request at a time. Open loop: R requests a second at random times, the same ones for every server;
the time of a request runs from when it should have been sent, so a server that falls behind cannot slow down what is asked of it. Every
point has a server of its own, started anew. A request that is refused (503) is not among the latencies; one without an answer when the
point is over counts with the time it has waited.

Makes the other servers' environments in .cache/load on its first run, about 1 GB. Figures are kept there, so that the servers may be
measured in several runs; all that are there are written to docs/performance.md. Needs Linux and a machine without other work.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import itertools
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import measure
import pages

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "load"
FIGURES = FOLDER / "figures.json"
MODELS = ROOT / "models" / "v6-small"
RAPIDOCR = ("rapidocr==3.10.0", "onnxruntime==1.32.0", "opencv-python-headless==4.11.0.86")
ENVIRONMENTS = {
    "paddlex": ("paddleocr==3.7.0", "paddlex[serving]==3.7.2", "onnxruntime==1.32.0"),
    "rapidocr": (*RAPIDOCR, "rapidocr_api==0.2.0", "fastapi", "uvicorn", "python-multipart"),
}
# PaddleX's own file for the pipeline "OCR" with the same networks, and without the steps that need others.
PIPELINE = f"""\
pipeline_name: OCR
text_type: general
use_doc_preprocessor: False
use_textline_orientation: False
SubModules:
  TextDetection:
    module_name: text_detection
    model_name: PP-OCRv6_small_det
    model_dir: {MODELS / "det"}
    limit_side_len: 64
    limit_type: min
    max_side_limit: 4000
    thresh: 0.3
    box_thresh: 0.6
    unclip_ratio: 1.5
  TextRecognition:
    module_name: text_recognition
    model_name: PP-OCRv6_small_rec
    model_dir: {MODELS / "rec"}
    batch_size: 6
    score_thresh: 0.0
"""
TITLE = "## Servers under load\n"
HEADER = "\n| {point} | pages/s | p50, s | p99, s | memory, MB | refused | without an answer | wrong or failed |\n" + "| --- " * 8 + "|\n"


def form(field: str, content: bytes) -> tuple[bytes, str]:
    """A body with a file, and its type."""
    head = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="page.png"\r\n\r\n'
    return head.encode() + content + b"\r\n--b--\r\n", "multipart/form-data; boundary=b"


def for_paddlex(content: bytes) -> tuple[bytes, str]:
    members = {"file": base64.b64encode(content).decode(), "fileType": 1, "visualize": False}
    return json.dumps(members).encode(), "application/json"


@dataclass(frozen=True)
class Kind:
    """command: given a port. body: of a page, and its type. texts: of an answer."""

    name: str
    command: Callable[[int], list[str]]
    path: str
    body: Callable[[bytes], tuple[bytes, str]]
    texts: Callable[[Any], list[str]]


def tool(environment: str, name: str) -> str:
    return str(FOLDER / environment / "bin" / name)


def plain(kind: str) -> Callable[[int], list[str]]:
    return lambda port: [tool("rapidocr", "python"), str(Path(__file__).with_name("load_service.py")), kind, str(port)]


KINDS = {
    "ours": Kind(
        "threadsafe-ocr serve",
        lambda port: [sys.executable, "-m", "threadsafe_ocr.cli", "serve", "--port", str(port)],
        "/v1/read",
        lambda content: form("file", content),
        lambda answer: [line["text"] for line in answer["pages"][0]["lines"]],
    ),
    "paddlex": Kind(
        "PaddleX 3.7.2 basic serving, PaddleOCR on ONNX Runtime",
        lambda port: [
            *(tool("paddlex", "paddlex"), "--serve", "--pipeline", str(FOLDER / "OCR.yaml"), "--engine", "onnxruntime"),
            *("--device", "cpu", "--host", "127.0.0.1", "--port", str(port)),
        ],
        "/ocr",
        for_paddlex,
        lambda answer: answer["result"]["ocrResults"][0]["prunedResult"]["rec_texts"],
    ),
    "rapidocr_api": Kind(
        "rapidocr_api 0.2.0, RapidOCR 3.10",
        lambda port: [tool("rapidocr", "rapidocr_api"), "-ip", "127.0.0.1", "-p", str(port)],
        "/ocr",
        lambda content: form("image_file", content),
        lambda answer: [line["rec_txt"] for line in answer.values()],
    ),
    "lock": Kind("FastAPI, RapidOCR 3.10 behind a lock", plain("lock"), "/ocr", lambda content: form("image_file", content), list),
    "pool": Kind("FastAPI, RapidOCR 3.10 in two processes", plain("pool"), "/ocr", lambda content: form("image_file", content), list),
}


def prepare() -> None:
    """The environments, each once."""
    for name, packages in ENVIRONMENTS.items():
        made = FOLDER / name / "made"
        if not made.exists():
            subprocess.run([sys.executable, "-m", "venv", made.parent], check=True)
            subprocess.run([tool(name, "pip"), "install", "--quiet", *packages], check=True)
            made.touch()
    (FOLDER / "OCR.yaml").write_text(PIPELINE, encoding="utf-8")


class Server:
    """One of the servers, in a process group of its own, and what it answered."""

    def __init__(self, kind: Kind, contents: list[bytes], texts: list[list[str]]) -> None:
        self._kind = kind
        self._bodies = [kind.body(content) for content in contents]
        # What it answers alone; filled by the first server of a kind.
        self._texts = texts
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        # PaddleX: the files are here, no hub is asked.
        environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True"}
        with (FOLDER / "server.log").open("wb") as log:
            command = kind.command(self._port)
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        # What became of every request ("right", "refused", "unanswered", "wrong"), and the seconds that it took.
        self.ends: list[tuple[str, float]] = []

    def warm_up(self) -> None:
        """Reads pages alone, as soon as it can be reached."""
        for number in range(4 if self._texts else len(self._bodies)):
            while (texts := self._alone(number)) is None:
                if self.process.poll() is not None:
                    sys.exit(f"{self._kind.name} does not start: see {FOLDER / 'server.log'}")
                time.sleep(0.2)
            if len(self._texts) == number:
                self._texts.append(texts)

    def _alone(self, number: int) -> list[str] | None:
        try:
            status, answer, _ = self._ask(self.connection(60), number)
        except OSError:
            return None
        return self._kind.texts(json.loads(answer)) if status == 200 else None

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)

    def _ask(self, connection: http.client.HTTPConnection, number: int) -> tuple[int, bytes, str]:
        body, content_type = self._bodies[number % len(self._bodies)]
        connection.request("POST", self._kind.path, body, {"Content-Type": content_type})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers.get("Retry-After", "0")

    def read(self, connection: http.client.HTTPConnection, number: int, begun: float, end: float) -> float:
        """Reads a page and notes what becomes of it; seconds to wait, where it was refused. end: when its client goes."""
        outcome, pause = "wrong", 0.0
        try:
            connection.timeout = max(end - time.perf_counter(), 0.01)
            if connection.sock:
                connection.sock.settimeout(connection.timeout)
            status, answer, wait = self._ask(connection, number)
            if status == 503:
                outcome, pause = "refused", float(wait)
                connection.close()  # the server does not wait that long for the next one
            elif status == 200 and self._kind.texts(json.loads(answer)) == self._texts[number % len(self._texts)]:
                outcome = "right"
        except TimeoutError:
            outcome = "unanswered"
            connection.close()
        except (OSError, http.client.HTTPException):
            connection.close()
        self.ends.append((outcome, time.perf_counter() - begun))
        return pause

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def closed_loop(server: Server, clients: int, seconds: float) -> None:
    start, numbers = time.perf_counter(), itertools.count()

    def client() -> None:
        connection = server.connection(seconds)
        while (begun := time.perf_counter()) - start < seconds:
            time.sleep(server.read(connection, next(numbers), begun, start + 2 * seconds))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def open_loop(server: Server, rate: float, seconds: float) -> None:
    start, at, number = time.perf_counter(), 0.0, 0
    gaps, threads = random.Random(0), []
    while (at := at + gaps.expovariate(rate)) < seconds:
        time.sleep(max(start + at - time.perf_counter(), 0))
        arguments = (server.connection(seconds), number, start + at, start + 2 * seconds)
        threads.append(threading.Thread(target=server.read, args=arguments))
        threads[-1].start()
        number += 1
    for thread in threads:
        thread.join()


def measured(kind: Kind, contents: list[bytes], texts: list[list[str]], load: Callable[[Server], None]) -> dict[str, Any]:
    """A point's figures."""
    server = Server(kind, contents, texts)
    try:
        server.warm_up()
        start = time.perf_counter()
        with measure.sampled(lambda: measure.proportional_of_group(server.process.pid), 1.0) as sizes:
            load(server)
        seconds = time.perf_counter() - start
    finally:
        server.stop()
    counts = Counter(outcome for outcome, _ in server.ends)
    took = sorted(took for outcome, took in server.ends if outcome != "refused")
    return {**counts, "rate": counts["right"] / seconds, "took": took, "memory": max(sizes)}


def quantile(figures: dict[str, Any], share: float) -> str:
    """Seconds; more than that, where those without an answer are among the slowest."""
    took = figures["took"]
    if not took:
        return "-"
    more = "> " if figures.get("unanswered", 0) > (1 - share) * len(took) else ""
    return f"{more}{took[min(int(share * len(took)), len(took) - 1)]:.2f}"


def row(name: str, figures: dict[str, Any]) -> str:
    counts = " | ".join(str(figures.get(outcome, 0)) for outcome in ("refused", "unanswered", "wrong"))
    p50, p99 = quantile(figures, 0.5), quantile(figures, 0.99)
    return f"| {name} | {figures['rate']:.2f} | {p50} | {p99} | {figures['memory']:,.0f} | {counts} |\n"


def write(figures: dict[str, dict[str, Any]]) -> None:
    text = f"""{TITLE}
Written by `make bench-load` (`benches/load.py`, which says how). {date.today()}, {measure.processor()}, {measure.cores()} cores
that clients and server share, Python {platform.python_version()}, PP-OCRv6 small and onnxruntime 1.32.0 in all, each with its own
defaults. Pages: pieces of 560 x 320 and 840 x 560 pixels, as PNG. Memory: the peak of all processes, shared pages by share.
"""
    for point, servers in figures.items():
        text += HEADER.format(point=point) + "".join(row(KINDS[name].name, servers[name]) for name in KINDS if name in servers)
    measure.write_section(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 16, 64, 256])
    parser.add_argument("--rates", type=float, nargs="*", default=[2])
    parser.add_argument("--seconds", type=float, default=15, help="in which requests are sent, and as many for the answers after that")
    arguments = parser.parse_args()
    seconds = arguments.seconds
    prepare()
    contents = [pages.encoded(piece, "png") for size in ((560, 320), (840, 560)) for piece in pages.pieces(*size)]
    figures: dict[str, dict[str, Any]] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for name in arguments.servers:
        texts: list[list[str]] = []
        closed = [(f"{n} clients" if n > 1 else "1 client", lambda server, n=n: closed_loop(server, n, seconds)) for n in arguments.clients]
        opened = [(f"{rate:g} requests a second", lambda server, rate=rate: open_loop(server, rate, seconds)) for rate in arguments.rates]
        for point, load in (*closed, *opened):
            found = measured(KINDS[name], contents, texts, load)
            print(point, row(KINDS[name].name, found), end="", flush=True)
            figures.setdefault(point, {})[name] = found
            FIGURES.write_text(json.dumps(figures))
    write(figures)


if __name__ == "__main__":
    main()
