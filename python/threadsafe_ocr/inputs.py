"""What can be read: path, bytes, file object, PIL image, ndarray -> what the core takes (str, bytes, uint8 ndarray)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from threadsafe_ocr.exceptions import InvalidImageError

if TYPE_CHECKING:
    from PIL.Image import Image


class Source(NamedTuple):
    """An input. Its size is told from `head` (a path, bytes, an array, or width and height), its content is what `load()` gives."""

    head: Any
    rgb: bool
    load: Callable[[], Any]


def source(value: Any, *, rgb: bool) -> Source:
    """What `value` is, unless it is told already; `rgb` is what the caller says of arrays.

    A file object is read here, since nothing else tells its size.
    """
    if isinstance(value, Source):
        return value
    # PIL is looked up, not imported: whoever has one of its images has imported it.
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(value, pil.Image):
        return Source(value.size, True, lambda: pil_pixels(value))
    if isinstance(value, os.PathLike):
        value = os.fsdecode(value)
    elif isinstance(value, (bytearray, memoryview)):
        # Their owner may write to them while the call waits.
        value = bytes(value)
    elif not isinstance(value, (np.ndarray, bytes)) and hasattr(value, "read"):
        content = value.read()
        if not isinstance(content, bytes):
            raise TypeError(f"the file object gave {type(content).__name__}, not bytes; open it in binary mode")
        value = content
    elif isinstance(value, tuple):
        raise TypeError("cannot read a tuple; give a path, bytes, a file object, a PIL image or a uint8 ndarray")
    return Source(value, rgb, lambda: value)


def pil_open(file: Any) -> Image:
    """PIL's view of a path or a binary file, whose pixels it has not read yet. Raises InvalidImageError."""
    from PIL import Image

    try:
        return Image.open(file)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidImageError(f"PIL cannot open this image: {error}; save it anew, as PNG or JPEG") from error


def pil_pixels(image: Image) -> npt.NDArray[np.uint8]:
    """RGB or RGBA pixels, upright."""
    from PIL import ImageOps

    try:
        # PIL reads a file only now, and says in many ways that it is broken.
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        raise InvalidImageError(f"PIL cannot load this image: {error}; save the image anew, as PNG or JPEG") from error
    # Broken EXIF never costs the page.
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    try:
        if image.mode.startswith("I;16"):
            return np.asarray(np.asarray(image) >> 8, np.uint8)
        if image.mode in ("I", "F"):
            pixels: npt.NDArray[Any] = np.asarray(image)
            # Older versions of PIL open a 16-bit PNG so.
            if image.mode == "I" and pixels.max(initial=0) > 255:
                pixels = pixels >> 8
            # Otherwise 32-bit values have no range of their own: what is beyond 0 to 255 is cut, as PIL's own conversion does.
            return np.asarray(np.clip(pixels, 0, 255), np.uint8)
        if image.mode == "La":
            image = image.convert("LA")
        transparent = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
        return np.asarray(image.convert("RGBA" if transparent else "RGB"))
    except (OSError, ValueError) as error:
        raise InvalidImageError(f"PIL cannot convert this image: {error}; save the image anew, as PNG or JPEG") from error
