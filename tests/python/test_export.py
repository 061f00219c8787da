"""What becomes of read pages: searchable PDFs, hOCR, ALTO, Markdown, out of Python and of the command line."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pikepdf
import pypdfium2
import pytest
from PIL import Image

from conftest import LINES, PAGES
from test_documents import encrypted, pdf_of, tiff_of
from threadsafe_ocr import InvalidImageError, OcrResult, PasswordError, TextLine, ThreadSafeOCR, cli, export
from threadsafe_ocr.export import pdf

ALTO = "{http://www.loc.gov/standards/alto/ns-v4#}"
CHINESE = PAGES / "rec_lines" / "zh0000.png"


def line(text: str, left: float, top: float, right: float, bottom: float) -> TextLine:
    return TextLine(text, 0.9, np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32))


def searchable(document: object, pages: object, **keywords: object) -> pypdfium2.PdfDocument:
    target = io.BytesIO()
    pdf.write(target, document, pages, **keywords)
    return pypdfium2.PdfDocument(target.getvalue())


def text_of(made: pypdfium2.PdfDocument, number: int = 1) -> str:
    return made[number - 1].get_textpage().get_text_range().replace("\r\n", "\n")


def found(made: pypdfium2.PdfDocument, text: str, dpi: float) -> list[float]:
    """Where a viewer marks a text that is searched for: its box in pixels of the shown page."""
    page = made[0]
    marked = page.get_textpage()
    start, count = marked.search(text).get_next()
    boxes = [marked.get_charbox(index) for index in range(start, start + count)]
    left, bottom, right, top = (pick(values) for pick, values in zip((min, min, max, max), zip(*boxes, strict=True), strict=True))
    return [left * dpi / 72, (page.get_height() - top) * dpi / 72, right * dpi / 72, (page.get_height() - bottom) * dpi / 72]


@pytest.fixture(scope="module")
def sample() -> OcrResult:
    return OcrResult(
        (line('A <b> & "c"', 10, 10, 110, 30), line("\u7b2c3\u7ae0 end", 10, 32, 110, 52), line("far", 10, 90, 40, 110)), 200, 120
    )


def test_the_text_of_an_image_is_found_where_it_stands(ocr: ThreadSafeOCR) -> None:
    page = ocr.read(LINES[0])
    made = searchable(LINES[0], [page])
    assert text_of(made).strip() == page.text
    word = page.lines[0].words[2]
    assert found(made, word.text, 72 * page.width / made[0].get_width()) == pytest.approx(word.box, abs=1.5)


@pytest.mark.parametrize(
    "text",
    [
        "\u7b2c\u4e09\u7ae0 \u7ed3\u675f",
        "\u304b\u306a\u6f22\u5b57",
        "\ud55c\uad6d\uc5b4 \uae00",
        "a\U00020bb7b",
        "na\u00efve \u20ac5",
    ],
)
def test_text_of_every_script_comes_out_as_it_went_in(text: str) -> None:
    image = io.BytesIO()
    Image.new("RGB", (400, 60), "white").save(image, "PNG")
    made = searchable(image.getvalue(), [OcrResult((line(text, 10, 10, 390, 50),), 400, 60)])
    assert text_of(made).strip() == text


@pytest.mark.parametrize("kind", ["jpeg", "gray", "bilevel", "palette", "alpha", "cmyk", "16 bit"])
def test_the_image_looks_as_it_did(kind: str) -> None:
    """And the invisible text is invisible."""
    gray = Image.fromarray(np.tile(np.arange(0, 240, 2, dtype=np.uint8), (60, 1)))
    image = {
        "jpeg": gray.convert("RGB"), "gray": gray, "palette": gray.convert("P"),
        "bilevel": gray.point(lambda value: 255 * (value > 99), "1"),
        "alpha": Image.merge("LA", (gray, gray)), "cmyk": gray.convert("RGB").convert("CMYK"),
        "16 bit": Image.fromarray(np.asarray(gray, np.uint16) * 257),
    }[kind]  # fmt: skip
    content = io.BytesIO()
    image.save(content, {"jpeg": "JPEG", "cmyk": "TIFF"}.get(kind, "PNG"), dpi=(72, 72))
    made = searchable(content.getvalue(), [OcrResult((line("over it", 0, 0, 120, 60),), 120, 60)])
    shown = np.asarray(made[0].render().to_pil().convert("L"), int)
    expected = np.asarray(gray, int)
    if kind == "alpha":
        expected = 255 - expected + expected * expected // 255
    if kind == "bilevel":
        expected = np.asarray(image.convert("L"), int)
    assert shown.shape == (60, 120)
    assert np.abs(shown - expected).mean() < 2


def test_an_image_that_pillow_finds_too_large_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InvalidImageError, match="PIL cannot open this image"):
        pdf.write(io.BytesIO(), LINES[0], [])


def test_a_photo_that_exif_turns_is_upright_with_its_text(ocr: ThreadSafeOCR) -> None:
    photo = PAGES / "formats" / "exif6.jpg"
    page = ocr.read(photo)
    made = searchable(photo, [page])
    width, height = made[0].get_size()
    assert width / height == pytest.approx(page.width / page.height, rel=1e-3)
    word = max((word for line in page.lines for word in line.words), key=lambda word: len(word.text))
    assert found(made, word.text, 72 * page.width / width) == pytest.approx(word.box, abs=1.5)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_pdf_keeps_its_pages_and_gets_their_text(ocr: ThreadSafeOCR, turn: int) -> None:
    """Also a page that is turned, cropped and whose drawing leaves its state changed."""
    content = io.BytesIO()
    with pikepdf.open(io.BytesIO(pdf_of(["alpha bravo", "second"]))) as document:
        page = document.pages[0]
        page.Rotate = turn
        page.CropBox = [5, 3, float(page.MediaBox[2]) - 2, float(page.MediaBox[3]) - 7]
        page.contents_add(b"2 0 0 2 50 50 cm q 0.5 g")
        document.save(content)
    before = pypdfium2.PdfDocument(content.getvalue())
    pages = list(ocr.read_pages(content.getvalue(), dpi=144))
    made = searchable(content.getvalue(), pages)
    # PDFium gives the words of a line that is upside down on its page from left to right.
    assert [text_of(made, number).split() for number in (1, 2)] == [["alpha", "bravo"][:: -1 if turn == 180 else 1], ["second"]]
    assert (before[0].render(scale=2).to_numpy() == made[0].render(scale=2).to_numpy()).all()
    # What a viewer marks is where the word is drawn.
    bravo = pages[0].lines[0].words[1]
    shown = made[0]
    converter = shown.render(scale=2).get_posconv(shown)
    marked = shown.get_textpage()
    start, count = marked.search("bravo").get_next()
    corners = []
    for index in range(start, start + count):
        left, bottom, right, top = marked.get_charbox(index)
        corners += [converter.to_bitmap(left, bottom), converter.to_bitmap(right, top)]
    xs, ys = zip(*corners, strict=True)
    assert [min(xs), min(ys), max(xs), max(ys)] == pytest.approx(bravo.box, abs=3)


def test_pages_that_were_not_read_stay_as_they_are(ocr: ThreadSafeOCR) -> None:
    content = pdf_of(["alpha", "bravo", "charlie"])
    made = searchable(content, ocr.read_pages(content, 2))
    assert [text_of(made, number).strip() for number in (1, 2, 3)] == ["", "bravo", ""]


def test_frames_of_a_tiff_become_pages(ocr: ThreadSafeOCR, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_of(["one", "two"]))
    pdf.write(tmp_path / "a.pdf", tmp_path / "a.tif", ocr.read_pages(tmp_path / "a.tif"))
    made = pypdfium2.PdfDocument(tmp_path / "a.pdf")
    assert [text_of(made, number).strip() for number in (1, 2)] == ["one", "two"]
    made.close()


def test_an_encrypted_pdf_becomes_an_open_one(ocr: ThreadSafeOCR) -> None:
    locked = encrypted(pdf_of(["alpha"]), "key")
    with pytest.raises(PasswordError):
        searchable(locked, [])
    assert text_of(searchable(locked, ocr.read_pages(locked, password="key"), password="key")).strip() == "alpha"


class Classes(HTMLParser):
    """The title of every element, by its class; and the text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.titles: dict[str, list[str]] = {}
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if "class" in values:
            self.titles.setdefault(values["class"] or "", []).append(values["title"] or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hocr_says_where_every_word_is(sample: OcrResult) -> None:
    read = Classes(export.TEXTS["hocr"]([sample], 'a "b".png'))
    assert read.titles["ocr_page"] == ['image "a "b".png"; bbox 0 0 200 120; ppageno 0']
    assert read.titles["ocr_line"][0] == "bbox 10 10 110 30"
    assert len(read.titles["ocrx_word"]) == 4 + 4 + 1
    assert all(re.fullmatch(r"bbox \d+ \d+ \d+ \d+; x_wconf 90", title) for title in read.titles["ocrx_word"])
    assert [row for row in read.text.split("\n") if row] == ['A <b> & "c"', "\u7b2c3\u7ae0 end", "far"]


def test_alto_says_where_every_word_is(sample: OcrResult) -> None:
    root = ElementTree.fromstring(export.TEXTS["alto"]([sample, OcrResult((), 10, 10)], "a&b.png"))
    assert root.findtext(f".//{ALTO}fileName") == "a&b.png"
    assert [page.get("PHYSICAL_IMG_NR") for page in root.iter(f"{ALTO}Page")] == ["1", "2"]
    words = [(word.get("CONTENT"), word.get("WC")) for word in root.iter(f"{ALTO}String")]
    assert words[:4] == [("A", "0.90"), ("<b>", "0.90"), ("&", "0.90"), ('"c"', "0.90")]
    first = next(root.iter(f"{ALTO}TextLine"))
    assert [first.get(name) for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT")] == ["10", "10", "100", "20"]
    assert len({element.get("ID") for element in root.iter() if element.get("ID")}) == sum(1 for e in root.iter() if e.get("ID"))


def test_text_that_is_turned_says_so() -> None:
    down = TextLine("down", 0.9, np.array([[0, 0], [10, 0], [10, 80], [0, 80]], np.float32), first_corner=1)
    page = OcrResult((down,), 20, 100)
    assert Classes(export.TEXTS["hocr"]([page])).titles["ocr_line"] == ["bbox 0 0 10 80; textangle 270"]
    assert next(ElementTree.fromstring(export.TEXTS["alto"]([page])).iter(f"{ALTO}TextBlock")).get("ROTATION") == "90"


def test_markdown_has_paragraphs_and_no_formatting_by_accident(sample: OcrResult) -> None:
    assert export.TEXTS["md"]([sample]) == 'A \\<b\\> & "c"\n\u7b2c3\u7ae0 end\n\nfar\n'
    page = OcrResult((line("1. # *x* [y]", 0, 0, 90, 10), line("- z_", 0, 30, 90, 40)), 100, 50)
    assert export.TEXTS["md"]([page, page]).split("\n---\n\n") == ["1\\. # \\*x\\* \\[y\\]\n\n\\- z\\_\n"] * 2


def test_paragraphs_of_a_turned_page_are_those_of_the_upright_one() -> None:
    def turned(one: TextLine) -> TextLine:
        (x0, y0, x1, y1), high = one.box, 120
        return TextLine(
            one.text, 0.9, np.array([[high - y1, x0], [high - y0, x0], [high - y0, x1], [high - y1, x1]], np.float32), first_corner=1
        )

    lines = (line("a", 10, 10, 110, 30), line("b", 10, 32, 110, 52), line("c", 10, 90, 40, 110))
    upright, sideways = OcrResult(lines, 200, 120), OcrResult(tuple(map(turned, lines)), 120, 200)
    assert export.TEXTS["md"]([sideways]) == export.TEXTS["md"]([upright]) == "a\nb\n\nc\n"


def test_the_command_reads_documents_and_writes_each_format(ocr: ThreadSafeOCR, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "d.pdf"
    document.write_bytes(pdf_of(["alpha", "bravo", "charlie"]))
    assert cli.main(["read", str(document)]) == 0
    assert capfd.readouterr().out == "alpha\n\f\nbravo\n\f\ncharlie\n\f\n"
    assert cli.main(["read", str(document), "--format", "json", "--words", "--pages", "2-"]) == 0
    pages = [json.loads(row) for row in capfd.readouterr().out.splitlines()]
    assert [(page["page_number"], page["lines"][0]["words"][0]["text"]) for page in pages] == [(2, "bravo"), (3, "charlie")]
    assert cli.main(["read", str(document), str(LINES[0]), "--tsv", "--pages", "1"]) == 0
    assert [row.split("\t")[0] for row in capfd.readouterr().out.splitlines()[1:]] == [f"{document}#page=1", str(LINES[0])]
    assert cli.main(["read", str(document), "--format", "md", "--pages", "1,3"]) == 0
    assert capfd.readouterr().out == "alpha\n\n---\n\ncharlie\n"
    for name in ("hocr", "alto", "pdf"):
        assert cli.main(["read", str(document), str(LINES[0]), "--format", name, "--out", str(tmp_path / "out"), "--dpi", "100"]) == 0
    made = pypdfium2.PdfDocument(tmp_path / "out" / "d.pdf.pdf")
    assert text_of(made, 3).strip() == "charlie"
    made.close()
    assert (tmp_path / "out" / f"{LINES[0].name}.pdf").read_bytes().startswith(b"%PDF-")
    assert len(Classes((tmp_path / "out" / "d.pdf.hocr").read_text()).titles["ocr_page"]) == 3
    assert ElementTree.parse(tmp_path / "out" / "d.pdf.alto").getroot().tag == f"{ALTO}alto"
    assert not list((tmp_path / "out").glob(".*")), "no half-written file is left"


def test_the_command_tells_what_a_document_lacks(ocr: ThreadSafeOCR, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    locked, good = tmp_path / "l.pdf", tmp_path / "g.pdf"
    locked.write_bytes(encrypted(pdf_of(["alpha"]), "key"))
    good.write_bytes(pdf_of(["alpha"]))
    assert cli.main(["read", str(locked), str(good), "--out", str(tmp_path / "out")]) == 1
    assert f"{locked} is encrypted" in capfd.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["g.pdf.txt"]
    assert cli.main(["read", str(locked), "--password", "key"]) == 0
    assert capfd.readouterr().out == "alpha\n\f\n"
    assert cli.main(["read", str(good), "--pages", "2"]) == 1
    assert "there is no page 2" in capfd.readouterr().err


def test_a_pdf_comes_in_on_stdin() -> None:
    command = [sys.executable, "-m", "threadsafe_ocr.cli", "read", "--pages", "2", "-"]
    done = subprocess.run(command, input=pdf_of(["alpha", "bravo"]), capture_output=True, check=True)
    assert done.stdout == b"bravo\n\f\n"
