"""Scripts that no set here reads: the user's own copy is added once, `lang=` finds it, and Arabic comes out in the order it is spoken."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from conftest import MODELS
from threadsafe_ocr import ThreadSafeOCR, model_sets
from threadsafe_ocr.compat.paddle import PaddleOCR

# A network that reads Arabic is not to be had here: this one reads a Latin letter and names an Arabic one.
ARABIC = dict(zip(string.ascii_lowercase, "ابتثجحخدذرزسشصضطظعغفقكلمنه", strict=True))
# What PaddleOCR calls the model that it would take, 2.x and 3.x.
NAMES = {"2": "arabic_PP-OCRv4_rec", "3": "arabic_PP-OCRv5_mobile_rec"}


def written(text: str) -> str:
    return "".join(ARABIC.get(character, character) for character in text)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be added."""
    monkeypatch.setenv("THREADSAFE_OCR_CACHE", str(tmp_path / "cache"))
    own = tmp_path / "own"
    for part in ("det", "rec"):
        (own / part).mkdir(parents=True)
        (own / part / "inference.onnx").symlink_to(MODELS / "v6-small" / part / "inference.onnx")
    characters = (MODELS / "v6-small" / "rec" / "inference.yml").read_text(encoding="utf-8")
    for latin, arabic in ARABIC.items():
        characters = characters.replace(f"\n  - {latin}\n", f"\n  - {arabic}\n")
    (own / "rec" / "inference.yml").write_text(characters, encoding="utf-8")
    return own


@pytest.fixture
def page() -> np.ndarray:
    """As it stands, from the left."""
    image = Image.new("RGB", (520, 80), "white")
    ImageDraw.Draw(image).text((20, 20), "hello 42.50 world", fill="black", font=ImageFont.load_default(40))
    return np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


def test_an_added_set_reads_arabic_from_the_right(own: Path, page: np.ndarray) -> None:
    with ThreadSafeOCR(model_sets.add(own, "own-arabic")) as ocr:
        (line,) = ocr.read(page).lines
    assert line.text == f"{written('dlrow')} 42.50 {written('olleh')}"
    assert (np.diff(line.columns[:5]) < 0).all()
    assert (np.diff(line.columns[6:11]) > 0).all()
    words = line.words
    assert [word.text for word in words] == line.text.split()
    world, number, hello = (word.box for word in words)
    assert hello[0] < hello[2] <= number[0] + 1 < number[2] <= world[0] + 1 < world[2]


@pytest.mark.parametrize("api", NAMES)
def test_lang_finds_the_set_that_was_added_for_it(own: Path, page: np.ndarray, api: str) -> None:
    added = model_sets.add(own, NAMES[api])
    with pytest.warns(UserWarning, match="v6-small reads in place of"):
        ocr = PaddleOCR(lang="ar", api=api)
    texts = ocr.predict(page)[0]["rec_texts"] if api == "3" else [text for _, (text, _) in ocr.ocr(page)[0]]
    assert texts == [f"{written('dlrow')} 42.50 {written('olleh')}"]
    assert ocr.model_settings[api][added] == added
