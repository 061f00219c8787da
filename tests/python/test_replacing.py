"""`install_as`, `THREADSAFE_OCR_AS` and the `.pth` behind it, each in an interpreter of its own: what is imported, and what it costs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from conftest import LINES, TEXT

READ = f"""
from rapidocr import RapidOCR
small = {{"Det.limit_side_len": 32, "Global.use_vertical_padding": False}}
print(RapidOCR(params=small)({str(LINES[0])!r}).txts[0])
"""
READ_AS_PADDLE = f"""
import paddleocr
from paddleocr import PaddleOCR
names = {{"text_detection_model_name": "PP-OCRv6_small_det", "text_recognition_model_name": "PP-OCRv6_small_rec"}}
(page,) = PaddleOCR(**names).ocr({str(LINES[0])!r}, cls=False)
print(paddleocr.__version__, page[0][1][0])
"""
# A real package of that name, which must not be imported.
REAL = "raise SystemExit('the real package was imported')"


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A folder with the packages that are replaced."""
    for name in ("paddleocr", "rapidocr"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(REAL)
    return tmp_path


def python(script: str, *, code: int = 0, **environment: object) -> tuple[str, str]:
    """What a script printed, and what it complained of."""
    given = {**os.environ, **{key: str(value) for key, value in environment.items()}}
    done = subprocess.run([sys.executable, "-c", script], env=given, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout.strip(), done.stderr


def test_install_as_comes_before_the_real_package(real: Path) -> None:
    printed, errors = python("import threadsafe_ocr; threadsafe_ocr.install_as('rapidocr')" + READ, PYTHONPATH=real)
    assert (printed.split()[0], errors) == (TEXT.split()[0], "")


def test_the_environment_replaces_it_without_a_change_of_code_in_children_too(real: Path) -> None:
    child = (
        f"import subprocess, sys; print(subprocess.run([sys.executable, '-c', {READ!r}], check=True, capture_output=True).stdout.decode())"
    )
    printed, errors = python(child, PYTHONPATH=real, THREADSAFE_OCR_AS="rapidocr")
    assert (printed.split()[0], errors) == (TEXT.split()[0], "")


def test_paddleocrs_stand_in_reads_and_has_the_version_that_it_stands_for(real: Path) -> None:
    child = (
        "import subprocess, sys; "
        f"print(subprocess.run([sys.executable, '-c', {READ_AS_PADDLE!r}], check=True, capture_output=True).stdout.decode())"
    )
    printed, errors = python(child, PYTHONPATH=real, THREADSAFE_OCR_AS="paddleocr")
    assert (printed, errors) == (f"3.7.0 {TEXT}", "")


def test_several_names_are_given_with_commas(real: Path) -> None:
    script = "import sys; print([bool(sys.meta_path[0].find_spec(name)) for name in ('paddleocr', 'rapidocr', 'json')])"
    assert python(script, PYTHONPATH=real, THREADSAFE_OCR_AS="paddleocr, rapidocr")[0] == "[True, True, False]"


def test_a_package_that_is_already_imported_stays_and_is_named(real: Path) -> None:
    (real / "rapidocr" / "__init__.py").write_text("ours = False")
    script = """
import sys, rapidocr, threadsafe_ocr
before = list(sys.meta_path)
try:
    threadsafe_ocr.install_as("rapidocr")
except ImportError as error:
    print(error)
print(rapidocr.ours, sys.meta_path == before)
"""
    message, state = python(script, PYTHONPATH=real)[0].splitlines()
    assert "rapidocr is already imported" in message
    assert str(real / "rapidocr" / "__init__.py") in message
    assert state == "False True"


def test_twice_is_as_good_as_once_and_another_name_an_error() -> None:
    script = """
import threadsafe_ocr
threadsafe_ocr.install_as("rapidocr")
import rapidocr
threadsafe_ocr.install_as("rapidocr")
from threadsafe_ocr.compat import rapidocr as ours
print(rapidocr is ours)
try:
    threadsafe_ocr.install_as("tesseract")
except ValueError as error:
    print(error)
"""
    same, message = python(script)[0].splitlines()
    assert same == "True"
    assert "paddleocr" in message
    assert "rapidocr" in message


def test_a_wrong_name_in_the_environment_is_told_and_the_interpreter_starts() -> None:
    printed, errors = python("print('started')", THREADSAFE_OCR_AS="tesseract")
    assert printed == "started"
    assert errors == "THREADSAFE_OCR_AS: install_as('tesseract'): it can be 'paddleocr' or 'rapidocr'\n"


def test_a_wrong_name_in_the_environment_costs_the_others_nothing() -> None:
    script = "import sys; print(bool(sys.meta_path[0].find_spec('rapidocr')))"
    assert python(script, THREADSAFE_OCR_AS="paddelocr,rapidocr")[0] == "True"


def test_nothing_of_the_package_is_imported_before_it_is_asked_for() -> None:
    script = "import sys; print([name for name in sys.modules if name.split('.')[0] in ('numpy', 'threadsafe_ocr')])"
    assert python(script, THREADSAFE_OCR_AS="rapidocr")[0] == "[]"


def test_an_interpreter_that_does_not_ask_pays_under_a_fifth_of_a_millisecond() -> None:
    places = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    (pth,) = (place / "threadsafe_ocr.pth" for place in places if (place / "threadsafe_ocr.pth").exists())
    line = pth.read_text()
    assert line.count("\n") == 1
    script = f"""
import site, timeit, shutil, tempfile
folder = tempfile.mkdtemp()
shutil.copy({str(pth)!r}, folder)
print(min(timeit.repeat(lambda: site.addpackage(folder, "threadsafe_ocr.pth", set()), number=20, repeat=20)) / 20)
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("THREADSAFE_OCR_")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=50, check=True)
    assert float(done.stdout) < 0.2e-3
