"""MinerU 4 itself, in an environment of its own (`make test-mineru`): its own OCR class is the oracle, its own pipeline the host.

Its layout network cannot be had without its hub, so a stand-in says that every page is one block of text; its OCR networks are those of
v6-small here, on both sides.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comparing import (
    LINES,
    NAMES,
    PAGES,
    assert_formulas_are_cut_out_alike,
    assert_same,
    assert_same_blank_page,
    assert_same_bytes,
    assert_same_page,
    bgr,
    photo,
)
from threadsafe_ocr import model_sets
from threadsafe_ocr.compat.mineru.ocr import MinerUOCR


def networks() -> tuple[str, str]:
    return tuple(str(model_sets.part("v6-small", part) / "inference.onnx") for part in ("det", "rec"))  # type: ignore[return-value]


@pytest.fixture(scope="module", params=[True, False], ids=["joined", "apart"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, MinerUOCR]:
    """MinerU's and ours, as its pipeline makes them for text and for tables."""
    from mineru.model.ocr.pp_ocr_v6_onnx import PPOCRv6ONNX

    settings = {"enable_merge_det_boxes": request.param, "det_db_unclip_ratio": 1.5 if request.param else 1.6}
    return PPOCRv6ONNX(*networks(), **settings), MinerUOCR(models="v6-small", **settings)


@pytest.mark.parametrize("name", [*NAMES, "scans_en/huckleberry-finn-p029.jpg", "derived/first-latex-doc-p007_skew-12.png"])
def test_pages_are_read_as_in_mineru4(pair: tuple[Any, MinerUOCR], name: str) -> None:
    assert_same_page(*pair, name)


@pytest.mark.parametrize("degrees", [-5, 3])
@pytest.mark.parametrize("name", NAMES[2:])
def test_slanted_lines_are_cut_out_as_in_mineru4(pair: tuple[Any, MinerUOCR], name: str, degrees: int) -> None:
    theirs, ours = pair
    with Image.open(PAGES / name) as upright:
        turned = upright.convert("RGB").rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor="white")
    page = np.ascontiguousarray(np.asarray(turned)[:, :, ::-1])
    wanted = theirs.ocr(page)
    assert any(box[0][1] != box[1][1] for box, _ in wanted[0])
    assert_same(ours.ocr(page), wanted)


def test_formulas_are_cut_out_of_lines_as_in_mineru4(pair: tuple[Any, MinerUOCR]) -> None:
    assert_formulas_are_cut_out_alike(*pair)


def test_the_detector_alone_gives_boxes_as_they_are_found(pair: tuple[Any, MinerUOCR]) -> None:
    theirs, ours = pair
    pages = [bgr(PAGES / NAMES[2]), np.full((60, 80, 3), 255, np.uint8), bgr(PAGES / NAMES[3])[::2, ::2], np.zeros((0, 5, 3), np.uint8)]
    wanted, got = theirs.text_detector.batch_predict(pages, max_batch_size=2), ours.text_detector.batch_predict(pages, max_batch_size=2)
    assert [None if boxes is None else (boxes.dtype, boxes.shape) for boxes, _ in got] == [
        None if boxes is None else (boxes.dtype, boxes.shape) for boxes, _ in wanted
    ]
    assert [None if boxes is None else boxes.tolist() for boxes, _ in got] == [
        None if boxes is None else boxes.tolist() for boxes, _ in wanted
    ]


def test_bytes_are_decoded_as_in_mineru4(pair: tuple[Any, MinerUOCR]) -> None:
    from mineru.model.ocr.image import check_img

    assert pair[1].ocr(photo()) == pair[1].ocr(check_img(photo()))
    assert_same_bytes(*pair)


def test_lines_by_themselves_read_as_in_mineru4(pair: tuple[Any, MinerUOCR]) -> None:
    theirs, ours = pair
    lines = [bgr(path) for path in LINES]
    assert_same(ours.ocr(lines, det=False), theirs.ocr(lines, det=False))
    assert_same(ours.ocr(lines[0], det=False), theirs.ocr(lines[0], det=False))


@pytest.mark.parametrize("keywords", [{}, {"rec": False}, {"det": False}])
def test_a_blank_page_has_mineru4s_shape(pair: tuple[Any, MinerUOCR], keywords: dict[str, bool]) -> None:
    assert_same_blank_page(*pair, **keywords)


def test_signatures_and_progress_are_as_mineru_asks_for_them(pair: tuple[Any, MinerUOCR]) -> None:
    theirs, ours = pair
    for name in ("batch_predict", "__call__"):
        wanted = inspect.signature(getattr(theirs.text_detector, name)).parameters
        assert list(wanted) == list(inspect.signature(getattr(ours.text_detector, name)).parameters)

    class Bar:
        done = 0

        def update(self, count: int) -> None:
            self.done += count

    bar = Bar()
    ours.ocr([bgr(path) for path in LINES[:3]], det=False, tqdm_enable=True, tqdm_progress_bar=bar)
    ours.text_detector.batch_predict([bgr(LINES[0])], tqdm_progress_bar=bar)
    assert bar.done == 4


