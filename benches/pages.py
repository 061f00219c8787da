"""Pages for the benches, made from the real ones in tests/data/pages: BGR arrays, as cv2 gives them."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
from PIL import Image

PAGES = Path(__file__).parents[1] / "tests" / "data" / "pages"
A4 = (1654, 2339)  # pixels at 200 dpi


def names() -> list[Path]:
    """Sixteen whole pages: prints in English and Chinese, scans, turned, skewed and photographed ones."""
    return sorted(path for folder in ("docs_en", "docs_zh", "derived", "scans_en") for path in (PAGES / folder).iterdir())


@functools.lru_cache
def page(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])


def pieces(width: int = 560, height: int = 320) -> list[np.ndarray]:
    """The middle of each of the sixteen pages."""

    def middle(whole: np.ndarray) -> np.ndarray:
        top, left = (max(0, (side - part) // 2) for side, part in zip(whole.shape, (height, width), strict=False))
        return whole[top : top + height, left : left + width]

    return [middle(page(path)) for path in names()]


def receipts() -> list[np.ndarray]:
    """Narrow columns of 20 to 40 lines."""
    columns = [("docs_zh/qyxf-book-doc-p003.png", 190), ("docs_zh/qyxf-book-doc-p014.png", 190), ("docs_en/tex-nutshell-p013.png", 200)]
    return [np.ascontiguousarray(page(PAGES / name)[150:1550, left : left + 420]) for name, left in columns]


def large(side: int) -> np.ndarray:
    """Four prints side by side, 150 lines or more; `side` pixels on the long side."""
    tiles = [page(path) for path in sorted((PAGES / "docs_zh").iterdir())]
    tiled = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
    return scaled(tiled, side / max(tiled.shape))


def sparse(width: int, height: int) -> np.ndarray:
    """A page of which three quarters are blank."""
    print_ = page(PAGES / "docs_en" / "tex-nutshell-p013.png")
    whole = scaled(print_, max(width / print_.shape[1], height / print_.shape[0]))[:height, :width].copy()
    for top in range(0, height, 400):
        whole[top + 100 : top + 400] = 255
    return whole


def scaled(array: np.ndarray, factor: float) -> np.ndarray:
    size = (round(array.shape[1] * factor), round(array.shape[0] * factor))
    return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BICUBIC))


def encoded(array: np.ndarray, kind: str) -> bytes:
    """A file of `kind` ("png", "jpeg")."""
    file = io.BytesIO()
    options = {"compress_level": 1} if kind == "png" else {"quality": 90}
    Image.fromarray(np.ascontiguousarray(array[..., ::-1])).save(file, kind, **options)
    return file.getvalue()
