"""Documents at full size: many pages, many threads with a PDFium of their own, and the servers that people run. `make test-documents`."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pypdfium2
import pytest
from PIL import Image, ImageDraw, ImageFont

from threadsafe_ocr import ThreadSafeOCR, rendering

PAGES = int(os.environ.get("PAGES", "500"))
# Cheap to find and to read; the pages are rendered at their full 12 MB all the same.
CHEAP = {"det_limit_type": "max", "det_limit_side_len": 640, "use_textline_orientation": False}
SECONDS = float(os.environ.get("SECONDS", "60"))


def pdf_of(count: int) -> bytes:
    """A4 pages of one large line: their number."""
    images, font = [], ImageFont.load_default(90)
    for number in range(1, count + 1):
        image = Image.new("L", (827, 1169), 255)
        ImageDraw.Draw(image).text((150, 200), f"Page {number}", fill=0, font=font)
        images.append(image.convert("1"))
    made = io.BytesIO()
    images[0].save(made, "PDF", save_all=True, append_images=images[1:], resolution=100)
    return made.getvalue()


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents") / "many.pdf"
    path.write_bytes(pdf_of(PAGES))
    return path


def test_memory_is_flat_over_all_pages_and_a_run_can_be_resumed(document: Path) -> None:
    own, resident = psutil.Process(), []
    start = time.monotonic()
    with ThreadSafeOCR() as ocr:
        pages = ocr.read_pages(document, **CHEAP)
        for number, page in enumerate(pages, 1):
            assert (page.page_number, page.text, page.width, page.height) == (number, f"Page {number}", 1654, 2338)
            helper = psutil.Process(rendering._renderer._process.pid)
            resident.append((own.memory_info().rss + helper.memory_info().rss) / 1e6)
            if number == PAGES // 2:
                # Whoever was interrupted here goes on here.
                pages.close()
                break
        assert [page.text for page in ocr.read_pages(document, f"{PAGES // 2 + 1}-", **CHEAP)] == [
            f"Page {n}" for n in range(PAGES // 2 + 1, PAGES + 1)
        ]
        resident.append((own.memory_info().rss + helper.memory_info().rss) / 1e6)
    rate = PAGES / (time.monotonic() - start)
    print(f"{rate:.1f} pages/s; MB after 20 pages {resident[20]:.0f}, at most {max(resident):.0f}, at the end {resident[-1]:.0f}")
    assert max(resident[20:]) < resident[20] + 60


def test_a_host_that_renders_with_its_own_pdfium_is_not_disturbed(document: Path) -> None:
    """Half of the threads hold a lock of the host's around PDFium, as MinerU and PaddleX do; the others read here."""
    lock, ends = threading.Lock(), time.monotonic() + SECONDS
    counts = [0] * 16

    def host(thread: int) -> None:
        while time.monotonic() < ends:
            with lock, pypdfium2.PdfDocument(document) as opened:
                opened[counts[thread] % PAGES].render(scale=0.5)
            counts[thread] += 1

    with ThreadSafeOCR() as ocr:

        def ours(thread: int) -> None:
            while time.monotonic() < ends:
                number = (thread * 31 + counts[thread]) % (PAGES - 1) + 1
                assert [page.text for page in ocr.read_pages(document, [number, number + 1], **CHEAP)] == [
                    f"Page {number}",
                    f"Page {number + 1}",
                ]
                counts[thread] += 1

        with ThreadPoolExecutor(16) as pool:
            for done in [pool.submit(host if thread < 8 else ours, thread) for thread in range(16)]:
                done.result()
    print(f"{SECONDS:g} s: {sum(counts[:8])} pages rendered by the host, {2 * sum(counts[8:])} read")
    assert min(counts) > 0


APP = """
from threadsafe_ocr import ThreadSafeOCR

ocr = ThreadSafeOCR()
ocr.warmup()


def wsgi(environ, start_response):
    import json, os
    content = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    body = json.dumps([os.getpid(), [page.text for page in ocr.read_pages(content, dpi=50)]]).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    import json, os
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    content, more = b"", True
    while more:
        message = await receive()
        content, more = content + message.get("body", b""), message.get("more_body", False)
    body = json.dumps([os.getpid(), [page.text async for page in ocr.aread_pages(content, dpi=50)]]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(params=["gunicorn", "uvicorn"])
def server(request: pytest.FixtureRequest, tmp_path: Path, port: int) -> Iterator[str]:
    """Two workers each; gunicorn's are forked from a process whose engine has read already."""
    (tmp_path / "app.py").write_text(APP)
    commands = {
        "gunicorn": ["gunicorn", "--preload", "-w", "2", "-k", "gthread", "--threads", "4", "-b", f"127.0.0.1:{port}", "app:wsgi"],
        "uvicorn": ["uvicorn", "--workers", "2", "--port", str(port), "--log-level", "warning", "app:asgi"],
    }
    running = subprocess.Popen([sys.executable, "-m", *commands[request.param]], cwd=tmp_path)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        running.terminate()
        running.wait(30)


def test_workers_of_a_server_read_documents_at_once(server: str) -> None:
    content = pdf_of(2)

    def ask(_: int) -> tuple[int, list[str]]:
        until = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(urllib.request.Request(server, content), timeout=300) as answer:
                    process, texts = json.load(answer)
                    return process, texts
            except (ConnectionError, urllib.error.URLError) as error:
                if isinstance(error, urllib.error.HTTPError) or time.monotonic() > until:
                    raise
            time.sleep(0.2)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert [texts for _, texts in answers] == [["Page 1", "Page 2"]] * 8
    print(f"{len({process for process, _ in answers})} workers answered")
