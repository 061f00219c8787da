"""All pages of a document: rendered one at a time by a process that may die, read in order, in bounded memory."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pikepdf
import pytest
from PIL import Image, ImageDraw, ImageFont

from conftest import LINES, Run, key, until
from threadsafe_ocr import (
    ConfigError,
    ImageNotFoundError,
    InvalidImageError,
    OcrResult,
    OcrTimeoutError,
    PasswordError,
    ThreadSafeOCR,
    rendering,
)
from threadsafe_ocr.documents import chosen

WORDS = ["alpha", "bravo", "charlie", "delta", "echo"]


def page_of(text: str) -> Image.Image:
    image = Image.new("RGB", (420, 90), "white")
    ImageDraw.Draw(image).text((20, 20), text, fill="black", font=ImageFont.load_default(36))
    return image


def pdf_of(texts: list[str], **options: object) -> bytes:
    """A PDF whose pages are pictures of texts, at 100 pixels an inch."""
    made = io.BytesIO()
    first, *rest = [page_of(text) for text in texts]
    first.save(made, "PDF", save_all=True, append_images=rest, resolution=100, **options)
    return made.getvalue()


def tiff_of(texts: list[str], **options: object) -> bytes:
    made = io.BytesIO()
    first, *rest = [page_of(text) for text in texts]
    first.save(made, "TIFF", save_all=True, append_images=rest, **options)
    return made.getvalue()


def encrypted(content: bytes, password: str) -> bytes:
    made = io.BytesIO()
    with pikepdf.open(io.BytesIO(content)) as pdf:
        pdf.save(made, encryption=pikepdf.Encryption(user=password, owner="owner"))
    return made.getvalue()


def drawing(operators: str, width: float = 300, height: float = 200) -> bytes:
    """A PDF of one page that is drawn by operators."""
    made = io.BytesIO()
    with pikepdf.new() as pdf:
        page = pdf.add_blank_page(page_size=(width, height))
        page.Contents = pikepdf.Stream(pdf, operators.encode())
        pdf.save(made)
    return made.getvalue()


def endless() -> bytes:
    """Minutes of one page, and no memory: its shading asks 600,000 operations of every pixel."""
    made = io.BytesIO()
    with pikepdf.new() as pdf:
        page = pdf.add_blank_page(page_size=(300, 200))
        function = pikepdf.Stream(pdf, b"{ pop " + b"dup mul " * 300_000 + b"}")
        function.FunctionType, function.Domain, function.Range = 4, [0, 1, 0, 1], [0, 1]
        shading = pikepdf.Dictionary(ShadingType=1, ColorSpace=pikepdf.Name.DeviceGray, Matrix=[300, 0, 0, 200, 0, 0])
        shading.Function = pdf.make_indirect(function)
        page.Resources = pikepdf.Dictionary(Shading=pikepdf.Dictionary(S=shading))
        page.Contents = pikepdf.Stream(pdf, b"/S sh")
        pdf.save(made)
    return made.getvalue()


def texts(pages: object) -> list[tuple[int | None, str]]:
    return [(page.page_number, page.text) for page in pages]


@pytest.fixture(scope="module")
def pdf() -> bytes:
    return pdf_of(WORDS)


def test_pages_come_in_order_and_say_their_number(ocr: ThreadSafeOCR, pdf: bytes, tmp_path: Path) -> None:
    expected = list(enumerate(WORDS, 1))
    (tmp_path / "d.pdf").write_bytes(pdf)
    assert texts(ocr.read_pages(pdf)) == expected
    for source in (tmp_path / "d.pdf", str(tmp_path / "d.pdf"), io.BytesIO(pdf), bytearray(pdf)):
        assert texts(ocr.read_pdf(source, "2")) == [expected[1]]


def test_a_page_is_read_as_its_pixels_are(ocr: ThreadSafeOCR, pdf: bytes) -> None:
    (page,) = ocr.read_pages(pdf, 3, dpi=100)
    assert (page.width, page.height) == (420, 90)
    assert key(page) == key(ocr.read(rendering.PdfDocument(pdf).render(2, 100)))
    (double,) = ocr.read_pages(pdf, 3, dpi=200)
    assert (double.width, double.height) == (840, 180)


@pytest.mark.parametrize(
    ("pages", "numbers"),
    [("4-", [4, 5]), ("1-2,5", [1, 2, 5]), (range(2, 4), [2, 3]), ([5, 1], [5, 1]), (2, [2]), (None, [1, 2, 3, 4, 5])],
)
def test_a_run_is_resumed_by_its_page_numbers(pages: object, numbers: list[int]) -> None:
    assert chosen(pages, 5) == numbers


@pytest.mark.parametrize("pages", [0, 6, "6", "3-9", "a", "1-b", [1, 7], ["1"], "-2"])
def test_a_page_that_is_not_there_is_told(ocr: ThreadSafeOCR, pdf: bytes, pages: object) -> None:
    with pytest.raises(ConfigError, match="pages="):
        list(ocr.read_pages(pdf, pages))


def test_the_async_form_gives_the_same_while_the_loop_goes_on(ocr: ThreadSafeOCR, pdf: bytes) -> None:
    async def main() -> tuple[list[OcrResult], float]:
        worst, reading = 0.0, True

        async def tick() -> None:
            nonlocal worst
            while reading:
                before = time.monotonic()
                await asyncio.sleep(0.005)
                worst = max(worst, time.monotonic() - before)

        ticking = asyncio.create_task(tick())
        pages = [page async for page in ocr.aread_pages(pdf)]
        reading = False
        await ticking
        return pages, worst

    pages, worst = asyncio.run(main())
    assert [key(page) for page in pages] == [key(page) for page in ocr.read_pages(pdf)]
    assert [page.page_number for page in pages] == [1, 2, 3, 4, 5]
    assert worst < 1


def test_leaving_an_async_loop_early_leaves_nothing_behind(ocr: ThreadSafeOCR, pdf: bytes) -> None:
    async def first() -> str:
        pages = ocr.aread_pages(pdf)
        async for page in pages:
            await pages.aclose()
            return page.text
        return ""

    assert asyncio.run(first()) == "alpha"
    until(lambda: not ocr.stats()["queue_size"])  # what is being run holds its permit until it has stopped


def test_an_iterator_that_nobody_continues_keeps_no_one_waiting(ocr: ThreadSafeOCR, pdf: bytes) -> None:
    held = [ocr.read_pages(pdf, in_flight=1) for _ in range(8)]
    assert [next(pages).text for pages in held] == ["alpha"] * 8
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(lambda _: texts(ocr.read_pages(pdf)), range(4)))
    assert others == [list(enumerate(WORDS, 1))] * 4
    assert [next(pages).text for pages in held] == ["bravo"] * 8
    for pages in held:
        pages.close()
    until(lambda: not ocr.stats()["queue_size"])


def test_frames_of_a_tiff_are_pages(ocr: ThreadSafeOCR) -> None:
    for options in ({}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"big_tiff": True}):
        assert texts(ocr.read_pages(tiff_of(["one", "two"], **options))) == [(1, "one"), (2, "two")]
    assert texts(ocr.read_pages(tiff_of(WORDS), "4-5")) == [(4, "delta"), (5, "echo")]


def test_frames_read_at_once_are_not_mixed_up(ocr: ThreadSafeOCR) -> None:
    async def main() -> list[tuple[int | None, str]]:
        return texts([page async for page in ocr.aread_pages(tiff_of(WORDS), in_flight=5)])

    assert asyncio.run(main()) == list(enumerate(WORDS, 1))


@pytest.mark.parametrize("cut", [9, 40, 3000])
def test_a_broken_tiff_is_told(ocr: ThreadSafeOCR, cut: int) -> None:
    content = tiff_of(["one", "two"])
    with pytest.raises(InvalidImageError):
        list(ocr.read_pages(content[:cut]))


def test_an_image_is_one_page_read_as_ever(ocr: ThreadSafeOCR) -> None:
    for image in (LINES[0], LINES[0].read_bytes(), Image.open(LINES[0])):
        (page,) = ocr.read_pages(image)
        assert (key(page), page.page_number) == (key(ocr.read(image)), 1)


def test_what_is_no_document_is_told(ocr: ThreadSafeOCR, tmp_path: Path) -> None:
    for pages in (ocr.read_pages, lambda document: ocr.read_pages(document, dpi=0)):
        with pytest.raises((ImageNotFoundError, ConfigError)):
            list(pages(tmp_path / "gone.pdf"))
    for content in (b"%PDF-1.7\nno more", b"", b"text"):
        with pytest.raises(InvalidImageError):
            list(ocr.read_pages(content))
    with pytest.raises(TypeError):
        list(ocr.read_pages(7))


def test_an_encrypted_document_needs_its_password(ocr: ThreadSafeOCR, pdf: bytes) -> None:
    locked = encrypted(pdf, "s\u00e9same")
    with pytest.raises(PasswordError, match="a password is needed"):
        list(ocr.read_pages(locked))
    with pytest.raises(PasswordError, match="this password does not open it"):
        list(ocr.read_pages(locked, password="other"))
    assert texts(ocr.read_pages(locked, 1, password="s\u00e9same")) == [(1, "alpha")]


def test_a_page_too_large_is_refused_before_it_is_drawn(ocr: ThreadSafeOCR) -> None:
    with pytest.raises(InvalidImageError, match="page 1 is too large: it is 40000x40000 pixels at dpi=200"):
        list(ocr.read_pages(drawing("", 14400, 14400)))
    with ThreadSafeOCR(max_pixels=1000) as small, pytest.raises(InvalidImageError, match="more than max_pixels=1000"):
        list(small.read_pages(drawing("")))


def test_one_bad_page_does_not_cost_the_others(ocr: ThreadSafeOCR) -> None:
    made = io.BytesIO()
    with pikepdf.open(io.BytesIO(pdf_of(["one", "two", "three"]))) as document:
        document.pages[1].MediaBox = [0, 0, 14400, 14400]
        document.save(made)
    one, two, three = ocr.read_pages(made.getvalue(), return_errors=True)
    assert (one.text, three.text, three.page_number) == ("one", "three", 3)
    assert isinstance(two, InvalidImageError)
    pages = ocr.read_pages(made.getvalue(), in_flight=1)
    assert next(pages).text == "one"
    with pytest.raises(InvalidImageError, match="page 2"):
        next(pages)


def test_a_page_that_never_ends_costs_its_caller_only(ocr: ThreadSafeOCR, pdf: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = endless()
    with pytest.raises(OcrTimeoutError):
        list(ocr.read_pages(bomb, timeout=0.5))
    monkeypatch.setattr(rendering, "MOST_SECONDS", 5.0)
    with ThreadPoolExecutor(4) as pool:
        good = [pool.submit(lambda: texts(ocr.read_pages(pdf))) for _ in range(3)]
        with pytest.raises(InvalidImageError, match="page 1 cannot be rendered: it takes more than 5 s"):
            list(ocr.read_pages(bomb))
    assert [one.result() for one in good] == [list(enumerate(WORDS, 1))] * 3


def test_a_page_that_never_ends_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    document = rendering.PdfDocument(endless())
    assert len(document) == 1
    monkeypatch.setattr(rendering, "MOST_SECONDS", 2.0)
    start = time.monotonic()
    with pytest.raises(InvalidImageError, match="more than 2 s"):
        document.render(0, 100)
    assert time.monotonic() - start < 3.5
    document.close()


def test_closing_a_document_ends_the_page_that_never_ends_and_no_other(pdf: bytes) -> None:
    bomb, good = rendering.PdfDocument(endless()), rendering.PdfDocument(pdf)
    with ThreadPoolExecutor(2) as pool:
        never = pool.submit(bomb.render, 0, 100)
        while rendering._renderer._current is None:
            time.sleep(0.01)
        page = pool.submit(good.render, 0, 100)
        time.sleep(0.5)
        assert not page.done()
        bomb.close()
        assert page.result(10).shape == (90, 420, 3)
        with pytest.raises(InvalidImageError):
            never.result(10)
    good.close()


def helper_pid() -> int:
    process = rendering._renderer._process
    assert process is not None
    return process.pid


def test_a_helper_that_dies_between_two_pages_is_replaced(ocr: ThreadSafeOCR, pdf: bytes) -> None:
    pages = ocr.read_pages(pdf, in_flight=1)
    assert next(pages).text == "alpha"
    before = helper_pid()
    os.kill(before, signal.SIGKILL)
    assert texts(pages) == list(enumerate(WORDS, 1))[1:]
    assert helper_pid() != before


def test_a_page_that_kills_its_process_is_refused(ocr: ThreadSafeOCR, pdf: bytes) -> None:
    """Whoever renders it: also a process that had other documents before."""
    assert len(list(ocr.read_pages(pdf, 1))) == 1
    killing = threading.Event()

    def kill() -> None:
        while not killing.is_set():
            process = rendering._renderer._process
            if process is not None:
                process.kill()
            time.sleep(0.001)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with pytest.raises(InvalidImageError, match="PDFium crashed or took more than 2 GB of memory over it"):
            list(ocr.read_pages(endless()))
    finally:
        killing.set()
        thread.join()
    assert len(list(ocr.read_pages(pdf, 1))) == 1


@pytest.mark.skipif(not os.path.exists("/proc/self/limits"), reason="Linux tells the limits of a process")
def test_the_helpers_memory_is_capped(ocr: ThreadSafeOCR, pdf: bytes) -> None:
    assert len(list(ocr.read_pages(pdf, 1))) == 1
    (line,) = (line for line in Path(f"/proc/{helper_pid()}/limits").read_text().splitlines() if line.startswith("Max address space"))
    assert 2 << 30 <= int(line.split()[3]) < 4 << 30


def test_documents_beyond_those_kept_open_are_opened_again(ocr: ThreadSafeOCR) -> None:
    several = [pdf_of([f"{word} {n}" for word in WORDS[:2]]) for n in range(18)]
    begun = [ocr.read_pages(content, in_flight=1) for content in several]
    assert [next(pages).text for pages in begun] == [f"alpha {n}" for n in range(18)]
    assert [next(pages).text for pages in begun] == [f"bravo {n}" for n in range(18)]


def test_memory_does_not_grow_with_the_document(ocr: ThreadSafeOCR) -> None:
    """Pages are rendered only as they are read."""
    rendered = []
    real = rendering.PdfDocument.render

    def counted(self: rendering.PdfDocument, *arguments: object, **keywords: object) -> np.ndarray:
        rendered.append(arguments[0])
        return real(self, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering.PdfDocument, "render", counted)
        pages = ocr.read_pages(pdf_of(WORDS * 4), in_flight=2, dpi=100)
        for number, page in enumerate(pages, 1):
            assert page.page_number == number
            assert len(rendered) <= number + 2
    assert rendered == list(range(20))


def test_it_works_where_there_is_no_main_module_and_in_forked_children(run_python: Run, pdf: bytes, tmp_path: Path) -> None:
    path = tmp_path / "d.pdf"
    path.write_bytes(pdf)
    script = f"""
    del sys.modules["__main__"].__dict__["__name__"]
    os.chdir("/")
    ocr = ThreadSafeOCR()
    first = lambda: [page.text for page in ocr.read_pages({str(path)!r}, "1-2")]
    print(first(), flush=True)
    child(lambda: print(first(), flush=True))
    print(first())
    """
    assert run_python(script) == "['alpha', 'bravo']\n" * 3


def test_a_module_of_the_current_folder_is_not_taken_for_a_library(run_python: Run, pdf: bytes, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    (tmp_path / "d.pdf").write_bytes(pdf)
    script = f"""
    os.chdir({str(tmp_path)!r})
    print([page.text for page in ThreadSafeOCR().read_pages("d.pdf", 1)])
    """
    assert run_python(script) == "['alpha']\n"


def test_the_helper_ends_with_its_process(run_python: Run, pdf: bytes, tmp_path: Path) -> None:
    (tmp_path / "d.pdf").write_bytes(pdf)
    for end in ("", "os.kill(os.getpid(), signal.SIGKILL)"):
        script = f"""
        from threadsafe_ocr import rendering
        next(ThreadSafeOCR().read_pages({str(tmp_path / "d.pdf")!r}))
        print(rendering._renderer._process.pid, flush=True)
        {end}
        """
        pid = int(run_python(script, code=-signal.SIGKILL if end else 0))
        until = time.monotonic() + 5
        while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_missing_extra_is_told(ocr: ThreadSafeOCR, pdf: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r'pip install "threadsafe-ocr\[pdf\]"'):
        list(ocr.read_pages(pdf))


def test_text_that_runs_down_and_turned_pages_are_read(ocr: ThreadSafeOCR, pdf: bytes) -> None:
    made = io.BytesIO()
    with pikepdf.open(io.BytesIO(pdf)) as document:
        for turn, page in enumerate(document.pages):
            page.Rotate = 90 * (turn % 4)
        document.save(made)
    assert [page.text for page in ocr.read_pages(made.getvalue())] == WORDS
    assert [page.lines[0].first_corner for page in ocr.read_pages(made.getvalue(), "1-4")] == [0, 1, 2, 3]


def test_the_hosts_own_pdfium_under_its_own_lock_is_not_disturbed(ocr: ThreadSafeOCR, pdf: bytes) -> None:
    import pypdfium2

    lock, ends = threading.Lock(), time.monotonic() + 4

    def host(_: int) -> int:
        count = 0
        while time.monotonic() < ends:
            with lock, pypdfium2.PdfDocument(pdf) as document:
                count += document[0].render().width
        return count

    def ours(_: int) -> set[str]:
        found = set()
        while time.monotonic() < ends:
            found.update(page.text for page in ocr.read_pages(pdf, "1-2"))
        return found

    with ThreadPoolExecutor(16) as pool:
        hosts: list[Callable[[], object]] = [pool.submit(host, n) for n in range(8)]
        pages = list(pool.map(ours, range(8)))
    assert all(one.result() > 0 for one in hosts)
    assert pages == [{"alpha", "bravo"}] * 8
