"""Pictures of what was read: boxes over the page, the text beside it. Needs Pillow: `pip install "threadsafe-ocr[draw]"`."""

from __future__ import annotations

import colorsys
import html
import importlib.util
import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from threadsafe_ocr.exceptions import ConfigError
from threadsafe_ocr.inputs import pil_open, pil_pixels

if TYPE_CHECKING:
    from PIL import Image, ImageFont

    from threadsafe_ocr.result import OcrResult, TextLine

INSTALL = 'pip install "threadsafe-ocr[draw]"'
# WenQuanYi Micro Hei (Apache-2.0), which comes with the extra, and what systems have; Pillow looks for these names where fonts are.
PACKAGE, FILE = "paperang_p2_fonts_cjk", "fonts/wqy-microhei.ttc"
SYSTEM = (
    "NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "SourceHanSansSC-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "STHeiti Light.ttc", "msyh.ttc", "simhei.ttf", "simsun.ttc",
)  # fmt: skip
# Of a line's height; the rest is the box's margin.
TEXT_HEIGHT = 0.8


def draw(page: OcrResult, image: Any = None, font: str | os.PathLike[str] | None = None) -> Image.Image:
    """The picture: page and retyped page side by side, or, without an image, boxes and text on white.

    Raises ConfigError without Pillow, or when the image is of another size than the page; InvalidImageError when Pillow cannot open it.
    """
    require_pillow()
    from PIL import Image, ImageDraw

    size = (page.width, page.height)
    typed = Image.new("RGB", size, "white")
    panels = [typed]
    if image is not None:
        beside = photo(image)
        if beside.size != size:
            raise ConfigError(f"the image's size is {beside.size}, that of the page that was read {size}: give the same one")
        panels = [beside, typed]
    path = font or find_font()
    for number, line in enumerate(page.lines, 1):
        colour = _colour(number)
        for panel in panels:
            outline = [(float(x), float(y)) for x, y in line.polygon]
            ImageDraw.Draw(panel).line([*outline, outline[0]], fill=colour, width=2)
        if path or _is_latin(line.text):
            _type(typed, line, line.text, path, "black")
        else:
            for panel in panels:
                _type(panel, line, str(number), None, colour)
    picture = Image.new("RGB", (sum(panel.width for panel in panels), page.height), "white")
    for index, panel in enumerate(panels):
        picture.paste(panel, (index * page.width, 0))
    return picture


def require_pillow() -> None:
    """Raises ConfigError where Pillow is missing."""
    if importlib.util.find_spec("PIL") is None:
        raise ConfigError(f"drawing needs Pillow, which is not installed: {INSTALL}")


def find_font() -> str | None:
    """A font file with Chinese, Japanese and Korean: the extra's, else the system's."""
    from PIL import ImageFont

    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    for name in (*(str(Path(place) / FILE) for place in places), *SYSTEM):
        try:
            return str(ImageFont.truetype(name).path)
        except OSError:
            continue
    return None


def note() -> str | None:
    """What a picture will lack; None where nothing. Raises ConfigError where there is no Pillow."""
    require_pillow()
    if find_font():
        return None
    return f"no font with Chinese characters was found: such lines are drawn as their numbers; {INSTALL} brings one"


def to_svg(page: OcrResult) -> str:
    """Boxes and text as an SVG, for notebooks; the browser has the fonts."""
    rows = []
    for number, line in enumerate(page.lines, 1):
        points = " ".join(f"{x:.0f},{y:.0f}" for x, y in line.polygon)
        (x, y), angle, width, height = _place(line)
        rows.append(
            f"<g><title>{number}: {line.score:.3f}</title>"
            f'<polygon points="{points}" fill="none" stroke="rgb{_colour(number)}"/>'
            f'<text transform="translate({x:.1f} {y:.1f}) rotate({math.degrees(angle):.1f})" '
            f'y="{height * TEXT_HEIGHT:.1f}" font-size="{height * TEXT_HEIGHT:.1f}" textLength="{width:.1f}" '
            f'lengthAdjust="spacingAndGlyphs">{html.escape(line.text)}</text></g>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {page.width} {page.height}" width="{min(page.width, 900)}" '
        f'style="background:white;font-family:sans-serif">{"".join(rows)}</svg>'
    )


def photo(image: Any) -> Image.Image:
    """Whatever `read` takes, upright, on white, as RGB."""
    from PIL import Image

    if isinstance(image, np.ndarray):
        pixels = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
        if pixels.ndim == 3:
            pixels = np.concatenate([pixels[:, :, 2::-1], pixels[:, :, 3:]], axis=2)
        opened = Image.fromarray(np.ascontiguousarray(pixels))
    elif isinstance(image, Image.Image):
        opened = image
    else:
        if isinstance(image, (str, os.PathLike)):
            image = Path(image).read_bytes()
        opened = pil_open(image if hasattr(image, "read") else io.BytesIO(image))
    opened = Image.fromarray(pil_pixels(opened))
    if opened.mode == "RGBA":
        opened = Image.alpha_composite(Image.new("RGBA", opened.size, "white"), opened)
    return opened.convert("RGB")


def _place(line: TextLine) -> tuple[tuple[float, float], float, float, float]:
    """Where the text begins, its angle, width and height: tall lines were turned left to be read, upside-down ones half round."""
    corners = [(float(x), float(y)) for x, y in line.polygon]
    tall = math.dist(corners[0], corners[3]) >= 1.5 * math.dist(corners[0], corners[1])
    first = tall + 2 * bool(line.upside_down)
    a, b, c = (corners[(first + i) % 4] for i in range(3))
    return a, math.atan2(b[1] - a[1], b[0] - a[0]), math.dist(a, b), math.dist(b, c)


def _type(panel: Image.Image, line: TextLine, text: str, font: str | os.PathLike[str] | None, colour: Any) -> None:
    """Types a text into its line, along the line's direction, as large as it fits."""
    from PIL import Image, ImageDraw

    (x, y), angle, width, height = _place(line)
    if not text or width < 1 or height < 1:
        return
    chosen = _sized(font, text, width, height)
    strip = Image.new("L", (math.ceil(width), math.ceil(height)))
    ImageDraw.Draw(strip).text((0, height / 2), text, fill=255, font=chosen, anchor="lm")
    xs, ys = zip(*line.polygon.tolist(), strict=True)
    left, top = math.floor(min(xs)), math.floor(min(ys))
    box = (math.ceil(max(xs)) - left + 1, math.ceil(max(ys)) - top + 1)
    # From the picture's pixels back to the strip's.
    cos, sin = math.cos(angle), math.sin(angle)
    dx, dy = left - x, top - y
    back = (cos, sin, cos * dx + sin * dy, -sin, cos, -sin * dx + cos * dy)
    mask = strip.transform(box, Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)
    panel.paste(colour, (left, top), mask)


def _sized(font: str | os.PathLike[str] | None, text: str, width: float, height: float) -> Any:
    size = max(height * TEXT_HEIGHT, 4.0)
    wide = load_font(font, size).getlength(text)
    return load_font(font, max(size * min(width / wide, 1.0), 4.0) if wide else size)


def load_font(path: str | os.PathLike[str] | None, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def _is_latin(text: str) -> bool:
    """Whether Pillow's own font has it."""
    return all(ord(character) < 0x250 for character in text)


def _colour(number: int) -> tuple[int, int, int]:
    """Neighbours differ: the golden angle goes round the colours."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618 % 1, 0.9, 0.75)
    return int(red * 255), int(green * 255), int(blue * 255)
