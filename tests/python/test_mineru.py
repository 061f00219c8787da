"""MinerU's OCR object and the patch, without MinerU: stand-ins with its modules' names. `make test-mineru` has the real one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import LINES, MODELS, PAGES
from test_reading import bgr
from threadsafe_ocr.cli import doctor
from threadsafe_ocr.compat.mineru import boxes, concurrent, ocr, profiles
from threadsafe_ocr.compat.mineru.ocr import MinerUOCR


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def edges(found: list[np.ndarray]) -> list[tuple[float, ...]]:
    return [(*one[0].tolist(), *one[2].tolist()) for one in found]


SLANTED = np.array([[0, 0], [100, 40], [90, 60], [0, 20]], np.float32)


def test_boxes_are_sorted_by_lines_whose_tops_are_near() -> None:
    found = boxes.sort([box(50, 8, 60, 20), box(0, 12, 10, 24), box(0, 40, 10, 50), box(0, 0, 10, 5)])
    assert edges(found) == [(0, 0, 10, 5), (0, 12, 10, 24), (50, 8, 60, 20), (0, 40, 10, 50)]


def test_touching_boxes_of_a_long_line_are_joined_and_slanted_ones_come_last() -> None:
    line = [box(0, 0, 60, 10), box(50, 2, 120, 11)]
    assert edges(boxes.join([SLANTED, *line, box(0, 30, 20, 40), box(15, 30, 30, 40)], only_long_lines=True)) == [
        (0, 0, 120, 11), (0, 30, 20, 40), (15, 30, 30, 40), (0, 0, 90, 60),
    ]  # fmt: skip
    assert edges(boxes.join([box(0, 30, 20, 40), box(15, 30, 30, 40)], only_long_lines=False)) == [(0, 30, 30, 40)]


def test_formulas_are_cut_out_of_the_lines_they_lie_in() -> None:
    formulas = [{"bbox": (20, 0, 39, 10)}, {"bbox": (30, 1, 59, 10)}, {"bbox": (0, 200, 500, 230)}]
    assert edges(boxes.without_formulas([SLANTED, box(0, 0, 100, 10), box(0, 200, 30, 600)], formulas)) == [
        (0, 0, 19, 10), (60, 0, 100, 10), (0, 0, 90, 60),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("package", "version", "wanted"),
    [
        ("mineru", "4.0.12", profiles.MINERU4), ("mineru", "3.4.5", profiles.MINERU3_4), ("mineru", "3.1.14", profiles.MINERU3),
        ("mineru", "3.1.15", profiles.MINERU3_1_15), ("mineru", "2.7.6", profiles.MINERU2_7), ("mineru", "2.5.4", profiles.MINERU2_2),
        ("mineru", "2.0.6", profiles.MINERU2), ("magic-pdf", "1.3.12", profiles.MAGIC1_3), ("magic-pdf", "1.2.2", profiles.MAGIC1),
        ("mineru", "5.0.0rc1", profiles.MINERU4),
    ],
)  # fmt: skip
def test_a_version_gets_its_own_steps(package: str, version: str, wanted: profiles.Profile) -> None:
    assert profiles.profile(package, version) == wanted


@pytest.fixture(scope="module")
def reader() -> MinerUOCR:
    return MinerUOCR(models="v6-small")


def test_lists_and_tuples_are_those_that_mineru_looks_for(reader: MinerUOCR) -> None:
    page, blank = bgr(LINES[0]), np.full((48, 320, 3), 255, np.uint8)
    ((found, (text, score)),) = reader.ocr(page)[0]
    assert (len(found), len(found[0]), type(text), type(score)) == (4, 2, str, float)
    assert isinstance(reader.ocr(page)[0][0][1], tuple)
    assert reader.ocr(page, rec=False) == [[found]]
    assert (reader.ocr(blank), reader.ocr(blank, rec=False), reader.ocr(blank, det=False)) == ([None], [[]], [[("", 1.0)]])
    assert reader.ocr([], det=False) == [[]]
    assert [one[0] for one in reader.ocr([page, page], det=False)[0]] == [text, text]
    magic = MinerUOCR(models="v6-small", profile=profiles.MAGIC1_3)
    assert magic.ocr(blank, det=False) == [[("", 0.0)]]


def test_magic_pdf_before_1_3_is_called_as_the_paddleocr_that_it_was(reader: MinerUOCR) -> None:
    page, blank = bgr(LINES[0]), np.full((48, 320, 3), 255, np.uint8)
    paddle = MinerUOCR(models="v6-small", profile=profiles.MAGIC1)
    ((found, (text, _)),) = paddle.ocr(page)[0]
    assert [[one[0] for one in image] for image in paddle.ocr([page, page], det=False)] == [[text], [text]]
    boxes, texts, seconds = paddle(page, True)
    assert ([box.tolist() for box in boxes], texts[0][0]) == ([found], text)
    assert list(seconds) == ["det", "rec", "cls", "all"]
    assert 0 < seconds["det"] + seconds["rec"] <= seconds["all"]
    (left, top), _, (right, bottom), _ = found
    formula = [{"bbox": [left - 9, top, right + 9, bottom]}]
    assert [paddle(page, True, formula)[0], paddle(page, cls=False, mfd_res=formula)[0]] == [[], []]
    assert (paddle(blank)[:2], paddle(None)[:2]) == (([], []), (None, None))
    # The later ones have no `cls`, and no seconds.
    assert [one[0] for one in reader(page)[1]] == [text]
    assert [reader(page, formula), reader(page, mfd_res=formula), reader(blank), reader(None)] == [(None, None)] * 4


@pytest.mark.parametrize("profile", [profiles.MINERU4, profiles.MINERU3_4])
def test_lines_are_grouped_in_mineru4s_order_and_answered_in_that_of_the_call(profile: profiles.Profile) -> None:
    class Engine:
        def recognize(self, lines: list[np.ndarray]) -> list[SimpleNamespace]:
            self.seen = [int(line[0, 0, 0]) for line in lines]
            return [SimpleNamespace(text=str(number), score=0.9) for number in self.seen]

    lines = [np.full((10, 40 + 10 * (i % 3), 3), i, np.uint8) for i in range(40)]
    engine = Engine()
    read, _ = ocr.TextRecognizer(engine, profile)(lines)  # type: ignore[arg-type]
    assert [text for text, _ in read] == [str(i) for i in range(40)]
    numpys = np.argsort([line.shape[1] / line.shape[0] for line in lines]).tolist()
    assert engine.seen == (numpys if profile is profiles.MINERU4 else list(range(40)))


def test_every_kind_of_image_is_read(reader: MinerUOCR) -> None:
    page = bgr(LINES[0])
    wanted = reader.ocr(page)
    transparent = np.dstack([page, np.full(page.shape[:2], 255, np.uint8)])
    turned = np.rot90(np.ascontiguousarray(np.rot90(page, -1)))
    assert [reader.ocr(image) for image in (transparent, turned, LINES[0].read_bytes(), str(LINES[0]))] == [wanted] * 4
    assert len(reader.ocr(page[:, :, 0])[0]) == 1
    assert reader.ocr(str(LINES[0]), det=False) == reader.ocr(page, det=False)


def test_bytes_are_not_turned_as_their_exif_says_since_mineru_does_not(reader: MinerUOCR) -> None:
    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(LINES[0]) as line:
        line.convert("RGB").save(content, "PNG", exif=exif)
    assert reader.ocr(content.getvalue()) == reader.ocr(bgr(LINES[0]))


def test_bytes_are_read_without_pillow() -> None:
    script = (
        "import sys; sys.modules['PIL'] = None\n"
        "from threadsafe_ocr.compat.mineru.ocr import MinerUOCR\n"
        f"print(len(MinerUOCR(models='v6-small').ocr(open({str(LINES[0])!r}, 'rb').read())[0]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout.strip() == "1", done.stderr


def test_thresholds_belong_to_the_object() -> None:
    page = bgr(LINES[0])
    deaf, other = MinerUOCR(models="v6-small", det_db_box_thresh=1.0), MinerUOCR(models="v6-small", drop_score=1.0, show_log=False)
    assert (deaf.ocr(page), other.ocr(page), len(MinerUOCR(models="v6-small").ocr(page)[0])) == ([None], [None], 1)


@pytest.mark.parametrize(
    ("mode", "given", "wanted"),
    [
        (None, None, "auto"),
        # 4.x says so of all that runs on ONNX Runtime.
        (None, "cpu", "auto"),
        (None, "cuda:1", "cuda:1"),
        (None, "mps", "auto"),
        ("cpu", "cuda", "cpu"),
        ("cuda", "cpu", "cuda:0"),
    ],
)
def test_it_reads_where_mineru_was_told_to(monkeypatch: pytest.MonkeyPatch, mode: str | None, given: str | None, wanted: str) -> None:
    made: list[str] = []
    monkeypatch.setattr(ocr, "ThreadSafeOCR", lambda *_, device, **__: made.append(device))
    monkeypatch.setattr(ocr.runtime, "may_use_gpu", lambda: True)
    monkeypatch.delenv("MINERU_DEVICE_MODE", raising=False)
    if mode:
        monkeypatch.setenv("MINERU_DEVICE_MODE", mode)
    MinerUOCR(models="v6-small", device=given)
    monkeypatch.setattr(ocr.runtime, "may_use_gpu", lambda: False)
    MinerUOCR(models="v6-small", device=given)
    assert made == [wanted, "cpu" if wanted == "cpu" else "auto"]


def test_eight_threads_with_different_options_get_what_each_gets_alone() -> None:
    pages = [bgr(PAGES / "scans_en" / "table_img2table.png")[:180, :520], bgr(PAGES / "scans_en" / "eurotext.png")[40:170]]
    lines = [bgr(path) for path in LINES[:4]]
    text = MinerUOCR(models="v6-small")
    # As its pipelines make them for tables and for text before 3.1.15, one that keeps sure lines only, and one of PaddleOCR's steps.
    table = MinerUOCR(models="v6-small", det_db_unclip_ratio=1.6, enable_merge_det_boxes=False)
    old = MinerUOCR(models="v6-small", profile=profiles.MINERU2_7, det_db_box_thresh=0.3, det_db_unclip_ratio=1.8, use_dilation=True)
    sure = MinerUOCR(models="v6-small", drop_score=0.998)
    paddle = MinerUOCR(models="v6-small", profile=profiles.MAGIC1, det_db_box_thresh=0.3, det_db_unclip_ratio=1.8, use_dilation=True)
    (left, top), _, (right, bottom), _ = text.ocr(pages[0], rec=False)[0][2]
    formulas = [{"bbox": [int(left + right) // 2 - 30, int(top), int(left + right) // 2 + 30, int(bottom)]}]
    jobs: list[Callable[[], Any]] = [
        lambda: text.ocr(pages[1]),
        lambda: text.ocr(pages[0], mfd_res=formulas),
        lambda: table.ocr(pages[1]),
        lambda: table.ocr(pages[0], rec=False),
        lambda: old.ocr(pages[0], rec=False, mfd_res=formulas),
        lambda: sure.ocr(pages[1]),
        lambda: paddle.ocr(lines, det=False),
        lambda: [boxes.tolist() for boxes, _ in old.text_detector.batch_predict(pages)],
    ]
    alone = [job() for job in jobs]
    assert len({repr(answer) for answer in alone}) == len(jobs)
    begin = threading.Barrier(len(jobs))

    def run(first: int) -> bool:
        begin.wait()
        mine = [number % len(jobs) for number in range(first, first + 2)]
        return [jobs[number]() for number in mine] == [alone[number] for number in mine]

    with ThreadPoolExecutor(len(jobs)) as pool:
        assert all(pool.map(run, range(len(jobs))))


# MinerU's modules, as far as the patch knows them.
MODULES = {
    "mineru/model/runtime/hybrid.py": """
