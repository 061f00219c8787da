"""The networks' form for a GPU, on the CPU: a card is not at hand in every test run."""

from pathlib import Path

import numpy as np
import pytest

from threadsafe_ocr import ConfigError, ModelLoadError, ThreadSafeOCR, _core, card_models, model_sets

PAGES = Path(__file__).parents[1] / "data" / "pages"
LINES = sorted((PAGES / "rec_lines").glob("*.png"))


class OnCpu(ThreadSafeOCR):
    """Runs what a card runs."""

    def __new__(cls, precision: str) -> "OnCpu":
        ThreadSafeOCR(device="cpu").close()  # loads ONNX Runtime
        settings = {"model_folder": str(model_sets.folder()), "replaced": card_models.on_card("v6-small", precision), "device": "cpu"}
        return _core.ThreadSafeOCR.__new__(cls, "v6-small", settings)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THREADSAFE_OCR_CACHE", str(tmp_path))
    return tmp_path / "cuda"


@pytest.mark.parametrize("precision", card_models.PRECISIONS)
def test_lines_and_a_page_are_read_as_by_the_networks_own_form(precision: str) -> None:
    page = PAGES / "scans_en/huckleberry-finn-p029.jpg"
    with ThreadSafeOCR(device="cpu") as own, OnCpu(precision) as on_card:
        # The padding of a wider input may cost a space.
        lines = [["".join(line.text.split()) for line in ocr.recognize(LINES)] for ocr in (on_card, own)]
        assert lines[0] == lines[1]
        ours, theirs = on_card.read(page), own.read(page)
    same = [(a, b) for a, b in zip(ours.lines, theirs.lines, strict=True) if a.text == b.text]
    assert len(same) >= 0.97 * len(theirs.lines) > 20
    assert all(np.array_equal(a.polygon, b.polygon) for a, b in same)
    assert max(abs(a.score - b.score) for a, b in same) < 0.02


def test_they_are_made_once(cache: Path) -> None:
    card_models.on_card("v6-small", "fp16")
    made = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(made) == 3
    assert not [path for path in made if path.name.startswith(".")]
    card_models.on_card("v6-small", "fp16")
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == made


def test_half_precision_halves_a_recogniser_alone() -> None:
    sizes = {
        (kind, precision): card_models.prepared(file, kind, precision).stat().st_size
        for precision in card_models.PRECISIONS
        for file, kind in _core.networks("v6-small", str(model_sets.folder()))
    }
    assert sizes["rec", "fp16"] < 0.51 * sizes["rec", "f32"]
    assert sizes["det", "fp16"] == sizes["det", "f32"]


def test_what_is_no_network_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\xff" * 99)
    with pytest.raises(ModelLoadError, match=r"broken\.onnx cannot be read"):
        card_models.prepared(broken, "det", "f32")


def test_half_precision_is_refused_on_a_cpu() -> None:
    with pytest.raises(ConfigError, match="fp16"):
        ThreadSafeOCR(device="cpu", precision="fp16")


def test_a_card_plans_every_width_before_its_first_request() -> None:
    with OnCpu("f32") as on_card:
        read: list[tuple[int, int]] = []
        on_card.recognize = lambda lines: read.append((lines[0].shape[1], len({line.tobytes() for line in lines})))  # type: ignore[method-assign]
        card_models.plan(on_card)
    assert read == [(width, 128) for width in _core.line_widths()]
