"""`--fetch-urls`: an address for a file, and what must never be fetched."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import LINES, TEXT
from serving import Server
from threadsafe_ocr.problems import Problem
from threadsafe_ocr.server.fetching import fetch, is_public
from threadsafe_ocr.server.service import Room

LINE = LINES[0].read_bytes()


class Files(http.server.BaseHTTPRequestHandler):
    """A file, ways to it, and none."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        ways = {"/moved": "/page%20one.png?a=b", "/loop": "/loop", "/inside": f"http://127.0.0.2:{self.server.server_port}/page"}
        found = self.path.startswith("/page")
        self.send_response(200 if found else 302 if self.path in ways else 404)
        if self.path in ways:
            self.send_header("Location", ways[self.path])
        self.send_header("Content-Length", str(len(LINE) if found else 0))
        self.end_headers()
        if found:
            self.wfile.write(LINE)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def files() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), Files) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_is_fetched_and_redirections_are_followed_as_far_as_they_are_allowed(files: http.server.ThreadingHTTPServer) -> None:
    def get(path: str, most: int = 1_000_000) -> bytes:
        with Room(1 << 30).share() as share:
            url = f"http://127.0.0.1:{files.server_port}{path}"
            return asyncio.run(fetch(url, most, share, allowed=lambda address: address == "127.0.0.1"))

    assert get("/page") == get("/moved") == LINE
    assert files.asked == ["/page", "/moved", "/page%20one.png?a=b"]
    for path, most, status in [("/loop", 10, 400), ("/nothing", 10, 400), ("/page", len(LINE) - 1, 413), ("/inside", 10, 400)]:
        with pytest.raises(Problem) as refused:
            get(path, most)
        assert refused.value.status == status
    assert files.asked[-1] == "/inside", "another address of this machine was asked"


def test_only_the_internets_addresses_are_public() -> None:
    inside = ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "192.0.2.1"]
    assert not any(map(is_public, inside))
    assert is_public("8.8.8.8")


def test_no_private_address_is_fetched_however_it_is_written(tmp_path: Path, files: http.server.ThreadingHTTPServer) -> None:
    hosts = ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0", "127.1", "[::1]", "[::ffff:127.0.0.1]", "user@127.0.0.1"]
    urls = [f"http://{host}:{files.server_port}/page" for host in hosts] + ["http://169.254.169.254/", "https://127.0.0.1/", "http://"]
    with Server(tmp_path, "--fetch-urls") as server:
        for url in urls:
            for path in ("/v1/read", "/ocr"):
                answer = server.client.post(path, json={"file": url})
                assert (answer.status_code, answer.json()["type"]) == (400, "urn:threadsafe-ocr:UrlNotFetched"), url
        assert files.asked == []
        assert server.read_json(LINE, format="text").text == f"{TEXT}\n"
