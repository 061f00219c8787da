"""The page at `/`: what is served, under which policy, in which languages. tests/page drives it in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from serving import Server
from threadsafe_ocr.server import page

TEXTS = {name: path.read_text(encoding="utf-8") for name, path in page.FILES.items() if name != "sample.png"}
SCRIPTS = "\n".join(content for name, content in TEXTS.items() if name.endswith(".js"))
MARKUP = TEXTS["index.html"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with Server(tmp_path_factory.mktemp("server"), "--api-key", "secret") as server:
        yield server.client


def sentences(language: str) -> dict[str, str]:
    block = TEXTS["text.js"].split(f"\n  {language}: {{\n")[1].split("\n  },\n")[0]
    found = re.findall(r'^    (\w+): "(.*)",$', block, re.MULTILINE)
    assert len(found) == len(block.splitlines()), "one sentence a line"
    assert len({key for key, _ in found}) == len(found)
    return dict(found)


def test_the_page_and_all_its_files_are_served_without_a_key(client: httpx.Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.text) == (200, MARKUP)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".png": "image/png", ".html": "text/html"}
    for name, path in page.FILES.items():
        answer = client.get(f"/static/{name}")
        assert (answer.status_code, answer.content) == (200, path.read_bytes())
        assert answer.headers["content-type"].startswith(kinds[path.suffix])
    assert client.get("/v1/stats").status_code == 401


def test_everything_that_the_files_name_is_there() -> None:
    named = set(re.findall(r'"static/([\w.]+)"', "".join(TEXTS.values()))) | set(re.findall(r'from "\./([\w.]+)"', SCRIPTS))
    assert named - set(page.FILES) == set()
    assert {name for name in page.FILES if name.endswith(".js")} - named == set(), "served, and used by nobody"
    for identifier in set(re.findall(r'\$\("#([\w-]+)', SCRIPTS)) | set(re.findall(r'"#([\w-]+)"', SCRIPTS)):
        assert f'id="{identifier}"' in MARKUP


@pytest.mark.parametrize("path", ["/static/page.py", "/static/../page.py", "/static/%2e%2e%2fpage.py", "/static/", "/static/__init__.py"])
def test_nothing_else_is_served(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_the_browser_may_load_nothing_from_elsewhere_and_run_nothing_inline(client: httpx.Client) -> None:
    policy = dict(part.strip().split(" ", 1) for part in client.get("/").headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {source for sources in policy.values() for source in sources.split()} == {"'none'", "'self'", "blob:"}
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert client.get("/").headers["x-content-type-options"] == "nosniff"
    assert re.findall(r"<script(?![^>]*src=)|\sstyle=|\son\w+=", MARKUP) == []


@pytest.mark.parametrize("name", TEXTS)
def test_no_file_names_an_address_elsewhere(name: str) -> None:
    found = re.findall(r"(?:https?:)?//[\w-]+\.[\w./-]+", TEXTS[name])
    # SVG's name, which nobody fetches.
    assert [address for address in found if not address.endswith("www.w3.org/2000/svg")] == []


def test_every_sentence_is_there_in_english_and_chinese_with_the_same_blanks() -> None:
    english, chinese = sentences("en"), sentences("zh")
    assert list(english) == list(chinese)
    blanks = {key: set(re.findall(r"\{(\w+)\}", sentence)) for key, sentence in english.items()}
    assert {key: set(re.findall(r"\{(\w+)\}", sentence)) for key, sentence in chinese.items()} == blanks
    assert [key for key, sentence in chinese.items() if not re.search(r"[\u4e00-\u9fff]", sentence)] == ["found"]


def test_every_sentence_is_said_and_no_other_is_asked_for() -> None:
    keys = set(sentences("en"))
    asked = set(re.findall(r'data-(?:text|label|title|hint)="(\w+)"', MARKUP))
    assert asked - keys == set()
    said = asked | {word for word in re.findall(r'["`](\w+)["`]', SCRIPTS.replace(TEXTS["text.js"], ""))}
    # An error is told by its kind.
    errors = {key for key in keys if f"{key}_hint" in keys}
    assert keys - said - errors - {f"{key}_hint" for key in errors} == set()
    for words in re.findall(r'\btext\("(\w+)"', SCRIPTS):
        assert words in keys


def test_markup_speaks_to_those_who_do_not_see_it() -> None:
    assert MARKUP.count("<h1") == MARKUP.count("<main") == MARKUP.count("<header") == 1
    for tag, rest in re.findall(r"<(nav|aside|section|dialog)\b([^>]*)>", MARKUP):
        assert re.search(r"data-label|aria-labelledby", rest), f"{tag}{rest}: a landmark without a name"
    for rest, words in re.findall(r"<button([^>]*)>([^<]*)</button>", MARKUP):
        assert words or re.search(r"data-text|data-label", rest), f"{rest}: a button without a name"
    assert 'id="status" role="status"' in MARKUP
    assert 'id="problem" role="alert"' in MARKUP