HOST = """
import contextlib, io, json, os, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from PIL import Image
from loguru import logger; logger.remove()


class Layout:
    def batch_predict(self, images, batch_size=1, **_):
        sizes = [image.size if hasattr(image, "size") and not isinstance(image, np.ndarray) else image.shape[1::-1] for image in images]
        return [[{"cls_id": 22, "label": "text", "score": 0.99, "bbox": [20, 20, w - 20, h - 20], "index": 1}] for w, h in sizes]


def stand_in_for_layout():
    import mineru.model.runtime.hybrid as hybrid
    original = hybrid.atom_model_init
    def atom_model_init(model_name, **keywords):
        return Layout() if model_name == "layout" else original(model_name=model_name, **keywords)
    hybrid.atom_model_init = atom_model_init
    return hybrid


def document(path):
    content = io.BytesIO()
    Image.open(path).convert("RGB").save(content, "PDF", resolution=150)
    return content.getvalue()


def read(content):
    from mineru.backend.analysis.pdf.pipeline import analyze_pdf
    return json.dumps(analyze_pdf(content, effort="medium", parse_mode="ocr").model_list, default=str)
"""


def host(script: str, **environment: str) -> Any:
    """What a script printed last, as JSON; it runs as the main module, since MinerU renders in processes that it spawns.

    Model sets are those of the package alone, so both sides have the same networks.
    """
    program = HOST + "\n\ndef main():\n" + textwrap.indent(textwrap.dedent(script), "    ") + "\n\nif __name__ == '__main__':\n    main()\n"
    folder = environment.pop("folder")
    path = Path(folder) / "host.py"
    path.write_text(program)
    done = subprocess.run(
        [sys.executable, path, *(str(PAGES / name) for name in NAMES)],
        env={**os.environ, "MINERU_MODEL_SMALL_BACKEND": "onnx", "THREADSAFE_OCR_CACHE": folder, **environment},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_a_document_is_read_through_mineru4_when_the_environment_says_so(tmp_path: Path) -> None:
    found = host(
        """
        stand_in_for_layout()                                       # patches what was patched: ours is called for the rest
        text = read(document(sys.argv[4]))
        from mineru.model.runtime.hybrid import AtomModelSingleton
        kinds = sorted({type(model).__name__ for model in AtomModelSingleton._models.values()})
        print(json.dumps([kinds, "quick" in text]))
        """,
        THREADSAFE_OCR_MINERU="1",
        folder=str(tmp_path),
    )
    assert found == [["Layout", "MinerUOCR"], True]


def test_objects_made_before_the_patch_are_forgotten(tmp_path: Path) -> None:
    found = host(
        """
        hybrid = stand_in_for_layout()
        hybrid.AtomModelSingleton._models["old"] = object()
        import threadsafe_ocr
        threadsafe_ocr.patch_mineru()
        before = list(hybrid.AtomModelSingleton._models)
        read(document(sys.argv[4]))
        print(json.dumps([before, sorted({type(model).__name__ for model in hybrid.AtomModelSingleton._models.values()})]))
        """,
        folder=str(tmp_path),
    )
    assert found == [[], ["Layout", "MinerUOCR"]]


CONCURRENT = """
        stand_in_for_layout()
        {patch}
        from threadsafe_ocr.compat.mineru import ocr
        running, most, lock = [0], [0], threading.Lock()
        def counted(call):
            def wrapper(*arguments, **keywords):
                with lock:
                    running[0] += 1
                    most[0] = max(most[0], running[0])
                try:
                    return call(*arguments, **keywords)
                finally:
                    with lock:
                        running[0] -= 1
            return wrapper
        {count}
        documents = [document(path) for path in sys.argv[1:]]
        read(documents[3])
        begun = time.perf_counter()
        alone = [read(content) for content in documents]
        one_at_a_time = time.perf_counter() - begun
        most[0] = 0
        begun = time.perf_counter()
        with ThreadPoolExecutor(len(documents)) as pool:
            together = list(pool.map(read, documents))
        print(json.dumps([most[0], together == alone, one_at_a_time, time.perf_counter() - begun]))
"""
OURS = "ocr.TextDetector.batch_predict = counted(ocr.TextDetector.batch_predict); ocr.MinerUOCR.ocr = counted(ocr.MinerUOCR.ocr)"
STOCK = """
import mineru.model.ocr.pp_ocr_v6_onnx as stock
        stock.TextDetectorONNX.batch_predict = counted(stock.TextDetectorONNX.batch_predict)
        stock.PPOCRv6ONNX.ocr = counted(stock.PPOCRv6ONNX.ocr)
        import mineru.model.runtime.hybrid as hybrid
        around = hybrid.atom_model_init
        from threadsafe_ocr import model_sets
        files = [str(model_sets.part("v6-small", part) / "inference.onnx") for part in ("det", "rec")]
        names = ("det_db_box_thresh", "det_db_unclip_ratio", "enable_merge_det_boxes")
        hybrid.atom_model_init = lambda model_name, **k: (
            stock.PPOCRv6ONNX(*files, **{n: k[n] for n in names if n in k}) if model_name == "ocr" else around(model_name=model_name, **k))
""".strip()


def test_documents_run_side_by_side_with_the_opt_in_and_read_the_same(tmp_path: Path, record_property: Any) -> None:
    script = CONCURRENT.format(patch="import threadsafe_ocr; threadsafe_ocr.patch_mineru()", count=OURS)
    most, same, alone, together = host(script, THREADSAFE_OCR_MINERU_CONCURRENT="1", folder=str(tmp_path))
    assert most > 1
    assert same
    stock_most, stock_same, stock_alone, stock_together = host(CONCURRENT.format(patch="", count=STOCK), folder=str(tmp_path))
    assert (stock_most, stock_same) == (1, True)
    print(f"4 documents in 4 threads: {together:.1f} s, one at a time {alone:.1f} s; stock {stock_together:.1f} s, {stock_alone:.1f} s")
    assert stock_together / together >= 1.5
