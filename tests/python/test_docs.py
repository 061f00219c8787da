"""What the documentation shows, works: docstrings, the READMEs, docs, examples and type stubs."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw, ImageFont

import threadsafe_ocr
from conftest import LINES
from threadsafe_ocr import OcrResult, TextLine, ThreadSafeOCR
from threadsafe_ocr.options import CallOptions, Settings

ROOT = Path(__file__).parents[2]
PACKAGE = Path(threadsafe_ocr.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py")) + sorted(
    f"export.{path.stem}" for path in (PACKAGE / "export").glob("[!_]*.py")
)
GUIDES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    (path.name, block) for path in GUIDES for block in re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
]


@pytest.fixture(autouse=True)
def folder_of_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the examples run: there is a page, its first line cut out, and a document of three pages."""
    page = Image.new("RGB", (400, 120), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(28)
    draw.text((20, 15), "Hello, world", fill="black", font=font)
    draw.text((20, 70), "Total: 42.50", fill="black", font=font)
    page.save(tmp_path / "page.png")
    page.crop((15, 18, 176, 56)).save(tmp_path / "line.png")
    pages = [Image.new("RGB", (400, 120), "white") for _ in range(3)]
    for image, text in zip(pages, ["First page", "Second page", "Third page"], strict=True):
        ImageDraw.Draw(image).text((20, 15), text, fill="black", font=font)
    pages[0].save(tmp_path / "document.pdf", save_all=True, append_images=pages[1:], resolution=200)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_say_what_happens(name: str) -> None:
    module = importlib.import_module("threadsafe_ocr" if name == "__init__" else f"threadsafe_ocr.{name}")
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize("kind", [ThreadSafeOCR, OcrResult, TextLine])
def test_everything_public_is_documented_and_shown(kind: type) -> None:
    members = {
        name: item for name, item in vars(kind).items() if not name.startswith("_") and (callable(item) or isinstance(item, property))
    }
    docs = [inspect.getdoc(item) for item in (kind, *members.values())]
    assert all(docs)
    shown = " ".join(re.findall(r"^ *(?:>>>|\.\.\.) (.*)", "\n".join(map(str, docs)), re.MULTILINE))
    assert [name for name in members if not re.search(rf"\.{name}\b", shown)] == []


def run_block(block: str) -> dict[str, Any]:
    """Its names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(block, "guide", "exec", dont_inherit=True), names)
    return names


@pytest.mark.filterwarnings("ignore:PaddleOCR. v6-small reads in place of:UserWarning")
@pytest.mark.parametrize("block", [block for _, block in BLOCKS], ids=[f"{name}-{i}" for i, (name, _) in enumerate(BLOCKS)])
def test_what_the_guides_show_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_block(block)
    if "print(page.text)" in block:
        assert "Hello, world" in capsys.readouterr().out


@pytest.mark.parametrize("server", ["flask", "fastapi"])
def test_the_services_of_the_guide_answer(server: str) -> None:
    (block,) = (block for name, block in BLOCKS if name == "threads.md" and f"from {server} import" in block)
    app, contents = run_block(block)["app"], [Path("page.png").read_bytes(), b"no image"]

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            return [await client.post("/ocr", content=content) for content in contents]

    if server == "fastapi":
        answers = asyncio.run(ask())
    else:
        with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://service") as client:
            answers = [client.post("/ocr", content=content) for content in contents]
    read = answers[0].json()
    assert [line["text"] for line in read["lines"]] == ["Hello, world", "Total: 42.50"]
    assert [answer.status_code for answer in answers] == [200, 400]


def test_the_readmes_show_the_same() -> None:
    english, chinese = ([block for name, block in BLOCKS if name == readme] for readme in ("README.md", "README.zh-CN.md"))
    assert english == chinese != []


def tables(path: Path) -> list[list[list[str]]]:
    """The cells of every table, without its head."""
    found = re.findall(r"^(?:\| .* \|\n)+", path.read_text(), re.MULTILINE)
    return [[line[2:-2].split(" | ") for line in table.splitlines()[2:]] for table in found]


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readmes_figures_are_those_that_were_counted(readme: str) -> None:
    counted = [[*row[2:7], *row[8:]] for row in tables(ROOT / "docs" / "before-after.md")[0] if row[1] == "FastAPI"]
    assert [row[1:] for row in tables(ROOT / readme)[0]] == counted


@pytest.mark.parametrize("guide", [*GUIDES, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(guide: Path) -> None:
    links = [link.split("#")[0] for link in re.findall(r"\]\((?!https?:)([^)]+)\)", guide.read_text())]
    assert [link for link in links if not (guide.parent / link).exists()] == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_run(path: Path) -> None:
    done = subprocess.run([sys.executable, path, *LINES[:3]], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_settings_are_those_of_the_code() -> None:
    cells = [row[0] for table in tables(ROOT / "docs" / "settings.md") for row in table]
    named = {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}
    assert named == {"models", "device", "precision", *Settings.__annotations__, *CallOptions.__annotations__}


def test_every_error_is_explained() -> None:
    own = {name for name in threadsafe_ocr.__all__ if name.endswith("Error")} - {"OcrError"}
    explained = {name for table in tables(ROOT / "docs" / "errors.md") for row in table for name in re.findall(r"`(\w+)`", row[0])}
    assert own - explained == set()


def test_the_stub_is_the_native_module() -> None:
    environment = {**os.environ, "MYPY_CACHE_DIR": os.devnull}
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "threadsafe_ocr._core"],
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
