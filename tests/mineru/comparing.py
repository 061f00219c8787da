"""What the tests of all generations share: pages, and what counts as the same answer."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from threadsafe_ocr import _core

PAGES = Path(__file__).parents[1] / "data" / "pages"
NAMES = ["docs_zh/qyxf-book-doc-p003.png", "derived/qyxf-book-doc-p011_skew7.png", "scans_en/table_img2table.png", "scans_en/eurotext.png"]
LINES = sorted((PAGES / "rec_lines").glob("*.png"))
# With AMX recognition's products have 16 bits.
TOLERANCE = 5e-4 if _core.has_matrix_unit() else 1e-4


def bgr(path: Path) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(Image.open(path).convert("RGB"))[:, :, ::-1])


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    """Equal boxes, equal texts, scores within TOLERANCE, the same kinds of containers."""
    assert json.dumps(_without_scores(ours)) == json.dumps(_without_scores(theirs))
    assert np.allclose(scores(ours), scores(theirs), atol=TOLERANCE)


def assert_same_page(theirs: Any, ours: Any, name: str) -> None:
    """Read, and only detected on."""
    page = bgr(PAGES / name)
    assert_same(ours.ocr(page), theirs.ocr(page))
    assert_same(ours.ocr(page, rec=False), theirs.ocr(page, rec=False))


def assert_same_blank_page(theirs: Any, ours: Any, **keywords: bool) -> None:
    page = np.full((64, 320, 3), 255, np.uint8)
    assert_same(ours.ocr(page, **keywords), theirs.ocr(page, **keywords))


def assert_formulas_are_cut_out_alike(theirs: Any, ours: Any) -> None:
    """A formula in the middle third of a line."""
    page = bgr(PAGES / NAMES[3])
    (left, top), _, (right, bottom), _ = theirs.ocr(page, rec=False)[0][2]
    third = int((right - left) / 3)
    formulas = [{"bbox": [int(left) + third, int(top), int(right) - third, int(bottom)]}]
    wanted = theirs.ocr(page, rec=False, mfd_res=formulas)
    assert wanted != theirs.ocr(page, rec=False)
    assert_same(ours.ocr(page, rec=False, mfd_res=formulas), wanted)


def photo() -> bytes:
    """A page whose EXIF says that it lies upside down."""
    content, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 3
    with Image.open(PAGES / NAMES[2]) as page:
        page.convert("RGB").save(content, "JPEG", exif=exif)
    return content.getvalue()


def assert_same_bytes(theirs: Any, ours: Any) -> None:
    answer = ours.ocr(photo())
    assert_same(answer, theirs.ocr(photo()))
    assert any(text == "Title" for _, (text, _) in answer[0])


def _without_scores(value: Any) -> Any:
    if isinstance(value, tuple):
        return ["text", value[0]]
    return [_without_scores(one) for one in value] if isinstance(value, list) else value


def scores(value: Any) -> list[float]:
    if isinstance(value, tuple):
        return [value[1]]
    return [score for one in value for score in scores(one)] if isinstance(value, list) else []
