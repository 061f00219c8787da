"""Hostile clients: every one is refused with a status, memory stays, and the others are served."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image

from conftest import LINES, TEXT
from serving import Server, tiff
from test_bad_input import lying
from test_documents import endless, pdf_of

LINE = LINES[0].read_bytes()
HEAD = b"POST /v1/read HTTP/1.1\r\nHost: x\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../etc/passwd"\r\n\r\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("hostile"), "--max-upload", "1M", "--upload-timeout", "1") as running:
        yield running


@pytest.fixture(autouse=True)
def the_others_are_served(server: Server) -> Iterator[None]:
    """While and after the hostile client is at work; and memory stays."""
    served, end = [0], threading.Event()

    def other() -> None:
        while not end.is_set():
            assert server.read(LINE, format="text").text == f"{TEXT}\n"
            served[0] += 1

    server.read(LINE)
    before = server.memory()
    thread = threading.Thread(target=other)
    thread.start()
    yield
    end.set()
    thread.join(30)
    assert served[0] > 0
    assert server.read(LINE, format="text").text == f"{TEXT}\n"
    assert server.memory() - before < 60
    assert server.stats()["upload_bytes"] == 0


def connect(server: Server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.settimeout(20)
    return connection


def answer(connection: socket.socket) -> tuple[int, dict[str, object]]:
    """Status and body of an answer after which the server closes."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if b"json" in head else {}


