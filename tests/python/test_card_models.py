"""The networks' form for a GPU, on the CPU: a card is not at hand in every test run."""

from pathlib import Path

import numpy as np
import pytest

from conftest import Run
from threadsafe_ocr import ConfigError, EngineUnavailableError, ModelLoadError, ThreadSafeOCR, _core, card_models, model_sets

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
    card_models.prepared.cache_clear()
    return tmp_path / ".cuda"


@pytest.mark.parametrize("precision", ["f32", "fp16"])
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
    card_models.prepared.cache_clear()
    card_models.on_card("v6-small", "fp16")
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == made


def test_half_precision_halves_a_recogniser_alone() -> None:
    f32, fp16 = (card_models.on_card("v6-small", precision) for precision in ("f32", "fp16"))
    different = [file for file in f32 if f32[file] != fp16[file]]
    assert [file.parent.name for file in different] == ["rec"]
    assert fp16[different[0]].stat().st_size < 0.51 * f32[different[0]].stat().st_size


def test_what_is_no_network_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\xff" * 99)
    with pytest.raises(ModelLoadError, match=r"broken\.onnx cannot be prepared for a GPU"):
        card_models.prepared(broken, "det", False)


def test_a_network_of_another_kind_is_named() -> None:
    ((detector, _), *_) = _core.networks("v6-small", str(model_sets.folder()))
    with pytest.raises(ModelLoadError, match=r"must be a rec model"):
        card_models.prepared(detector, "rec", False)


def test_a_network_for_one_line_at_a_time_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    (own,) = (file for file, kind in _core.networks("v6-small", str(model_sets.folder())) if kind == "cls")
    model = onnx.load(own)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "one.onnx")
    with pytest.raises(ModelLoadError, match="it takes 1 at once"):
        card_models.prepared(tmp_path / "one.onnx", "cls", False)


def test_a_dictionary_of_another_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dict.txt").write_text("a\nb\n", encoding="utf-8")
    det, rec = (str(file) for file, kind in _core.networks("v6-small", str(model_sets.folder())) if kind != "cls")
    models = {"det": det, "rec": rec, "dict": str(tmp_path / "dict.txt")}
    settings = {"model_folder": str(model_sets.folder()), "replaced": card_models.on_card(models, "f32"), "device": "cpu"}
    ThreadSafeOCR(device="cpu").close()  # loads ONNX Runtime
    with pytest.raises(ModelLoadError, match="18710 classes and its dictionary 2 characters"):
        _core.ThreadSafeOCR(models, settings)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("THREADSAFE_OCR_CACHE", str(tmp_path / "file"))
    with pytest.raises(EngineUnavailableError, match="set THREADSAFE_OCR_CACHE"):
        card_models.on_card("v6-small", "f32")


def test_runs_of_several_lines_answer_for_each(run_python: Run) -> None:
    script = f"""
        from threadsafe_ocr import _core, card_models, model_sets
        own = ThreadSafeOCR(device="cpu", run_size=4)
        theirs = [line.text for line in own.recognize({[str(path) for path in LINES]!r})]
        settings = {{"model_folder": str(model_sets.folder()), "device": "cpu", "run_size": 4,
                    "replaced": card_models.on_card("v6-small", "f32")}}
        on_card = _core.ThreadSafeOCR.__new__(ThreadSafeOCR, "v6-small", settings)
        ours = [line.text for line in on_card.recognize({[str(path) for path in LINES]!r})]
        assert ["".join(text.split()) for text in ours] == ["".join(text.split()) for text in theirs]
        assert on_card.stats()["run_size"]["sum"] > on_card.stats()["run_size"]["count"]
    """
    run_python(script)


def test_half_precision_is_refused_on_a_cpu() -> None:
    with pytest.raises(ConfigError, match="fp16"):
        ThreadSafeOCR(device="cpu", precision="fp16")


def test_a_card_plans_every_width_before_its_first_request() -> None:
    with OnCpu("f32") as on_card:
        read: list[tuple[int, int]] = []
        on_card.recognize = lambda lines, timeout: read.append((lines[0].shape[1], len({line.tobytes() for line in lines})))  # type: ignore[method-assign]
        card_models.plan(on_card)
    assert read == [(width, 64) for width in _core.line_widths()]
