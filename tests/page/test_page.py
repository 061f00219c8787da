"""The page in a real Chromium, in front of a real server. Writes docs/page-*.png."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pikepdf
import pypdfium2
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))
from conftest import until  # noqa: E402
from serving import Server, png, slow_page, tiff  # noqa: E402

PAGES = ROOT / "tests" / "data" / "pages"
ENGLISH = PAGES / "docs_en" / "tex-nutshell-p013.png"
CHINESE = PAGES / "docs_zh" / "qyxf-book-doc-p005.png"
LINES = sorted((PAGES / "rec_lines").glob("*.png"))
# Milliseconds that an answer may take on a busy machine.
PATIENCE = 250_000
DOCS = ROOT / "docs"
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Debian's, where it is; it needs no sandbox to open our own page, and has none as root. The camera is a moving pattern.
        flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        running = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield running
        running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = ["--max-upload", "5M", "--max-pages", "4", "--max-pixels", "20M", "--timeout", "200"]
    with Server(tmp_path_factory.mktemp("server"), *limits) as running:
        yield running


@pytest.fixture
def opened(browser: Browser, server: Server) -> Iterator[Open]:
    """Opens the page; at the end it has asked nobody else for anything, and nothing went wrong in it."""
    contexts: list[BrowserContext] = []
    asked: list[str] = []
    said: list[str] = []

    def open_page(of: Server = server, **settings: object) -> Page:
        context = browser.new_context(viewport={"width": 1360, "height": 850}, **{"locale": "en-US", **settings})
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if "Content Security Policy" in message.text else None)
        page.goto(of.url)
        return page

    expect.set_options(timeout=PATIENCE)
    yield open_page
    for context in contexts:
        context.close()
    assert {url for url in asked if not re.match(r"http://127\.0\.0\.1:\d+/|blob:http://127\.0\.0\.1", url)} == set()
    assert said == []


def give(page: Page, file: Path | bytes, name: str = "page.png") -> None:
    page.set_input_files("#file", str(file) if isinstance(file, Path) else {"name": name, "mimeType": "", "buffer": file})


def has_read(page: Page) -> None:
    expect(page.locator("#copy-all")).to_be_enabled()
    expect(page.locator("#working")).to_be_hidden()


def texts(page: Page) -> list[str]:
    return page.locator("#lines .words").all_text_contents()


def pdf_of(pages: list[Path], **options: object) -> bytes:
    first, *rest = [Image.open(page).convert("RGB") for page in pages]
    file = io.BytesIO()
    first.save(file, "PDF", save_all=True, append_images=rest, resolution=200, **options)
    return file.getvalue()


def clipboard(page: Page) -> str:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    return page.evaluate("navigator.clipboard.readText()")


def test_a_page_is_read_and_every_line_boxed_where_it_stands(opened: Open, server: Server) -> None:
    page = opened()
    give(page, ENGLISH)
    has_read(page)
    (told,) = server.read(ENGLISH.read_bytes()).json()["pages"]
    assert texts(page) == [line["text"] for line in told["lines"]]
    boxes = page.locator("#boxes polygon")
    assert boxes.count() == len(told["lines"])
    picture = page.locator("#picture").bounding_box()
    for index in (0, len(told["lines"]) - 1):
        x0, y0, x1, y1 = told["lines"][index]["box"]
        scale = picture["width"] / told["width"]
        drawn = boxes.nth(index).evaluate("box => { const r = box.getBoundingClientRect(); return [r.x, r.y, r.right, r.bottom]; }")
        wanted = [picture["x"] + scale * x0, picture["y"] + scale * y0, picture["x"] + scale * x1, picture["y"] + scale * y1]
        assert drawn == pytest.approx(wanted, abs=4)
    expect(page.locator("#status")).to_have_text(re.compile(rf"Done in \d+\.\d s\. Lines: {len(told['lines'])}"))


def test_a_line_that_is_pointed_at_says_what_it_is_and_a_click_keeps_and_copies_it(opened: Open) -> None:
    page = opened()
    give(page, ENGLISH)
    has_read(page)
    wanted = texts(page)[2]
    page.locator("#boxes polygon").nth(2).hover()
    expect(page.locator("#card p")).to_have_text(wanted)
    expect(page.locator("#card .score")).to_contain_text("% sure")
    expect(page.locator("#lines li").nth(2)).to_have_class(re.compile("hovered"))
    page.locator("#boxes polygon").nth(2).click()
    # On the way to the card.
    page.locator("#boxes polygon").nth(1).hover()
    expect(page.locator("#lines li").nth(1)).to_have_class(re.compile("hovered"))
    expect(page.locator("#card p")).to_have_text(wanted)
    expect(page.locator("#lines li").nth(2)).to_have_class(re.compile("selected"))
    page.locator("#card button").click()
    expect(page.locator("#status")).to_have_text(f"Copied: {wanted}")
    assert clipboard(page) == wanted
    page.locator("#copy-all").click()
    expect(page.locator("#status")).to_have_text("The whole text is copied")
    assert clipboard(page) == "\n".join(texts(page))


def test_lines_are_reached_and_copied_by_keyboard_alone(opened: Open) -> None:
    page = opened()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    give(page, ENGLISH)
    has_read(page)
    page.locator("#search").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#lines .line").first).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    third = page.locator("#lines li").nth(2)
    expect(third.locator(".line")).to_be_focused()
    expect(third.locator(".line")).to_have_attribute("aria-current", "true")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text(f"Copied: {texts(page)[2]}")
    page.keyboard.press("Tab")
    expect(page.locator("#copy-all")).to_be_focused()
    page.keyboard.press("Escape")
    expect(third).not_to_have_class(re.compile("selected"))


def test_everything_has_a_name_for_a_screen_reader(opened: Open) -> None:
    page = opened()
    give(page, LINES[0])
    has_read(page)
    for role, name in [("banner", ""), ("main", ""), ("complementary", "Text"), ("region", "Page"), ("region", "Server")]:
        assert page.get_by_role(role, **({"name": re.compile(name)} if name else {})).count() >= 1, (role, name)
    for button in page.get_by_role("button").all():
        assert button.evaluate("b => b.ariaLabel || b.innerText.trim()"), button.evaluate("b => b.outerHTML")
    assert page.locator("#picture").get_attribute("alt") == LINES[0].name


def test_a_search_leaves_the_lines_that_have_it(opened: Open) -> None:
    page = opened()
    give(page, ENGLISH)
    has_read(page)
    every = texts(page)
    word = every[3].split()[0].lower()
    wanted = [line for line in every if word in line.lower()]
    page.fill("#search", word)
    expect(page.locator("#found")).to_have_text(f"{len(wanted)} of {len(every)}")
    assert page.locator("#lines li:visible .words").all_text_contents() == wanted
    assert [one.lower() for one in page.locator("#lines li:visible mark").all_text_contents()] == [word] * len(wanted)
    assert page.locator("#boxes .found").count() == len(wanted)
    page.fill("#search", "")
    assert page.locator("#lines li:visible").count() == len(every)


def test_unsure_lines_look_it(opened: Open) -> None:
    page = opened()
    page.route("**/v1/read/stream", lambda route: route.fulfill(body=json.dumps(page_with([0.99, 0.85, 0.4])) + "\n"))
    give(page, LINES[0])
    has_read(page)
    for index, rank in enumerate(["good", "fair", "low"]):
        expect(page.locator("#boxes polygon").nth(index)).to_have_class(rank)
        expect(page.locator("#lines .score").nth(index)).to_have_class(re.compile(rank))
    strokes = page.locator("#boxes polygon").evaluate_all(
        "all => all.map(b => getComputedStyle(b).stroke + getComputedStyle(b).strokeDasharray)"
    )
    assert len(set(strokes)) == 3


def page_with(scores: list[float]) -> dict[str, object]:
    def line(top: int, score: float) -> dict[str, object]:
        return {
            "text": f"at {top}",
            "score": score,
            "box": [0, top, 90, top + 9],
            "polygon": [[0, top], [90, top], [90, top + 9], [0, top + 9]],
        }

    lines = [line(10 * index, score) for index, score in enumerate(scores)]
    return {"page": 1, "text": "", "width": 100, "height": 10 * len(scores), "lines": lines}


@pytest.mark.parametrize("kind", ["pdf", "tiff"])
def test_a_document_has_its_pages_at_the_side(opened: Open, server: Server, kind: str) -> None:
    page = opened()
    document = pdf_of(LINES[:3]) if kind == "pdf" else tiff(LINES[:3])
    give(page, document, f"scan.{kind}")
    expect(page.locator("#thumbnails button")).to_have_count(3)
    has_read(page)
    told = server.read(document).json()["pages"]
    for index in (1, 2, 0):
        page.locator("#thumbnails button").nth(index).click()
        assert texts(page) == [line["text"] for line in told[index]["lines"]]
        expect(page.locator("#thumbnails button").nth(index)).to_have_attribute("aria-current", "page")
        page.wait_for_function("w => document.querySelector('#picture').naturalWidth === w", arg=told[index]["width"])


@pytest.mark.parametrize("kind", ["txt", "json", "md", "pdf"])
def test_what_was_read_can_be_downloaded(opened: Open, server: Server, kind: str) -> None:
    page = opened()
    give(page, pdf_of(LINES[:2]), "my.scan.pdf")
    has_read(page)
    with page.expect_download() as begun:
        page.locator(f"[data-format={kind}]").click()
    assert begun.value.suggested_filename == f"my.scan.{kind}"
    content = Path(begun.value.path()).read_bytes()
    answer = server.read(pdf_of(LINES[:2]), format={"txt": "json"}.get(kind, kind))
    if kind == "txt":
        assert content.decode() == "\n\n".join(one["text"] for one in answer.json()["pages"]) + "\n"
    elif kind == "json":
        assert json.loads(content) == answer.json()
    elif kind == "md":
        assert content == answer.content
    else:
        words = [one.get_textpage().get_text_bounded().split() for one in pypdfium2.PdfDocument(content)]
        assert words == [one["text"].split() for one in server.read(pdf_of(LINES[:2])).json()["pages"]]


def test_an_encrypted_pdf_asks_for_its_password(opened: Open) -> None:
    page = opened()
    file = io.BytesIO()
    with pikepdf.open(io.BytesIO(pdf_of(LINES[:1]))) as plain:
        plain.save(file, encryption=pikepdf.Encryption(owner="a", user="secret"))
    give(page, file.getvalue(), "secret.pdf")
    expect(page.locator("#ask-title")).to_have_text("This PDF is encrypted")
    page.locator("#ask input").fill("secret")
    page.keyboard.press("Enter")
    has_read(page)
    assert len(texts(page)) == 1


def test_fifty_requests_are_answered_alike(opened: Open, server: Server) -> None:
    page = opened()
    give(page, LINES[0])
    has_read(page)
    before = server.stats()["engine"]["answered"]
    page.click("#fifty")
    expect(page.locator("#answers-text")).to_contain_text("All 50 answers are equal to the one read alone")
    expect(page.locator("#cells .same")).to_have_count(50)
    assert server.stats()["engine"]["answered"] - before == 51


def test_an_answer_that_differs_is_seen(opened: Open) -> None:
    page = opened()
    give(page, LINES[0])
    has_read(page)
    answers = iter(range(100))
    page.route("**/v1/read", lambda route: route.fulfill(body="other" if next(answers) == 7 else "same"))
    page.click("#fifty")
    expect(page.locator("#answers-text")).to_have_text("1 of 50 answers differ from the one read alone.")
    expect(page.locator("#cells .other")).to_have_count(1)


@pytest.mark.parametrize(
    ("content", "name", "title"),
    [
        (b"hello", "notes.txt", "This file cannot be read"),
        (LINES[0].read_bytes()[:900], "half.png", "The file is damaged"),
        (bytes(6_000_000), "large.png", "The file is too large"),
        (pdf_of(LINES[:1] * 5), "long.pdf", "The document has too many pages"),
        (png(np.zeros((4000, 6000), np.uint8)), "pixels.png", "The image is too large"),
    ],
    ids=["text", "half", "large", "long", "pixels"],
)
def test_what_cannot_be_read_is_said_kindly_and_the_next_file_is_read(opened: Open, content: bytes, name: str, title: str) -> None:
    page = opened()
    give(page, content, name)
    expect(page.locator("#problem h2")).to_have_text(title)
    expect(page.get_by_role("alert")).to_contain_text(re.compile("Request [0-9a-f]{32}"))
    expect(page.locator("#status")).to_have_text(title)
    expect(page.get_by_role("button", name="Choose another file")).to_be_visible()
    give(page, LINES[0])
    has_read(page)
    expect(page.locator("#problem")).to_be_hidden()


def test_a_file_that_is_gone_since_it_was_chosen_is_no_fault_of_the_server(opened: Open, tmp_path: Path) -> None:
    page = opened()
    file = tmp_path / "page.png"
    file.write_bytes(LINES[0].read_bytes())
    give(page, file)
    has_read(page)
    file.unlink()
    page.locator("[data-format=md]").click()
    expect(page.locator("#problem h2")).to_have_text("The file cannot be opened")
    assert len(texts(page)) == 1


def test_a_full_queue_is_said_kindly(opened: Open, tmp_path: Path) -> None:
    with Server(tmp_path, "--max-queue-size", "1") as small:
        page = opened(small)
        with small.begun(slow_page()):
            give(page, LINES[0])
            expect(page.locator("#problem h2")).to_have_text("The server is busy")
        until(lambda: not small.stats()["engine"]["queue_size"])
        page.get_by_role("button", name="Try again").click()
        has_read(page)
        page.goto("about:blank")


def test_without_the_server_the_page_says_so_and_keeps_what_it_has(opened: Open) -> None:
    page = opened()
    give(page, LINES[0])
    has_read(page)
    words = texts(page)
    page.context.set_offline(True)
    expect(page.locator("#light")).to_have_text("not reachable")
    assert texts(page) == words
    with page.expect_download() as begun:
        page.locator("[data-format=txt]").click()
    assert Path(begun.value.path()).read_text() == "\n".join(words) + "\n"
    give(page, LINES[1])
    expect(page.locator("#problem h2")).to_have_text("The server cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    has_read(page)
    expect(page.locator("#light")).to_have_text("running")


def test_a_file_is_dropped_pasted_photographed_or_the_sample(opened: Open) -> None:
    page = opened()
    page.click("#sample")
    has_read(page)
    assert texts(page) == ["threadsafe-ocr 2026", "文字识别正常"]
    give_by = """([kind, bytes]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], kind + ".png", { type: "image/png" }));
        const about = { bubbles: true, cancelable: true };
        if (kind === "drop") document.body.dispatchEvent(new DragEvent("dragover", { ...about, dataTransfer: transfer }));
        document.body.dispatchEvent(kind === "drop"
            ? new DragEvent("drop", { ...about, dataTransfer: transfer })
            : new ClipboardEvent("paste", { ...about, clipboardData: transfer }));
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(give_by, [kind, list(LINES[0].read_bytes())])
        expect(page.locator("#name")).to_have_text(f"{kind}.png")
        has_read(page)
        expect(page.locator("#over")).to_be_hidden()
    page.click("#photograph")
    page.wait_for_function("() => document.querySelector('video').videoWidth > 0")
    page.get_by_role("button", name="Take it").click()
    expect(page.locator("#name")).to_have_text("photo.png")
    expect(page.locator("#working")).to_be_hidden()
    assert page.evaluate("document.querySelector('video').srcObject") is None


