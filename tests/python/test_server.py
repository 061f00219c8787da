"""The service over HTTP: what clients send and what they are answered, by a real server in a process of its own."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import io
import json
import re
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pikepdf
import pypdfium2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from conftest import DATA, LINES, PAGES, TEXT, until
from serving import Server, children, png, slow_page, tiff
from test_documents import endless
from threadsafe_ocr import OcrResult, ThreadSafeOCR, _core, export
from threadsafe_ocr.server import ServerSettings, create_app, documents, reading, uploads
from threadsafe_ocr.server.service import Service

LINE = LINES[0].read_bytes()
JPEG = (PAGES / "formats" / "q30.jpg").read_bytes()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), "--max-upload", "2M", "--max-pixels", "12M", "--max-pages", "4") as running:
        yield running


def page_of(answer: httpx.Response, number: int = 0) -> dict[str, object]:
    assert answer.status_code == 200, answer.text
    return answer.json()["pages"][number]


def expected(page: OcrResult, number: int = 1) -> dict[str, object]:
    """What JSON makes of it."""
    return json.loads(json.dumps({"page": number, "text": page.text, **page.to_dict()}))


def problem(answer: httpx.Response, status: int, kind: str) -> str:
    """Its detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    members = answer.json()
    assert members["type"] == f"urn:threadsafe-ocr:{kind}"
    assert members["status"] == status
    assert members["request_id"] == answer.headers["x-request-id"]
    return str(members["detail"])


def test_an_image_in_a_form_is_read_as_the_engine_reads_it_to_the_last_bit(server: Server, ocr: ThreadSafeOCR) -> None:
    assert page_of(server.read(JPEG)) == expected(ocr.read(JPEG))


def test_an_image_in_json_is_the_same(server: Server) -> None:
    assert page_of(server.read_json(LINE)) == page_of(server.read(LINE))
    assert page_of(server.read_json(LINE))["text"] == TEXT
    address = "data:image/png;base64," + base64.b64encode(LINE).decode()
    assert page_of(httpx.post(f"{server.url}/v1/read", json={"file": address}))["text"] == TEXT


def test_many_clients_get_each_their_own_answer(server: Server, ocr: ThreadSafeOCR) -> None:
    contents = [path.read_bytes() for path in LINES[:6]]
    wanted = [expected(ocr.read(content)) for content in contents]
    with concurrent.futures.ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(lambda number: page_of(server.read(contents[number % 6])), range(36)))
    assert [number for number, answer in enumerate(answers) if answer != wanted[number % 6]] == []


@pytest.mark.parametrize(
    ("kind", "media_type", "text"),
    [("text", "text/plain", f"{TEXT}\n"), ("md", "text/markdown", f"{TEXT}\n".replace("\\", "\\\\"))],
)
def test_the_answer_comes_in_the_format_that_was_asked_for(server: Server, kind: str, media_type: str, text: str) -> None:
    answer = server.read(LINE, format=kind)
    assert (answer.headers["content-type"], answer.text) == (f"{media_type}; charset=utf-8", text)


def test_hocr_and_alto_are_what_the_exporters_write(server: Server, ocr: ThreadSafeOCR) -> None:
    for kind, media_type in [("hocr", "text/vnd.hocr+html"), ("alto", "application/xml")]:
        answer = server.read(LINE, format=kind)
        assert answer.headers["content-type"].startswith(media_type), answer.text
        assert answer.text == export.TEXTS[kind]([ocr.read(LINE)], "page.png")


def test_every_page_of_a_pdf_is_read_as_read_pages_does(server: Server, ocr: ThreadSafeOCR) -> None:
    document = pdf_of(LINES[:3])
    wanted = [expected(page, number) for number, page in enumerate(ocr.read_pages(document), 1)]
    for page in wanted:
        del page["page_number"]
    assert server.read(document).json()["pages"] == wanted
    larger = page_of(server.read(document, dpi=300))
    assert larger["width"] == pytest.approx(1.5 * wanted[0]["width"], abs=2)


