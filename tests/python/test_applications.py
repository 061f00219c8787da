"""The helpers for applications of one's own, under the servers that people use."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from flask import Flask

import threadsafe_ocr
from conftest import LINES, TEXT, Run
from serving import free_port
from threadsafe_ocr.fastapi import Lifespan
from threadsafe_ocr.flask import ThreadSafeOCR

LINE = LINES[0].read_bytes()

FASTAPI = """
    import sys
    from typing import Annotated
    import uvicorn
    from fastapi import Depends, FastAPI, Request
    from threadsafe_ocr import ThreadSafeOCR
    from threadsafe_ocr.fastapi import Lifespan, get_ocr, lifespan

    app = FastAPI(lifespan=Lifespan(max_pixels=1_000_000) if len(sys.argv) > 2 else lifespan)
    Engine = Annotated[ThreadSafeOCR, Depends(get_ocr)]

    @app.post("/async")
    async def read(request: Request, ocr: Engine) -> str:
        return (await ocr.aread(await request.body())).text

    async def body(request: Request) -> bytes:
        return await request.body()

    @app.post("/def")
    def read_in_a_thread(content: Annotated[bytes, Depends(body)], ocr: Engine) -> str:
        return ocr.read(content).text

    uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""

FLASK = """
    import sys
    from flask import Flask, jsonify, request
    from threadsafe_ocr.flask import ThreadSafeOCR

    app = Flask(__name__)
    if len(sys.argv) > 2:
        ocr = ThreadSafeOCR(max_pixels=1_000_000)
        ocr.init_app(app)
    else:
        ocr = ThreadSafeOCR(app)

    @app.post("/def")
    def read():
        return jsonify(ocr.read(request.data).text)

    app.run(port=int(sys.argv[1]), threaded=True)
"""


@contextmanager
def running(folder: Path, script: str, *arguments: str) -> Iterator[str]:
    """Its address."""
    (folder / "app.py").write_text(textwrap.dedent(script))
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, folder / "app.py", str(port), *arguments], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 40
        while time.monotonic() < end and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
    assert "Traceback" not in (folder / "log").read_text()


@pytest.mark.parametrize(("script", "path"), [(FASTAPI, "/async"), (FASTAPI, "/def"), (FLASK, "/def")], ids=["async", "def", "flask"])
def test_one_engine_answers_all_clients_of_an_application(tmp_path: Path, script: str, path: str) -> None:
    def post(content: bytes) -> httpx.Response:
        return httpx.post(url + path, content=content, timeout=40)

    with running(tmp_path, script) as url, concurrent.futures.ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(post, [LINE] * 32))
        assert [answer.json() for answer in answers] == [TEXT] * 32
        broken = post(LINE[:500])
        assert broken.status_code == 400
        assert broken.json()["detail"]
    with running(tmp_path, script, "settings") as url:
        assert post(LINE).json() == TEXT
        assert post((LINES[0].parents[1] / "docs_en" / "tex-nutshell-p013.png").read_bytes()).status_code == 413


def test_the_flask_extension_is_the_engine() -> None:
    app = Flask("app")
    with ThreadSafeOCR(app, timeout=30) as ocr:
        assert app.extensions["threadsafe_ocr"] is ocr
        assert ocr.read(LINE).text == TEXT
        copy = pickle.loads(pickle.dumps(ocr))
        assert type(copy) is threadsafe_ocr.ThreadSafeOCR
        assert copy.read(LINE).text == TEXT


def test_the_engine_of_a_fastapi_application_is_closed_when_that_stops() -> None:
    app = FastAPI(lifespan=Lifespan())

    async def live() -> threadsafe_ocr.ThreadSafeOCR:
        async with app.router.lifespan_context(app):
            assert (await app.state.ocr.aread(LINE)).text == TEXT
        return app.state.ocr

    with pytest.raises(threadsafe_ocr.EngineClosedError):
        asyncio.run(live()).read(LINE)


def test_a_flask_application_answers_503_when_its_engine_is_closed_and_ends_with_its_process(run_python: Run) -> None:
    run_python(
        """
        from flask import Flask
        from threadsafe_ocr.flask import ThreadSafeOCR

        app, other = Flask("app"), Flask("other")
        ocr, closed = ThreadSafeOCR(app), ThreadSafeOCR(other)
        app.get("/")(lambda: ocr.read(LINE).text)
        other.get("/")(lambda: closed.read(LINE).text)
        closed.close()
        answer = other.test_client().get("/")
        assert (answer.status_code, answer.json["type"]) == (503, "urn:threadsafe-ocr:EngineClosedError"), answer.text
        assert app.test_client().get("/").text == TEXT

        def forever():
            while True:
                app.test_client().get("/")

        # Nobody closes it: the process ends soon and without a word nevertheless.
        for _ in range(4):
            threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.5)
        """
    )


def test_every_request_page_and_step_is_a_span_of_the_clients_trace_where_a_provider_is_set_up(run_python: Run) -> None:
    run_python(
        """
        import asyncio
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        exported = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exported))
        trace.set_tracer_provider(provider)

        import httpx
        from threadsafe_ocr.server import create_app

        async def main():
            app = create_app()
            transport = httpx.ASGITransport(app)
            async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                sent = {"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01", "X-Request-ID": "one"}
                answer = await client.post("/v1/read", files={"file": open(LINE, "rb")}, headers=sent)
                assert answer.status_code == 200, answer.text
                finished = exported.get_finished_spans()
                exported.clear()
                with trace.get_tracer("an instrumentation").start_as_current_span("instrumented", kind=trace.SpanKind.SERVER):
                    await client.get("/healthz", headers={"X-Request-ID": "two"})
                assert (await client.get("/nowhere")).status_code == 404
            return finished

        spans = {span.name: span for span in asyncio.run(main())}
        (request,) = [span for span in spans.values() if span.kind == trace.SpanKind.SERVER]
        assert (request.name, request.parent.span_id) == ("POST /v1/read", int("cd" * 8, 16)), request
        asked = {"http.request.method": "POST", "http.route": "/v1/read", "http.response.status_code": 200, "ocr.request_id": "one"}
        assert request.attributes == asked, request.attributes
        instrumented, nowhere = exported.get_finished_spans()
        assert (instrumented.name, instrumented.attributes) == ("instrumented", {"ocr.request_id": "two"}), instrumented
        assert (nowhere.name, nowhere.attributes["http.response.status_code"]) == ("GET other", 404), nowhere
        assert spans["ocr.read"].parent.span_id == request.context.span_id
        page, steps = spans["ocr.read"], [spans[f"ocr.{step}"] for step in ("decode", "detection", "orientation", "recognition")]
        assert page.context.trace_id == int("ab" * 16, 16), "the client's trace"
        assert (page.attributes["ocr.page"], page.attributes["ocr.lines"]) == (1, 1), page.attributes
        assert {step.parent.span_id for step in steps} == {page.context.span_id}
        times = [page.start_time, *(time for step in steps for time in (step.start_time, step.end_time)), page.end_time]
        assert times == sorted(times), times
        assert steps[1].end_time > steps[1].start_time
        """
    )
