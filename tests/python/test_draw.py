"""Pictures of what was read: where boxes and texts stand, and that the texts can be read again."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from conftest import LINES, PAGES
from threadsafe_ocr import ConfigError, InvalidImageError, OcrResult, TextLine, ThreadSafeOCR, draw

LINE = LINES[0]


def line(text: str, polygon: list[tuple[int, int]], *, upside_down: bool = False) -> TextLine:
    return TextLine(text, 0.9, np.array(polygon, np.float32), upside_down, 0.9)


def ink(picture: Image.Image) -> npt.NDArray[np.bool_]:
    """Where it is black, as texts are and boxes are not."""
    return np.asarray(picture).max(axis=2) < 60


@pytest.fixture(scope="module")
def read(ocr: ThreadSafeOCR) -> OcrResult:
    return ocr.read(LINE)


@pytest.mark.parametrize(
    ("name", "rows", "turn"),
    [
        ("formats/rgb.png", 10_000, 0),
        ("docs_en/tex-nutshell-p013.png", 500, 0),
        ("formats/rgb.png", 10_000, 90),
        ("formats/rgb.png", 10_000, 180),
    ],
    ids=["Chinese", "English", "turned left", "upside down"],
)
def test_what_is_typed_beside_a_page_reads_as_the_page(ocr: ThreadSafeOCR, name: str, rows: int, turn: int) -> None:
    with Image.open(PAGES / name) as opened:
        image = opened.convert("RGB").crop((0, 0, opened.width, min(rows, opened.height))).rotate(turn, expand=True)
    page = ocr.read(image)
    picture = page.draw(image=image)
    assert picture.size == (2 * page.width, page.height)
    typed = ocr.read(picture.crop((page.width, 0, 2 * page.width, page.height)))
    written, again = (Counter(result.text.replace(" ", "")) for result in (page, typed))
    assert (written & again).total() > 0.9 * written.total() > 50


def test_an_image_that_pillow_finds_too_large_or_does_not_know_is_told(read: OcrResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for image in (LINE, b"no image"):
        with pytest.raises(InvalidImageError, match="PIL cannot open this image"):
            read.draw(image=image)


def test_the_page_is_on_the_left_with_a_box_round_each_line(read: OcrResult) -> None:
    picture = np.asarray(read.draw(image=LINE))
    with Image.open(LINE) as opened:
        before = np.asarray(opened.convert("RGB"))
    changed = (picture[:, : read.width] != before).any(axis=2)
    rows, columns = np.nonzero(changed)
    x0, y0, x1, y1 = read.lines[0].box
    assert abs(columns.min() - x0) <= 2
    assert abs(rows.min() - y0) <= 2
    assert abs(columns.max() - x1) <= 2
    assert abs(rows.max() - y1) <= 2
    assert changed.mean() < 0.2, "a box, no more"


def test_every_kind_of_image_gives_the_same_picture(read: OcrResult) -> None:
    with Image.open(LINE) as opened:
        rgb = opened.convert("RGB")
    bgr = np.ascontiguousarray(np.asarray(rgb)[:, :, ::-1])
    opaque = np.dstack([bgr, np.full(bgr.shape[:2], 255, np.uint8)])
    expected = read.draw(image=LINE).tobytes()
    for image in [str(LINE), LINE.read_bytes(), io.BytesIO(LINE.read_bytes()), rgb, bgr, opaque]:
        assert read.draw(image=image).tobytes() == expected
    grey = np.asarray(rgb.convert("L"))
    assert draw.photo(np.full((4, 4, 3), (255, 0, 0), np.uint8)).getpixel((0, 0)) == (0, 0, 255), "arrays are BGR, as in cv2"
    assert read.draw(image=grey).tobytes() == read.draw(image=grey[:, :, None]).tobytes()


@pytest.mark.parametrize("name", ["exif6.jpg", "black_on_transparent.png", "gray16.png", "cmyk.jpg"])
def test_unusual_files_are_drawn_as_they_are_read(ocr: ThreadSafeOCR, name: str) -> None:
    path = PAGES / "formats" / name
    picture = ocr.read(path).draw(image=path)
    left = np.asarray(picture.convert("L"))[:, : picture.width // 2]
    assert 0.5 < (left > 128).mean() < 0.99, "black on white"


def test_without_the_image_boxes_and_text_are_on_white(read: OcrResult, tmp_path: Path) -> None:
    picture = read.draw(tmp_path / "drawn.png")
    assert picture.size == (read.width, read.height)
    with Image.open(tmp_path / "drawn.png") as saved:
        assert saved.tobytes() == picture.tobytes()


@pytest.mark.parametrize(
    ("polygon", "upside_down", "where"),
    [
        ([(10, 10), (190, 10), (190, 40), (10, 40)], False, "left"),
        ([(10, 10), (190, 10), (190, 40), (10, 40)], True, "right"),
        ([(10, 10), (40, 10), (40, 190), (10, 190)], False, "top"),
        ([(10, 10), (40, 10), (40, 190), (10, 190)], True, "bottom"),
    ],
)
def test_text_runs_as_it_was_read(polygon: list[tuple[int, int]], upside_down: bool, where: str) -> None:
    """A short text stands at the beginning of its line."""
    page = OcrResult((line("|", polygon, upside_down=upside_down),), 200, 200)
    ys, xs = np.nonzero(ink(page.draw()))
    middle = {"left": xs.max() < 100, "right": xs.min() > 100, "top": ys.max() < 100, "bottom": ys.min() > 100}
    assert len(xs)
    assert middle[where]


def test_long_text_stays_in_its_box() -> None:
    page = OcrResult((line("字" * 15, [(10, 10), (190, 10), (190, 40), (10, 40)]),), 200, 60)
    ys, xs = np.nonzero(ink(page.draw()))
    assert xs.min() >= 8
    assert xs.max() <= 191
    assert ys.min() >= 8
    assert ys.max() <= 41


def test_without_a_font_chinese_is_a_number_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    box = [(10, 10), (190, 10), (190, 40), (10, 40)]
    page = OcrResult((line("中文", box),), 200, 60)
    with_font = page.draw().tobytes()
    assert draw.note() is None
    monkeypatch.setattr(draw, "PACKAGE", "no_such_package")
    monkeypatch.setattr(draw, "SYSTEM", ())
    assert 'pip install "threadsafe-ocr[draw]"' in str(draw.note())
    without = page.draw()
    assert without.tobytes() != with_font
    assert without.tobytes() == OcrResult((line("文中", box),), 200, 60).draw().tobytes(), "1, whatever it says"
    latin = OcrResult((line("Latin", box),), 200, 60).draw()
    assert ink(latin).any(), "Latin text needs no extra font"


def test_another_image_than_the_one_that_was_read_is_refused(read: OcrResult) -> None:
    with pytest.raises(ConfigError, match="give the same one"):
        read.draw(image=np.zeros((10, 10, 3), np.uint8))


def test_without_pillow_the_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['PIL'] = None\n"
        "from threadsafe_ocr import OcrResult, OcrError\n"
        "try: OcrResult((), 10, 10).draw()\n"
        "except OcrError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 'pip install "threadsafe-ocr[draw]"' in done.stdout


def test_a_notebook_shows_text_where_it_stands() -> None:
    page = OcrResult((line("a < b & 中", [(10, 10), (40, 10), (40, 190), (10, 190)]),), 200, 300)
    shown = page._repr_html_()
    assert "a &lt; b &amp; 中" in shown
    assert 'viewBox="0 0 200 300"' in shown
    assert "rotate(90.0)" in shown