def test_reading_can_be_given_up(opened: Open, server: Server) -> None:
    page = opened()
    give(page, slow_page())
    page.click("#cancel")
    expect(page.locator("#status")).to_have_text("Cancelled")
    expect(page.locator("#welcome")).to_be_visible()
    while server.stats()["active"]:
        pass


def test_the_page_shows_what_the_server_is_doing(opened: Open) -> None:
    page = opened()
    give(page, ENGLISH)
    has_read(page)
    give(page, LINES[0])
    expect(page.locator("#live-latency")).to_have_text(re.compile(r"\d\.\d\d / \d+\.\d\d s"))
    expect(page.locator("#live-batch")).to_have_text(re.compile(r"\d+\.\d"))
    expect(page.locator("#live-queue")).to_have_text(re.compile(r"\d+"))


def test_it_speaks_the_language_of_the_browser_and_switches(opened: Open) -> None:
    page = opened(locale="zh-CN")
    expect(page.locator("#choose")).to_have_text("选择文件")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    give(page, LINES[0])
    has_read(page)
    expect(page.locator("#status")).to_contain_text("识别出 1 行")
    page.click("[data-language=en]")
    expect(page.locator("#choose")).to_have_text("Choose a file")
    expect(page.locator("#status")).to_contain_text("Lines: 1")
    expect(page.locator("#lines .line").first).to_have_attribute("aria-label", re.compile("% sure"))
    page.reload()
    expect(page.locator("#choose")).to_have_text("Choose a file")


