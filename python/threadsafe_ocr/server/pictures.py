"""Pages as JPEG in base64, for whoever cannot show the file itself: of a PDF, or a TIFF in a browser."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from threadsafe_ocr.draw import photo

if TYPE_CHECKING:
    from PIL.Image import Image

# Pixels of the longer side: PaddleX's own limit for the pictures in an answer.
SIDE = 2000


def of(image: Any) -> Image:
    """What `aread` took, bytes or BGR pixels, as an upright picture in RGB, on white as the engine reads it."""
    from PIL import Image

    return photo(image) if isinstance(image, bytes) else Image.fromarray(image[:, :, ::-1])


def jpeg(picture: Image) -> str:
    """Base64; reduced where it is larger than SIDE."""
    picture = picture.convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()