class AtomicModelName:
    OCR = "ocr"
class AtomModelSingleton:
    _models = {"made": "before"}
def atom_model_init(model_name, **keywords):
    return ("MinerU's own", model_name, keywords.get("lang"))
""",
    "mineru/backend/pipeline/model_init.py": """
class PytorchPaddleOCR:
    def __init__(self, **keywords):
        pass
""",
    "magic_pdf/model/sub_modules/model_init.py": "class Renamed: pass",
}
SEEN = """
import warnings; warnings.simplefilter("ignore")
from mineru.model.runtime import hybrid
import mineru.backend.pipeline.model_init as pipeline
kind = lambda made: type(made).__name__ if not isinstance(made, tuple) else made[0]
print(kind(hybrid.atom_model_init("ocr", lang="ch", det_db_box_thresh=0.4, small_backend="onnx")), "|",
      kind(hybrid.atom_model_init("ocr", lang="seal")), "|", kind(hybrid.atom_model_init("layout")), "|",
      hybrid.AtomModelSingleton._models, "|",
      kind(pipeline.PytorchPaddleOCR(lang="ch")), "|", kind(pipeline.PytorchPaddleOCR(lang="korean")))
"""
PATCHED = "MinerUOCR | MinerU's own | MinerU's own | {} | MinerUOCR | PytorchPaddleOCR"
# magic-pdf before 1.3: a table's model makes an engine for itself.
PADDLE = """
class ModifiedPaddleOCR:
    def __init__(self, **keywords):
        pass