@pytest.mark.parametrize("kind", ["pdf", "tiff", "image"])
def test_a_searchable_pdf_holds_the_text_of_every_page(server: Server, kind: str) -> None:
    document = {"pdf": pdf_of(LINES[:2]), "tiff": tiff(LINES[:2]), "image": LINE}[kind]
    answer = server.read(document, format="pdf")
    assert answer.headers["content-type"] == "application/pdf", answer.text
    made = pypdfium2.PdfDocument(answer.content)
    texts = [page.get_textpage().get_text_bounded() for page in made]
    assert [text.split() for text in texts] == [page["text"].split() for page in server.read(document).json()["pages"]]


def test_a_pdf_of_too_many_pages_too_large_pages_or_with_a_password_is_refused_with_the_reason(server: Server) -> None:
    assert "4 pages" in problem(server.read(pdf_of(LINES[:5])), 413, "TooManyPages")
    large = io.BytesIO()
    Image.new("L", (2000, 2000)).save(large, "PDF", resolution=72)
    assert "max_pixels" in problem(server.read(large.getvalue()), 413, "InvalidImageError")
    document = pdf_of(LINES[:1])
    problem(server.read(document[: len(document) // 2]), 400, "InvalidImageError")
    with pikepdf.open(io.BytesIO(document)) as opened:
        file = io.BytesIO()
        opened.save(file, encryption=pikepdf.Encryption(owner="a", user="secret"))
    assert "password" in problem(server.read(file.getvalue()), 400, "PasswordError")
    problem(server.read(file.getvalue(), password="wrong"), 400, "PasswordError")
    assert page_of(server.read(file.getvalue(), password="secret"))["text"] == page_of(server.read(document))["text"]


def test_a_stream_shows_its_pages_and_says_how_many_there_are(server: Server) -> None:
    answer = server.read(pdf_of(LINES[:2]), path="/v1/read/stream", images=True)
    assert answer.headers["x-page-count"] == "2"
    for page in map(json.loads, answer.text.splitlines()):
        with Image.open(io.BytesIO(base64.b64decode(page["image"]))) as picture:
            assert (picture.format, picture.size) == ("JPEG", (page["width"], page["height"]))


def pdf_of(pages: list[Path]) -> bytes:
    first, *rest = [Image.open(page).convert("RGB") for page in pages]
    file = io.BytesIO()
    first.save(file, "PDF", save_all=True, append_images=rest, resolution=200)
    return file.getvalue()


def test_options_hold_for_their_request_only(server: Server) -> None:
    assert page_of(server.read(LINE, rec_score_thresh=1))["lines"] == []
    assert page_of(server.read_json(LINE, rec_score_thresh=1.0))["lines"] == []
    assert page_of(server.read(LINE))["text"] == TEXT


@pytest.mark.parametrize("fields", [{"det_thresh": "much"}, {"color": "rgb"}, {"format": "exe"}, {"timeout": 1}, {"rec_group": ""}])
def test_a_field_that_cannot_be_is_named(server: Server, fields: dict[str, object]) -> None:
    assert problem(server.read(LINE, **fields), 400, "InvalidField").startswith(next(iter(fields)))


@pytest.mark.parametrize(
    ("name", "most"), [("det_max_side", 4000), ("det_max_candidates", 3000), ("rec_max_width", 3200), ("page_min_side", 2000)]
)
def test_what_would_take_the_memory_of_many_is_refused(server: Server, name: str, most: int) -> None:
    assert problem(server.read(LINE, **{name: most + 1}), 400, "InvalidField").startswith(name)
    if name != "page_min_side":
        assert page_of(server.read(LINE, **{name: most}))["text"] == TEXT


def test_an_option_that_the_engine_refuses_is_the_clients_fault(server: Server) -> None:
    assert "rec_width_step" in problem(server.read(LINE, rec_width_step=-1), 400, "ConfigError")


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"big_tiff": True}], ids=["plain", "lzw", "big"])
def test_every_page_of_a_tiff_is_read(server: Server, ocr: ThreadSafeOCR, options: dict[str, object]) -> None:
    answer = server.read(tiff(LINES[:3], **options))
    texts = [page_of(answer, number)["text"] for number in range(3)]
    assert texts == [ocr.read(Image.open(path).convert("RGB")).text for path in LINES[:3]]
    assert server.read(tiff(LINES[:3], **options), format="text").text == "".join(f"{text}\n\f" for text in texts)[:-1]


