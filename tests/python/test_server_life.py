"""The end of things: clients that hang up, signals, workers that are killed, servers that cannot start."""

from __future__ import annotations

import concurrent.futures
import io
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from conftest import LINES, TEXT, until
from serving import Server, children, free_port, slow_page, tiff
from test_documents import endless
from threadsafe_ocr.server import connections

LINE = LINES[0].read_bytes()
SLOW = slow_page()


def test_the_work_of_a_client_that_hangs_up_is_stopped(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        start = time.monotonic()
        assert server.read(SLOW).status_code == 200
        whole = time.monotonic() - start
        answered = server.stats()["engine"]["answered"]
        for number, path in enumerate(("/v1/read", "/v1/read/stream"), 1):
            with server.begun(SLOW, path):
                pass
            assert until(lambda: not server.stats()["engine"]["running"]) < whole / 2
            until(lambda: server.stats()["active"] == 0)
            stats = server.stats()
            counted = [stats["engine"][name] for name in ("cancelled", "answered", "queue_size")]
            assert (*counted, stats["upload_bytes"]) == (number, answered, 0, 0)
            assert [line["status"] for line in server.log() if line["path"] == path][-1] == 499
        assert server.read(LINE, format="text").text == f"{TEXT}\n"


def test_a_client_that_leaves_a_stream_ends_the_pages_to_come(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        with server.client.stream("POST", "/v1/read/stream", files={"file": tiff(LINES[:5] * 30)}) as answer:
            assert TEXT[1:5] in next(answer.iter_lines())
        until(lambda: server.stats()["active"] == 0)
        assert server.stats()["engine"]["answered"] < 150
        until(lambda: not server.stats()["engine"]["queue_size"])


def test_a_stream_that_nobody_takes_holds_nothing_after_its_time(tmp_path: Path) -> None:
    # Small to send, quick to read, and as JPEG more than the system keeps under way.
    noise = Image.fromarray(np.tile(np.random.default_rng(0).integers(0, 256, (8, 2000), np.uint8), (250, 1)))
    file = io.BytesIO()
    noise.save(file, "TIFF", save_all=True, append_images=[noise] * 5, compression="tiff_deflate")
    fields = {"images": "true", "det_limit_type": "max", "det_limit_side_len": "64"}
    with Server(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port)) as deaf:
        request = httpx.Request("POST", server.url, data=fields, files={"file": file.getvalue()}, headers={"X-Request-Timeout": "5"})
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        deaf.sendall(f"POST /v1/read/stream HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        until(lambda: server.stats()["upload_bytes"])
        until(lambda: server.stats()["active"] == 0, 12)
        stats = server.stats()
        assert (stats["upload_bytes"], stats["errors"]) == (0, {"NotTaken": 1})
        assert server.read(LINE, format="text").text == f"{TEXT}\n"


def test_a_connection_that_takes_nothing_is_closed_and_a_slow_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "TAKE_SECONDS", 0.5)
    body = bytes(8 << 20)

    async def app(scope: object, receive: object, send: Callable[..., object]) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, http=connections.Connection, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        with socket.create_connection(("127.0.0.1", port)) as nothing:
            nothing.sendall(b"GET / HTTP/1.0\r\n\r\n")
            until(lambda: server.server_state.connections)
            until(lambda: not server.server_state.connections, 10)
            assert taken(nothing) < len(body)
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert taken(slow, pause=0.01) > len(body)
    finally:
        server.should_exit = True
        thread.join(20)


def taken(connection: socket.socket, pause: float = 0.0) -> int:
    """Bytes until the server's end."""
    size = 0
    try:
        while piece := connection.recv(1 << 16):
            size += len(piece)
            time.sleep(pause)
    except ConnectionResetError:
        pass
    return size


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one process", "two workers"])
def test_sigterm_under_load_answers_everyone(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with Server(tmp_path, "--grace", "20", *flags) as server:
        answers: list[int | str] = []
        last: list[int] = []

        def client() -> None:
            while True:
                try:
                    status = server.read(LINE).status_code
                except httpx.ConnectError:
                    status = 0  # it has gone: nobody accepted this one
                answers.append(status)
                if status != 200:
                    last.append(status)
                    return

        threads = [threading.Thread(target=client, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: len(answers) > 12)
        code = server.stop()
        for thread in threads:
            thread.join(30)
        assert code == 0
        assert set(answers) <= {200, 503, 0}
        assert answers.count(200) > 12
        assert 503 in last, "those who still came were told"


def test_while_it_drains_it_is_not_ready_but_alive_and_what_is_inside_is_finished(tmp_path: Path) -> None:
    with Server(tmp_path) as server, concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(server.read, SLOW)
        until(lambda: server.stats()["engine"]["running"])
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.client.get("/readyz").status_code == 503)
        assert server.client.get("/healthz").status_code == 200
        assert server.read(LINE).status_code == 503
        assert slow.result().status_code == 200
        assert server.process.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_not_finished_within_the_grace_gets_a_503(tmp_path: Path, number: signal.Signals) -> None:
    server = Server(tmp_path, "--grace", "0.2")
    with concurrent.futures.ThreadPoolExecutor() as pool, socket.create_connection(("127.0.0.1", server.port)) as uploading:
        uploading.sendall(b"POST /v1/read HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
        slow = pool.submit(server.read, SLOW)
        until(lambda: server.stats()["engine"]["running"] and server.stats()["active"] == 2)
        assert server.stop(number) == 0
        assert slow.result().status_code == 503
        assert uploading.recv(1000).startswith(b"HTTP/1.1 503 ")
    server.client.close()
    assert "Traceback" not in server.errors()


def test_a_page_that_is_never_rendered_does_not_hold_up_the_end(tmp_path: Path) -> None:
    server = Server(tmp_path, "--grace", "1")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        never = pool.submit(server.read, endless())
        until(lambda: children(server.process.pid))
        start = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start < 8
        assert never.result().status_code == 503
    server.client.close()
    assert "Traceback" not in server.errors()


@pytest.mark.timeout(180)
def test_a_killed_worker_takes_only_its_own_requests_along_and_is_replaced(tmp_path: Path) -> None:
    with Server(tmp_path, "--workers", "2") as server:
        victim, other = both(server)
        failed: list[str] = []
        read = [0]
        end = threading.Event()

        def client() -> None:
            while not end.is_set():
                try:
                    answer = server.read(LINE, format="text")
                    assert (answer.status_code, answer.text) == (200, f"{TEXT}\n")
                    read[0] += 1
                except httpx.TransportError as error:
                    failed.append(repr(error))

        threads = [threading.Thread(target=client, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: read[0] > 5)
            os.kill(victim, signal.SIGKILL)
            before = read[0]
            until(lambda: read[0] > before + 8)
        finally:
            end.set()
            for thread in threads:
                thread.join(50)
        assert len(failed) <= 4, "a client has one request inside at a time"
        until(lambda: len(running := children(server.process.pid)) == 2 and victim not in running)
        replacement = both(server) - {other}
        assert victim not in replacement
        assert len(replacement) == 1


def test_workers_end_with_their_parent_whatever_ended_it(tmp_path: Path) -> None:
    server = Server(tmp_path, "--workers", "2")
    both(server)
    orphans = children(server.process.pid)
    server.client.close()
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: not any(lives(orphan) for orphan in orphans))


def lives(process: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def both(server: Server) -> set[int]:
    """The workers that answer, when there are two of them."""
    seen: set[int] = set()

    def look() -> bool:
        # Of several at once an idle worker gets one.
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            seen.update(pool.map(lambda _: httpx.get(f"{server.url}/v1/stats", timeout=40).json()["pid"], range(4)))
        return len(seen) > 1

    until(look)
    return seen


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--models", "no-such-set"), 1, "no-such-set"),
        (("--models", "no-such-set", "--workers", "2"), 1, "no-such-set"),
        (("--workers", "0"), 2, "no number above 0"),
        (("--max-upload", "huge"), 2, "no number above 0"),
        (("--timeout", "nan"), 2, "no number of seconds"),
        (("--host", "256.0.0.1"), 3, "Errno"),
    ],
)
def test_a_server_that_cannot_start_says_why_and_ends(tmp_path: Path, flags: tuple[str, ...], code: int, message: str) -> None:
    server = Server(tmp_path, *flags, wait=False)
    server.client.close()
    assert server.process.wait(30) == code
    assert message in server.errors()
    assert "Traceback" not in server.errors()


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = Server(tmp_path, "--port", str(taken.getsockname()[1]), wait=False)
        server.client.close()
        assert server.process.wait(30) != 0
        assert "address already in use" in server.errors()