def test_ten_gigabytes_are_refused_by_their_announcement(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(HEAD + FORM + b"Content-Length: 10000000000\r\n\r\n" + PART)
        start = time.monotonic()
        status, body = answer(connection)
    assert (status, body["type"]) == (413, "urn:threadsafe-ocr:UploadTooLarge")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("path", ["/v1/read", "/v1/read/stream", "/ocr"])
def test_a_stream_without_end_is_refused_where_it_gets_too_large(server: Server, path: str) -> None:
    sent = [0]

    def endless() -> Iterator[bytes]:
        yield PART if path != "/ocr" else b'{"file": "'
        while True:
            sent[0] += 1 << 16
            yield b"A" * (1 << 16)

    kind = "multipart/form-data; boundary=b" if path != "/ocr" else "application/json"
    try:
        status = httpx.post(server.url + path, content=endless(), headers={"Content-Type": kind}, timeout=20).status_code
    except httpx.TransportError:
        status = 413  # it sends for ever and does not listen: the server hangs up on it
    assert status == 413
    assert "UploadTooLarge" in [line.get("error") for line in server.log() if line["path"] == path]
    assert sent[0] < 4e9


def test_a_client_that_sends_a_little_too_much_gets_to_read_why(server: Server) -> None:
    for _ in range(5):
        refused = server.read(LINE + bytes(3_000_000))
        assert refused.status_code == 413
        assert "1000000 bytes" in refused.json()["detail"]


def test_an_upload_that_drips_is_ended(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(HEAD + FORM + b"Content-Length: 100000\r\n\r\n")
        start = time.monotonic()
        for byte in PART[:12]:
            connection.sendall(bytes([byte]))
            time.sleep(0.1)
        status, body = answer(connection)
    assert (status, body["type"]) == (408, "urn:threadsafe-ocr:UploadTimeout")
    assert time.monotonic() - start < 6


def test_two_hundred_connections_that_say_nothing_or_half_a_head_are_closed(server: Server) -> None:
    connections = [connect(server) for _ in range(200)]
    for number, connection in enumerate(connections):
        connection.sendall(HEAD[: number % 30])
    start = time.monotonic()
    for connection in connections:
        connection.settimeout(20)
        connection.recv(1000)
        connection.close()
    assert time.monotonic() - start < 15


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: -1\r\n",
        b"Content-Length: 1e3\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"X-Long: " + b"a" * 100_000 + b"\r\n",
        b"Content Length: 5\r\n",
    ],
    ids=["negative", "float", "two", "astronomic", "gzip", "both", "long", "blank"],
)
def test_wrong_lengths_and_heads_are_refused(server: Server, head: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(HEAD + FORM + head + b"\r\nhello")
        connection.shutdown(socket.SHUT_WR)
        try:
            status, _ = answer(connection)
        except (ConnectionResetError, IndexError):
            status = 400  # closed without a word
    assert 400 <= status < 500


def test_a_body_that_is_shorter_than_announced_harms_nobody(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(HEAD + FORM + b"Content-Length: 5000\r\n\r\n" + PART + LINE[:100])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/v1/..%2f..%2fetc/passwd", "//etc/passwd", "/static/../app.py"]
)
def test_no_path_leads_out(server: Server, path: str) -> None:
    with connect(server) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert answer(connection)[0] == 404


def bombs() -> dict[str, bytes]:
    flat = io.BytesIO()
    Image.new("1", (20000, 20000)).save(flat, "PNG")
    return {
        "png": flat.getvalue(),
        **{f"lying-{form.lower()}": lying(form, 65535, 65535) for form in ("PNG", "JPEG", "BMP", "GIF", "TIFF")},
        "many-pages": tiff(LINES[:1] * 201, compression="tiff_deflate"),
        "zip": b"PK\x03\x04" + bytes(900_000),
        "gzip": b"\x1f\x8b\x08\0" + bytes(900_000),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "pdf": b"%PDF-1.7\n" + b"1 0 obj<</Type/Catalog/Pages 1 0 R>>endobj\n" * 1000,
    }


BOMBS = bombs()


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_go_off(server: Server, name: str) -> None:
    start = time.monotonic()
    refused = server.read(BOMBS[name])
    assert refused.status_code in (400, 413, 415), refused.text
    assert time.monotonic() - start < 3
    if name in ("png", "many-pages"):
        assert refused.status_code == 413


@pytest.mark.parametrize("path", ["/v1/read", "/ocr"])
def test_json_that_would_swell_in_memory_is_refused_unparsed(tmp_path: Path, path: str) -> None:
    with Server(tmp_path) as server:
        before = server.memory("VmHWM")
        body = b'{"file": [' + b"{}," * 20_000_000 + b"{}]}"
        refused = httpx.post(server.url + path, content=body, headers={"Content-Type": "application/json"}, timeout=40)
        assert refused.status_code == 400
        # The body as it comes, and in one piece.
        assert server.memory("VmHWM") - before < 3 * len(body) / 1e6


@pytest.mark.timeout(120)
def test_a_page_that_is_never_rendered_keeps_the_others_waiting_for_a_while_only(server: Server) -> None:
    bomb, good = endless(), pdf_of(["alpha"])
    with ThreadPoolExecutor() as pool:
        # A client with a deadline, or one that hangs up, takes its page along.
        for hasty in ({"headers": {"X-Request-Timeout": "2"}}, {"patience": 2.0}):
            start = time.monotonic()
            late = pool.submit(server.read, bomb, **hasty)
            time.sleep(1)
            assert server.read(good, format="text").text == "alpha\n"
            assert time.monotonic() - start < 10
            if "headers" in hasty:
                assert late.result().status_code == 504
            else:
                assert isinstance(late.exception(), httpx.ReadTimeout)
        # One that is patient: until the server has had enough.
        late = pool.submit(server.read, bomb)
        time.sleep(1)
        start = time.monotonic()
        assert server.read(good, headers={"X-Request-Timeout": "2"}).json()["type"] == "urn:threadsafe-ocr:OcrTimeoutError"
        assert time.monotonic() - start < 5
        assert server.read(good, format="text").text == "alpha\n"
        assert late.result().status_code == 504
        assert time.monotonic() - start < 30


def test_forms_that_are_none_are_refused(server: Server) -> None:
    parts = b"".join(b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\nx\r\n' % number for number in range(5000))
    long = b'--b\r\nContent-Disposition: form-data; name="det_thresh"\r\n\r\n' + b"1" * 500_000 + b"\r\n--b--\r\n"
    two = PART + LINE + b"\r\n" + PART + LINE + b"\r\n--b--\r\n"
    for body in (parts + b"--b--\r\n", long, two, b"--b\r\n\r\nx\r\n--b--\r\n", b"no boundary at all", b""):
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        refused = httpx.post(f"{server.url}/v1/read", content=body, headers=headers, timeout=20)
        assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json"), refused.text