def test_a_tiff_of_too_many_pages_or_without_an_end_is_refused(server: Server) -> None:
    assert "4 pages" in problem(server.read(tiff(LINES[:5])), 413, "TooManyPages")
    document = bytearray(tiff(LINES[:2]))
    (first,) = struct.unpack_from("<I", document, 4)
    (entries,) = struct.unpack_from("<H", document, first)
    struct.pack_into("<I", document, first + 2 + 12 * entries, first)
    assert "cycle" in problem(server.read(bytes(document)), 400, "InvalidImageError")
    struct.pack_into("<I", document, first + 2 + 12 * entries, len(document) + 100)
    assert "page 2" in problem(server.read(bytes(document)), 400, "InvalidImageError")


def test_a_tiff_that_is_all_small_copies_keeps_nobody_waiting(server: Server) -> None:
    copies = [struct.pack("<HHHIII", 1, 254, 4, 1, 1, 8 + 18 * number) for number in range(1, 100_000)]
    assert "4 pages" in problem(server.read(b"II*\0\x08\0\0\0" + b"".join(copies)), 413, "TooManyPages")


@pytest.mark.parametrize("far", [2**63, 2**64 - 1])
def test_a_tiff_whose_places_are_beyond_all_addresses_is_refused(server: Server, far: int) -> None:
    document = tiff(LINES[:2], big_tiff=True)
    (first,) = struct.unpack_from("<Q", document, 8)
    (entries,) = struct.unpack_from("<Q", document, first)
    for place, page in [(8, 1), (first, 2), (first + 8 + 20 * entries, 2)]:
        lying = document[:place] + struct.pack("<Q", far) + document[place + 8 :]
        assert f"page {page}" in problem(server.read(lying), 400, "InvalidImageError")


def test_a_stream_has_a_line_a_page_and_the_first_one_early(server: Server) -> None:
    body = tiff(LINES[:4])
    with server.client.stream("POST", "/v1/read/stream", files={"file": body}) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        pages = [json.loads(line) for line in answer.iter_lines()]
    assert [page["page"] for page in pages] == [1, 2, 3, 4]
    assert pages == server.read(body).json()["pages"]


def test_a_stream_that_cannot_begin_has_a_status_and_one_that_breaks_says_so_at_its_end(server: Server) -> None:
    problem(server.read(b"no image", path="/v1/read/stream"), 415, "UnsupportedMediaType")
    document = bytearray(tiff(LINES[:2]))
    (first,) = struct.unpack_from("<I", document, 4)
    (entries,) = struct.unpack_from("<H", document, first)
    (second,) = struct.unpack_from("<I", document, first + 2 + 12 * entries)
    # Its width is now that of no tag that there is.
    struct.pack_into("<H", document, second + 2, 60000)
    answer = server.read(bytes(document), path="/v1/read/stream")
    assert answer.status_code == 200
    good, bad = [json.loads(line) for line in answer.text.splitlines()]
    assert good["text"] == TEXT
    assert (bad["error"]["status"], bad["error"]["type"]) == (400, "urn:threadsafe-ocr:InvalidImageError")