class RapidTableModel:
    def __init__(self, ocr_engine, table_sub_model_name):
        self.sub_model, self.ocr_model_name, self.ocr_engine = table_sub_model_name, "RapidOCR", "RapidOCR"
"""


@pytest.fixture
def mineru(tmp_path: Path) -> Path:
    for name, source in MODULES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
        for folder in (tmp_path / name).relative_to(tmp_path).parents:
            if folder.name:
                (tmp_path / folder / "__init__.py").touch()
    install(tmp_path, mineru="4.0.12", magic_pdf="1.3.12")
    return tmp_path


def install(folder: Path, **versions: str) -> None:
    for package, version in versions.items():
        info = folder / f"{package}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: {version}\n")


def python(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if not key.startswith("THREADSAFE_OCR_M")}
    variables |= {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))), **environment}
    return subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, timeout=50, check=False)


PATCH = "import threadsafe_ocr; threadsafe_ocr.patch_mineru()\n"


@pytest.mark.parametrize(
    ("script", "environment"),
    [
        (PATCH + SEEN, {}),
        ("from mineru.model.runtime import hybrid\nimport mineru.backend.pipeline.model_init\n" + PATCH + SEEN, {}),
        (
            f"import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', {SEEN!r}], text=True))",
            {"THREADSAFE_OCR_MINERU": "1"},
        ),
    ],
    ids=["before", "after", "in a child"],
)
def test_mineru_gets_our_object_but_for_seals_and_languages_that_are_not_here(
    mineru: Path, script: str, environment: dict[str, str]
) -> None:
    done = python(script, mineru, **environment)
    assert (done.stdout.strip(), done.returncode) == (PATCHED, 0), done.stderr


LANGUAGES = """
import warnings
from mineru.backend.pipeline.model_init import PytorchPaddleOCR
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    made = [PytorchPaddleOCR(lang=lang) for lang in ("en", "latin", "fr", "german", "vi", "korean", "korean", "seal", "korean")]
print(*(one.profile.rec for one in made[:5]), *(str(one.message).split(":")[0] for one in seen if "lang=" in str(one.message)), sep="|")
"""


def test_latin_languages_get_the_set_with_their_letters_and_a_language_that_stays_mineru_s_is_told_once(mineru: Path) -> None:
    install(mineru, mineru="2.7.6")
    done = python(PATCH + LANGUAGES, mineru)
    told = [f"MinerU's own OCR reads lang='{lang}'" for lang in ("korean", "seal")]
    assert done.stdout.strip().split("|") == ["v6-small"] * 5 + told, done.stderr


def test_the_tables_of_magic_pdf_before_1_3_are_read_with_ours_too(mineru: Path) -> None:
    install(mineru, magic_pdf="1.2.2")
    (mineru / "magic_pdf/model/sub_modules/model_init.py").write_text(PADDLE)
    table = "from magic_pdf.model.sub_modules.model_init import RapidTableModel; table = RapidTableModel(None, 'slanet_plus')\n"
    seen = "print(table.sub_model, table.ocr_model_name, type(table.ocr_engine).__name__, table.ocr_engine.enable_merge_det_boxes)"
    done = python(PATCH + table + seen, mineru)
    assert done.stdout.split() == ["slanet_plus", "PaddleOCR", "MinerUOCR", "False"], done.stderr


def test_mineru_is_left_alone_unless_asked(mineru: Path) -> None:
    done = python(SEEN, mineru, THREADSAFE_OCR_MINERU="0")
    assert done.stdout.startswith("MinerU's own | MinerU's own")


def test_a_version_without_a_place_for_it_is_told_when_it_is_imported(mineru: Path) -> None:
    done = python(PATCH + "import magic_pdf.model.sub_modules.model_init", mineru)
    assert done.returncode == 1
    assert "has no ModifiedPaddleOCR" in done.stderr.splitlines()[-1]


def test_doctor_says_what_it_would_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", {"mineru": "4.0.12", "magic-pdf": "1.1.0"}.get)
    monkeypatch.setenv("THREADSAFE_OCR_MODEL_DIR", str(MODELS))
    new, old = (finding.text for finding in doctor.mineru())
    assert "mineru 4.0.12 (tested): mineru.model.runtime.hybrid.atom_model_init" in new
    assert "never tested): magic_pdf.model.sub_modules.model_init.ModifiedPaddleOCR" in old
    assert "v4-mobile" in old


def test_what_is_called_tested_is_tested() -> None:
    root = Path(__file__).parents[2]
    guide, make = (root / "docs" / "migration.md").read_text(encoding="utf-8"), (root / "Makefile").read_text(encoding="utf-8")
    for package, versions in profiles.TESTED.items():
        assert f"{package} {', '.join(versions)}" in guide
        assert all(f"{package}=={version}" in make for version in versions)


def test_the_other_models_are_called_by_one_thread_at_a_time_where_documents_run_side_by_side() -> None:
    running, most = [0], [0]

    class Model:
        classes = 3

        def predict(self, depth: int) -> int:
            running[0] += 1
            most[0] = max(most[0], running[0])
            time.sleep(0.01)
            running[0] -= 1
            # A table's model asks the others.
            return concurrent.OneAtATime(self).predict(depth - 1) + 1 if depth else 0

    models = [concurrent.OneAtATime(Model()) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda model: model.predict(2), models)) == [2] * 4
    assert (most[0], models[0].classes) == (1, 3)
