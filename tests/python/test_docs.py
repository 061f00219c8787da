"""What the documentation shows, works: docstrings, the README, docs, examples and type stubs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

import threadsafe_ocr
from conftest import LINES
from threadsafe_ocr import OcrResult, TextLine, ThreadSafeOCR
from threadsafe_ocr.options import Settings

ROOT = Path(__file__).parents[2]
MODULES = sorted(path.stem for path in Path(threadsafe_ocr.__file__).parent.glob("*.py"))
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    (path.name, block) for path in GUIDES for block in re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
]


@pytest.fixture(autouse=True)
def folder_of_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the examples run: there is a page, and its first line cut out."""
    page = Image.new("RGB", (400, 120), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(28)
    draw.text((20, 15), "Hello, world", fill="black", font=font)
    draw.text((20, 70), "Total: 42.50", fill="black", font=font)
    page.save(tmp_path / "page.png")
    page.crop((15, 18, 176, 56)).save(tmp_path / "line.png")
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


@pytest.mark.parametrize("block", [block for _, block in BLOCKS], ids=[f"{name}-{i}" for i, (name, _) in enumerate(BLOCKS)])
def test_what_the_guides_show_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block, "guide", "exec"), {"__name__": "__main__"})
    if "print(page.text)" in block:
        assert "Hello, world" in capsys.readouterr().out


def test_the_readme_shows_something() -> None:
    assert "README.md" in {name for name, _ in BLOCKS}


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_run(path: Path) -> None:
    done = subprocess.run([sys.executable, path, *LINES[:3]], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_readmes_settings_are_the_constructors() -> None:
    table = re.findall(r"^\| (`.*?`) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    named = {name for row in table for name in re.findall(r"`(\w+)`", row)}
    assert named == {"models", "device", "precision", *Settings.__annotations__}


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