@pytest.mark.parametrize(
    ("content", "status", "kind"),
    [
        (b"", 415, "UnsupportedMediaType"),
        (b"hello", 415, "UnsupportedMediaType"),
        (b"PK\x03\x04" + bytes(1000), 415, "UnsupportedMediaType"),
        (LINE[: len(LINE) // 2], 400, "InvalidImageError"),
        (png(np.zeros((4000, 4000), np.uint8)), 413, "InvalidImageError"),
    ],
    ids=["empty", "text", "zip", "half", "too-many-pixels"],
)
def test_what_is_no_page_is_refused_with_the_reason(server: Server, content: bytes, status: int, kind: str) -> None:
    assert problem(server.read(content), status, kind)


def test_bodies_of_other_kinds_are_refused(server: Server) -> None:
    url = f"{server.url}/v1/read"
    problem(httpx.post(url, content=LINE, headers={"Content-Type": "image/png"}), 415, "UnsupportedMediaType")
    problem(httpx.post(url), 415, "UnsupportedMediaType")
    problem(httpx.post(url, data={"a": "b"}, files={"other": LINE}), 400, "MissingFile")
    problem(httpx.post(url, content=b"--x", headers={"Content-Type": "multipart/form-data"}), 400, "InvalidForm")
    problem(httpx.post(url, content=b"{", headers={"Content-Type": "application/json"}), 400, "InvalidJson")
    problem(httpx.post(url, content=b"[" * 200_000, headers={"Content-Type": "application/json"}), 400, "InvalidJson")
    problem(httpx.post(url, json=[1]), 400, "InvalidJson")
    problem(httpx.post(url, json={}), 400, "MissingFile")
    problem(httpx.post(url, json={"file": "%%%"}), 400, "InvalidBase64")


@given(st.text("%45aA+=&z", max_size=40))
def test_forms_are_read_as_by_urllib_whatever_is_escaped_and_wherever_a_piece_ends(body: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(uploads, "PIECE", 5)
        assert uploads._urlencoded(body.encode(), 100) == dict(urllib.parse.parse_qsl(body))


def test_a_form_of_nothing_but_escapes_is_read_and_others_are_answered_meanwhile(tmp_path: Path) -> None:
    encoded = base64.b64encode(LINE).decode()
    escaped = "".join(f"%{ord(character):{'02x' if number % 2 else '02X'}}" for number, character in enumerate(encoded))
    form: dict[str, Any] = {"headers": {"Content-Type": "application/x-www-form-urlencoded"}, "timeout": 60}
    with Server(tmp_path) as server:
        url = f"{server.url}/rapidocr/ocr"
        lines = httpx.post(url, content=f"image_data={escaped}&use_cls=", **form).json()
        assert [line["rec_txt"] for line in lines.values()] == [TEXT]
        problem(httpx.post(url, content="image_data=%4", **form), 400, "InvalidBase64")
        problem(httpx.post(url, content="a=1&b=2&c=3&d=4&e=5&f=6", **form), 400, "InvalidForm")
        before = server.stats()["memory_bytes"]
        # A list of these would take gigabytes.
        many = threading.Thread(target=httpx.post, args=(url,), kwargs={"content": b"image_data=" + b"%41" * 15_000_000, **form})
        many.start()
        while many.is_alive():
            assert httpx.get(f"{server.url}/healthz", timeout=5).status_code == 200
        assert server.stats()["memory_bytes"] - before < 400_000_000


def test_refusals_say_what_to_send_instead(server: Server) -> None:
    url, raw = server.url, {"content": LINE, "headers": {"Content-Type": "application/x-www-form-urlencoded"}}
    assert "-F file=@page.png" in problem(httpx.post(f"{url}/v1/read", **raw), 400, "InvalidForm")
    assert "base64" in problem(httpx.post(f"{url}/ocr", **raw), 400, "InvalidJson")
    assert '"image_file"' in problem(httpx.post(f"{url}/rapidocr/ocr", files={"file": LINE}), 400, "MissingFile")
    assert "empty" in problem(server.read(b""), 415, "UnsupportedMediaType")
    assert "rec_score_tresh: there is no such field" in problem(server.read(LINE, rec_score_tresh=0.5), 400, "InvalidField")


def test_a_server_that_cannot_be_warmed_up_says_why_it_is_not_ready(tmp_path: Path) -> None:
    with Server(tmp_path, "--max-pixels", "5000", wait=False) as server:
        end = time.monotonic() + 60
        while "/readyz stays 503" not in server.errors() and time.monotonic() < end:
            time.sleep(0.1)
        assert "max_pixels" in server.errors()
        assert server.client.get("/readyz").status_code == 503


@pytest.mark.parametrize("file", ["http://127.0.0.1/", "https://example.org/a.png", "file:///etc/passwd", "/etc/passwd"])
def test_no_address_is_fetched_and_no_file_of_the_server_is_read(server: Server, file: str) -> None:
    answer = httpx.post(f"{server.url}/v1/read", json={"file": file})
    assert answer.status_code in (400, 415)
    assert "root:" not in answer.text


def test_no_answer_within_the_clients_time_is_a_504(server: Server) -> None:
    assert "timeout" in problem(server.read(slow_page(), headers={"X-Request-Timeout": "0.2"}), 504, "OcrTimeoutError")
    for value in ("soon", "-1", "nan", "inf"):
        problem(server.read(LINE, headers={"X-Request-Timeout": value}), 400, "InvalidField")


def test_the_clients_time_holds_for_the_upload_and_for_writing_the_answer(ocr: ThreadSafeOCR, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(ocr=ocr)

    async def dripping() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            for path in ("/v1/read", "/v1/read/stream"):
                headers = {"Content-Type": "application/json", "X-Request-Timeout": "0.5"}
                refused = await client.post(path, content=dripping(), headers=headers)
                assert "upload" in problem(refused, 504, "OcrTimeoutError")
            monkeypatch.setattr(reading, "formatted", lambda *_, **__: time.sleep(3))
            start = time.monotonic()
            refused = await client.post("/v1/read", files={"file": LINE}, headers={"X-Request-Timeout": "1.5"})
            assert "written" in problem(refused, 504, "OcrTimeoutError")
            assert time.monotonic() - start < 2.5

    asyncio.run(ask())


def test_what_is_not_there_is_told_in_the_same_form(server: Server) -> None:
    problem(server.client.get("/v1/nothing"), 404, "NotFound")
    problem(server.client.get("/v1/read"), 405, "MethodNotAllowed")
    problem(server.client.get("/../../etc/passwd"), 404, "NotFound")


def test_the_state_of_the_server_can_be_asked(server: Server) -> None:
    server.read(LINE)
    assert server.client.get("/healthz").json() == {"status": "ok"}
    assert server.client.get("/readyz").json() == {"status": "ready"}
    assert server.client.get("/v1/models").json()["models"] == [{"name": "v6-small", "device": "auto"}]
    stats = server.stats()
    assert stats["active"] == 0
    assert stats["upload_bytes"] == 0
    assert stats["memory_bytes"] / 1e6 == pytest.approx(server.memory(), rel=0.2)
    before = stats["errors"].get("UnsupportedMediaType", 0)
    server.read(b"hello")
    assert server.stats()["errors"]["UnsupportedMediaType"] == before + 1
    assert stats["engine"]["answered"] > 0


def test_metrics_are_those_of_the_engine(server: Server) -> None:
    before = metrics(server)
    server.read(LINE)
    server.read(b"hello")
    after = metrics(server)
    grown = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert grown["threadsafe_ocr_lines_total"] == 1
    assert grown["threadsafe_ocr_requests_total answered"] == 1
    assert grown["threadsafe_ocr_errors_total UnsupportedMediaType"] == 1
    assert grown["threadsafe_ocr_http_seconds_count /v1/read 200"] == 1
    assert grown["threadsafe_ocr_inference_seconds_sum detection"] > 0
    assert grown["threadsafe_ocr_inference_seconds_count recognition"] == 1
    assert after["process_resident_memory_bytes"] > 1e7
    assert after["threadsafe_ocr_queue_size"] == 0


def metrics(server: Server) -> dict[str, float]:
    """Name and labels -> value."""
    families = text_string_to_metric_families(server.client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return {" ".join([s.name, *(value for key, value in s.labels.items() if key not in ("pid", "le"))]): s.value for s in samples}


def logged(server: Server, request_id: str) -> list[dict[str, Any]]:
    """The lines of a request; they are written after the answer."""
    late = time.monotonic() + 20
    while not (lines := [line for line in server.log() if line["request_id"] == request_id]) and time.monotonic() < late:
        time.sleep(0.05)
    return lines


def test_every_request_has_its_line_in_the_log(server: Server) -> None:
    answer = server.read(LINE, headers={"X-Request-ID": "from-the-proxy.1"})
    assert answer.headers["x-request-id"] == "from-the-proxy.1"
    (line,) = logged(server, "from-the-proxy.1")
    seconds = line.pop("seconds")
    assert 0 < seconds < 10
    assert line.pop("time").startswith("20")
    assert line == {
        "request_id": "from-the-proxy.1",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1/read",
        "status": 200,
        "pages": 1,
        "lines": 1,
    }
    for forged in ("a b", "x" * 200, '"', ""):
        assert server.read(LINE, headers={"X-Request-ID": forged}).headers["x-request-id"] != forged


def test_the_documentation_names_every_call_with_an_example(server: Server) -> None:
    described = server.client.get("/openapi.json").json()
    assert {"/v1/read", "/v1/read/stream", "/ocr", "/rapidocr/ocr", "/healthz", "/readyz", "/metrics", "/v1/models", "/v1/stats"} <= set(
        described["paths"]
    )
    form = described["paths"]["/v1/read"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert {"file", "format", "det_thresh", "rec_score_thresh"} <= set(form)
    for path, calls in described["paths"].items():
        if call := calls.get("post"):
            answers = [content for answer in call["responses"].values() for content in answer["content"].items()]
            assert answers, path
            assert {kind for kind, content in answers if "example" not in content} <= {"application/pdf"}, path
            assert "example" in call["requestBody"]["content"].get("application/json", {"example": "none, a form"}), path
    assert "swagger" in server.client.get("/docs").text


def test_a_client_of_paddlex_works_with_its_address_changed(server: Server, ocr: ThreadSafeOCR) -> None:
    payload = {"file": base64.b64encode(JPEG).decode("ascii"), "fileType": 1}
    response = httpx.post(f"{server.url}/ocr", json=payload, timeout=40)
    assert response.status_code == 200
    members = response.json()
    assert (members["errorCode"], members["errorMsg"]) == (0, "Success")
    assert members["logId"]
    (result,) = members["result"]["ocrResults"]
    page, pruned = ocr.read(JPEG), result["prunedResult"]
    assert pruned["rec_texts"] == [line.text for line in page.lines]
    assert pruned["rec_scores"] == [line.score for line in page.lines]
    assert pruned["rec_boxes"][0] == [round(value) for value in page.lines[0].box]
    assert [len(polygon) for polygon in pruned["rec_polys"]] == [4] * len(page.lines)
    with Image.open(io.BytesIO(base64.b64decode(result["ocrImage"]))) as picture:
        assert picture.format == "JPEG"
        assert picture.width == pytest.approx(2 * page.width * picture.height / page.height, abs=2)
    assert members["result"]["dataInfo"] == {"width": page.width, "height": page.height, "type": "image"}


def test_clients_of_paddlex_get_words_their_log_id_and_what_kind_of_file_it_is(server: Server) -> None:
    answer = server.read_json(LINE, path="/ocr", visualize=False, returnWordBox=True, logId="mine").json()
    assert answer["logId"] == "mine"
    pruned = answer["result"]["ocrResults"][0]["prunedResult"]
    assert pruned["return_word_box"] is True
    assert ["".join(words) for words in pruned["text_word"]] == pruned["rec_texts"] == [TEXT]
    assert len(pruned["text_word"][0]) == len(pruned["text_word_boxes"][0]) > 1
    for left, top, right, bottom in pruned["text_word_boxes"][0]:
        assert 0 <= left < right <= pruned["rec_boxes"][0][2] + 1
        assert [top, bottom] == pruned["rec_boxes"][0][1::2]
    for content, kind in [(pdf_of(LINES[:1]), "pdf"), (pdf_of(LINES[:2]), "pdf"), (tiff(LINES[:2]), "tiff"), (tiff(LINES[:1]), "image")]:
        result = server.read_json(content, path="/ocr", visualize=False).json()["result"]
        about = result["dataInfo"]
        assert about["type"] == kind
        if kind != "image":
            assert about["numPages"] == len(about["pages"]) == len(result["ocrResults"])
            assert about["pages"][0].keys() == {"width", "height"}
    health = server.client.get("/health").json()
    assert health.pop("logId")
    assert health == {"errorCode": 0, "errorMsg": "Healthy"}


def test_no_more_pictures_are_made_at_once_than_there_are_cores(ocr: ThreadSafeOCR) -> None:
    """Each takes several copies of its page."""
    lock, now, most = threading.Lock(), 0, 0

    def picture(_image: object, _page: OcrResult) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.1)
        with lock:
            now -= 1

    async def main() -> None:
        service, end = Service(ServerSettings(), ocr), asyncio.get_running_loop().time() + 30

        async def client(content: bytes) -> None:
            async for _ in documents.read(service, content, documents.Reading({}, picture=picture), end):
                pass

        await asyncio.gather(*map(client, [LINE] * 8 + [tiff(LINES[:3]), pdf_of(LINES[:3])]))

    asyncio.run(main())
    assert 1 <= most <= max(_core.cores(), 2)


def test_what_is_transparent_is_white_in_the_pictures_as_it_is_read(server: Server) -> None:
    answer = server.read_json(png(np.zeros((60, 200, 4), np.uint8)), path="/ocr").json()
    for name in ("inputImage", "ocrImage"):
        with Image.open(io.BytesIO(base64.b64decode(answer["result"]["ocrResults"][0][name]))) as picture:
            assert picture.getpixel((5, 5)) == (255, 255, 255)


def test_what_paddlex_may_be_asked_holds_and_its_errors_have_its_form(server: Server) -> None:
    quiet = server.read_json(LINE, path="/ocr", visualize=False, textRecScoreThresh=1, useDocUnwarping=False).json()
    assert quiet["result"]["ocrResults"][0].keys() == {"prunedResult"}
    assert quiet["result"]["ocrResults"][0]["prunedResult"]["rec_texts"] == []
    for members, status in [({"textDetThresh": "x"}, 422), ({"useDocUnwarping": True}, 422)]:
        answer = server.read_json(LINE, path="/ocr", **members)
        assert (answer.status_code, answer.json()["errorCode"]) == (status, status)
        assert answer.json()["errorMsg"]
        assert answer.json()["logId"]
    assert server.read_json(b"hello", path="/ocr").json()["errorCode"] == 415


def test_a_client_of_rapidocr_api_works_with_its_address_changed(server: Server) -> None:
    recorded = json.loads((DATA / "golden" / "rapidocr_api.json").read_text())
    url, image = f"{server.url}/rapidocr/ocr", (PAGES / recorded["page"]).read_bytes()
    in_base64 = {"image_data": base64.b64encode(image).decode()}
    answer = httpx.post(url, files={"image_file": ("page.jpg", image)}, data={"use_cls": "true"}, timeout=40).json()
    assert httpx.post(url, data=in_base64, timeout=40).json() == answer
    assert httpx.post(url, data=in_base64, files={"nothing": b""}, timeout=40).json() == answer
    assert list(answer) == [str(number) for number in range(len(answer))]
    shapes = {(*line, *map(type, line.values()), np.shape(line["dt_boxes"])) for line in (*answer.values(), *recorded["answer"].values())}
    assert shapes == {("rec_txt", "dt_boxes", "score", str, list, float, (4, 2))}
    found = {
        number
        for number, line in recorded["answer"].items()
        for own in answer.values()
        if own["rec_txt"] == line["rec_txt"] and np.allclose(own["dt_boxes"], line["dt_boxes"], atol=6)
    }
    assert len(found) >= 0.8 * len(recorded["answer"])
    assert httpx.post(url, data={"image_data": base64.b64encode(png(np.full((60, 200, 3), 255, np.uint8))).decode()}).json() == {}


def test_what_rapidocr_api_cannot_be_asked_is_told(server: Server) -> None:
    url = f"{server.url}/rapidocr/ocr"
    problem(httpx.post(url, files={"image_file": LINE}, data={"use_det": "false"}), 422, "InvalidField")
    problem(httpx.post(url, data={"use_cls": "true"}), 400, "MissingFile")
    problem(httpx.post(url, data={"image_data": "%%%"}), 400, "InvalidBase64")
    problem(httpx.post(url, data={f"f{number}": "" for number in range(50)}), 400, "InvalidForm")
    problem(httpx.post(url, files={"image_file": b"x" * 3_000_000}), 413, "UploadTooLarge")


def test_keys_cross_origin_and_a_clients_share(tmp_path: Path) -> None:
    flags = ("--api-key", "one", "--api-key", "two", "--cors", "https://app.example", "--max-per-client", "1")
    with Server(tmp_path, *flags) as server:
        answer = server.read(LINE)
        problem(answer, 401, "Unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        problem(server.read(LINE, headers={"X-API-Key": "on"}), 401, "Unauthorized")
        assert server.client.get("/v1/stats").status_code == server.client.get("/metrics").status_code == 401
        one, two = {"Authorization": "Bearer one"}, {"X-API-Key": "two"}
        assert page_of(server.read(LINE, headers=one))["text"] == TEXT
        ask = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        allowed = server.client.options("/v1/read", headers={**ask, "Access-Control-Request-Headers": "x-api-key"})
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://app.example")
        assert server.client.options("/v1/read", headers={**ask, "Origin": "https://other.example"}).status_code == 400
        with socket.create_connection(("127.0.0.1", server.port)) as uploading:
            head = b"POST /v1/read HTTP/1.1\r\nHost: x\r\nX-API-Key: one\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            uploading.sendall(head)
            while server.client.get("/v1/stats", headers=one).json()["active"] == 0:
                pass
            refused = server.read(LINE, headers={**one, "Origin": "https://app.example"})
            problem(refused, 429, "TooManyRequests")
            assert refused.headers["retry-after"]
            assert refused.headers["access-control-allow-origin"] == "https://app.example", "the page may know why"
            assert page_of(server.read(LINE, headers=two))["text"] == TEXT
        while server.client.get("/v1/stats", headers=one).json()["active"] > 0:
            pass
        assert page_of(server.read(LINE, headers=one))["text"] == TEXT


def test_keys_shares_and_the_shutdown_hold_behind_a_root_path(ocr: ThreadSafeOCR) -> None:
    app = create_app(ServerSettings(api_keys=("one",), max_per_client=1), ocr)

    async def ask() -> None:
        transport = httpx.ASGITransport(app, root_path="/behind")
        async with httpx.AsyncClient(transport=transport, base_url="http://x/behind") as client:

            async def read(path: str = "/v1/read", key: str = "one") -> httpx.Response:
                return await client.post(path, files={"file": LINE}, headers={"X-API-Key": key})

            problem(await read(key=""), 401, "Unauthorized")
            first, second = await asyncio.gather(read(), read())
            assert page_of(first)["text"] == TEXT
            problem(second, 429, "TooManyRequests")
            assert (await read("/ocr")).json()["errorCode"] == 400, "the form of PaddleX"
            numbers = await client.get("/metrics", headers={"X-API-Key": "one"})
            assert 'path="/v1/read"' in numbers.text
            app.state.service.closing = True
            problem(await read(), 503, "ShuttingDown")

    asyncio.run(ask())


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(tmp_path: Path) -> None:
    with Server(tmp_path, "--max-queue-size", "1") as server:
        with server.begun(slow_page()):
            refused = server.read(LINE)
            problem(refused, 503, "OverloadedError")
            assert int(refused.headers["retry-after"]) > 0
        until(lambda: not server.stats()["engine"]["queue_size"])
        assert page_of(server.read(LINE))["text"] == TEXT


def test_pdfs_that_wait_to_be_rendered_are_a_queue_that_is_full_at_once_too(tmp_path: Path) -> None:
    with Server(tmp_path, "--max-queue-size", "1") as server, concurrent.futures.ThreadPoolExecutor() as pool:
        pool.submit(server.read, endless(), headers={"X-Request-Timeout": "10"})
        while not children(server.process.pid):
            time.sleep(0.02)
        refused = server.read(pdf_of(LINES[:1]))
        assert "PDFs" in problem(refused, 503, "OverloadedError")
        assert int(refused.headers["retry-after"]) > 0
        assert page_of(server.read(LINE))["text"] == TEXT


def test_the_dashboard_asks_for_what_there_is(server: Server) -> None:
    server.read(LINE)
    server.read(b"hello")
    dashboard = json.loads((Path(__file__).parents[2] / "docs" / "grafana.json").read_text())
    asked = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    there = {name.split()[0] for name in metrics(server)}
    names = set(re.findall(r"\b(?:threadsafe_ocr|process)_[a-z_]+", asked))
    assert names
    assert names - there == set()
