"""Words: what a line's text is made of, and where on the page."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from conftest import LINES, PAGES, TEXT
from threadsafe_ocr import OcrResult, TextLine, ThreadSafeOCR, Word

# A part, so that it is read in no time.
ENGLISH = Image.open(PAGES / "docs_en" / "tex-nutshell-p013.png").convert("RGB").crop((150, 312, 1500, 642))
CHINESE = Image.open(PAGES / "docs_zh" / "qyxf-book-doc-p005.png").convert("RGB").crop((0, 400, 1386, 760))
BOX = np.array([[0, 0], [100, 0], [100, 10], [0, 10]], np.float32)


def alone(text: str) -> list[str]:
    return [word.text for word in TextLine(text, 0.9, BOX).words]


@pytest.fixture(scope="module")
def english(ocr: ThreadSafeOCR) -> OcrResult:
    return ocr.read(ENGLISH)


def cut(image: Image.Image, word: Word, turn: int) -> np.ndarray:
    """The word's pixels, upright, with a margin of white as a line has it."""
    crop = np.rot90(np.asarray(image.crop(tuple(map(round, word.box)))), turn)
    return np.pad(crop, ((4, 4), (6, 6), (0, 0)), constant_values=255)


def share_that_read_the_same(ocr: ThreadSafeOCR, image: Image.Image, page: OcrResult, turn: int = 0) -> float:
    words = [word for line in page.lines for word in line.words if len(word.text) > 2][::3]
    assert len(words) > 15
    again = ocr.recognize([cut(image, word, turn) for word in words], color="rgb")
    return sum(line.text == word.text for line, word in zip(again, words, strict=True)) / len(words)


def test_a_word_cut_out_of_the_page_reads_the_same(ocr: ThreadSafeOCR, english: OcrResult) -> None:
    assert share_that_read_the_same(ocr, ENGLISH, english) > 0.9


@pytest.mark.parametrize("turn", [1, 2, 3], ids=["left", "half", "right"])
def test_words_of_a_turned_page_are_where_they_stand(ocr: ThreadSafeOCR, turn: int) -> None:
    image = Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(ENGLISH), turn)))
    page = ocr.read(image)
    assert {line.first_corner for line in page.lines if len(line.text) > 20} == {4 - turn}
    assert share_that_read_the_same(ocr, image, page, 4 - turn) > 0.9
    upright, expected = ocr.read(image, use_doc_orientation=True), ocr.read(ENGLISH)
    assert (page.angle, upright.angle, expected.angle) == (360 - 90 * turn, 360 - 90 * turn, 0)
    assert (upright.width, upright.height) == (expected.width, expected.height)
    assert {line.first_corner for line in upright.lines if len(line.text) > 20} == {0}
    assert upright.text == page.text
    places = [
        {word.text: word.box for line in one.lines for word in line.words if one.text.count(word.text) == 1} for one in (upright, expected)
    ]
    apart = [np.abs(np.subtract(places[0][text], box)).max() for text, box in places[1].items() if text in places[0]]
    assert len(apart) > 15
    # A third of a letter's height.
    assert np.median(apart) < 10


def test_words_fill_their_line_in_order(english: OcrResult) -> None:
    for line in english.lines:
        assert "".join(word.text for word in line.words) == line.text.replace(" ", "")
        edges = [edge for word in line.words for edge in (word.box[0], word.box[2])]
        assert edges == sorted(edges)
        assert line.box[0] <= edges[0]
        assert edges[-1] <= line.box[2]
        assert all(0 < word.score <= 1 for word in line.words)


def test_a_chinese_character_is_a_word_as_wide_as_it_is(ocr: ThreadSafeOCR) -> None:
    line = max(ocr.read(CHINESE).lines, key=lambda line: len(line.text))
    characters = [word for word in line.words if "\u4e00" <= word.text <= "\u9fff"]
    assert len(characters) > 10
    height = line.box[3] - line.box[1]
    widths = [word.box[2] - word.box[0] for word in characters]
    assert 0.6 * height < np.median(widths) < 1.1 * height


def test_spaces_part_words_and_ideographs_stand_alone() -> None:
    assert alone("to be,  or") == ["to", "be,", "or"]
    assert alone("\u7b2c3\u7ae0\u3002 end") == ["\u7b2c", "3", "\u7ae0", "\u3002", "end"]
    assert alone("\u304b\u306a \ud55c\uad6d\uc5b4") == ["\u304b", "\u306a", "\ud55c\uad6d\uc5b4"]
    assert alone(" ") == alone("") == []


def test_a_line_given_by_itself_has_words_and_a_detected_one_has_none(ocr: ThreadSafeOCR) -> None:
    line = ocr.recognize(LINES[0])
    assert [word.text for word in line.words] == TEXT.split()
    assert ocr.detect(LINES[0]).lines[0].words == ()


@pytest.mark.parametrize("group", [0, 6])
def test_columns_are_within_the_lines_length(ocr: ThreadSafeOCR, group: int) -> None:
    for line in ocr.read(ENGLISH, rec_group=group).lines:
        assert len(line.columns) == len(line.character_scores) == len(line.text)
        assert (np.diff(line.columns) > 0).all()
        assert line.columns[-1] < line.column_count + 1
        assert line.score == pytest.approx(line.character_scores.mean(), abs=1e-6)


def test_words_are_plain_json_when_asked_for(english: OcrResult) -> None:
    plain = json.loads(english.to_json(words=True))
    word, expected = plain["lines"][0]["words"][0], english.lines[0].words[0]
    assert word == {"text": expected.text, "score": expected.score, "box": list(expected.box), "polygon": expected.polygon.tolist()}
    assert "words" not in english.to_dict()["lines"][0]


def test_words_survive_pickling_and_stay_read_only(english: OcrResult) -> None:
    line = pickle.loads(pickle.dumps(english)).lines[0]
    assert [word.box for word in line.words] == [word.box for word in english.lines[0].words]
    for array in (line.columns, line.character_scores, english.lines[0].columns, line.words[0].polygon):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