def test_a_server_with_keys_asks_for_one(opened: Open, tmp_path: Path) -> None:
    with Server(tmp_path, "--api-key", "secret") as keyed:
        page = opened(keyed)
        expect(page.locator("#ask-title")).to_have_text("This server needs a key")
        page.locator("#ask input").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#ask-title")).to_have_text("This key was not accepted")
        page.locator("#ask input").fill("secret")
        page.keyboard.press("Enter")
        expect(page.locator("#light")).to_have_text("running")
        give(page, LINES[0])
        has_read(page)
        page.goto("about:blank")


def test_it_looks_as_in_the_guide(opened: Open) -> None:
    page = opened(color_scheme="light")
    give(page, pdf_of([CHINESE, ENGLISH]), "book.pdf")
    expect(page.locator("#thumbnails button")).to_have_count(2)
    has_read(page)
    page.locator("#boxes polygon").nth(4).click()
    for name, language, scheme in [("light", "en", "light"), ("dark-zh", "zh", "dark")]:
        page.click(f"[data-language={language}]")
        page.emulate_media(color_scheme=scheme)
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", back))) > 380) == (scheme == "light")
        page.set_viewport_size({"width": 400, "height": 850})
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, "it is not wider than the screen"
        page.set_viewport_size({"width": 1360, "height": 850})
        page.mouse.move(5, 5)
        save(page, DOCS / f"page-{name}.png")


def save(page: Page, path: Path) -> None:
    """In 256 colours, chosen so that those of a few pixels, as of unsure lines, are among them."""
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < 300_000
