"""What PaddleOCR 3.x's `predict` answers: a dict that prints, draws and saves itself."""

from __future__ import annotations

import json
import mimetypes
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from threadsafe_ocr import draw
from threadsafe_ocr.result import OcrResult, TextLine

if TYPE_CHECKING:
    from PIL import Image

# In the class `str` is a property.
_Text = str
_Plain = dict[str, Any]

# The keys of `json` and `str`, in 3.x's order; those that are not there are left out.
_SHOWN = (
    "input_path", "page_index", "model_settings", "doc_preprocessor_res", "dt_polys", "text_det_params", "text_type",
    "textline_orientation_angles", "text_rec_score_thresh", "return_word_box", "rec_texts", "rec_scores", "rec_polys", "rec_boxes",
    "text_word_boxes", "text_word",
)  # fmt: skip
_AS_ARRAYS = ("dt_polys", "textline_orientation_angles", "rec_scores", "rec_polys", "rec_boxes")
# Pixels: the strip below the pictures of a page that was turned.
_CAPTION = 25


class _Result(dict[str, Any]):
    """Prints, draws and saves itself. Safe to read from any thread."""

    _keys: ClassVar[tuple[_Text, ...]]

    @property
    def json(self) -> dict[_Text, _Plain]:
        """{"res": ...} of plain Python values."""
        return {"res": _plain(self._shown())}

    @property
    def str(self) -> dict[_Text, _Plain]:
        """{"res": ...} with coordinates and scores as arrays."""
        return {"res": {key: np.array(value) if key in _AS_ARRAYS else value for key, value in self._shown().items()}}

    def print(self, json_format: bool = False, indent: int = 4, ensure_ascii: bool = False) -> None:
        """Prints it to standard error, where 3.x's log goes; arrays shortened unless json_format."""
        text = json.dumps(self.json, indent=indent, ensure_ascii=ensure_ascii) if json_format else _short(self.str)
        print(text, file=sys.stderr)

    @property
    def img(self) -> dict[_Text, Image.Image]:
        """Pictures by name. Raises ConfigError without Pillow."""
        raise NotImplementedError

    def save_to_img(self, save_path: Any) -> None:
        """Into `save_path` if that is an image's name, the first of its pictures, else into that folder, each as NAME_KEY.SUFFIX."""
        pictures = self.img
        if _is(Path(save_path).name, "image/"):
            pictures = dict([next(iter(pictures.items()))])
        for key, picture in pictures.items():
            suffix = Path(self._name()).suffix if _is(self._name(), "image/") else ".png"
            picture.save(self._target(save_path, "image/", f"_{key}{suffix}"))

    def save_to_json(self, save_path: Any, indent: int = 4, ensure_ascii: bool = False) -> None:
        """Into `save_path` if that is a JSON file's name, else into that folder as NAME_res.json."""
        content = json.dumps(self.json["res"], indent=indent, ensure_ascii=ensure_ascii)
        self._target(save_path, "application/json", "_res.json").write_text(content, encoding="utf-8")

    def save_all(self, save_path: Any) -> None:
        """All of it into a folder."""
        self.save_to_json(save_path)
        self.save_to_img(save_path)

    def _shown(self) -> _Plain:
        return {key: self[key] for key in self._keys if key in self}

    def _name(self) -> _Text:
        """The input's file name, with the page's number; of an array the time and a random number, the same for all that is saved."""
        path, page = self["input_path"], self["page_index"]
        if path is None:
            made_up: _Text = self.__dict__.setdefault("_made_up", f"{int(time.time())}_{random.randint(1000, 9999)}")
            return made_up
        name = Path(path)
        return name.name if page is None else f"{name.stem}_{page}{name.suffix}"

    def _target(self, save_path: Any, kind: _Text, ending: _Text) -> Path:
        path = Path(save_path)
        if not _is(path.name, kind):
            path = path / f"{Path(self._name()).stem}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class DocPreprocessorResult(_Result):
    """How a page was turned upright: `input_img` is as it was given, `output_img` upright; `angle`: degrees it was turned clockwise."""

    _keys = ("input_path", "page_index", "model_settings", "angle")

    @property
    def img(self) -> dict[_Text, Image.Image]:
        """{"preprocessed_img": the page as it was given and upright, side by side}. Raises ConfigError without Pillow."""
        draw.require_pillow()
        from PIL import Image, ImageDraw

        steps = self["model_settings"]
        names = {
            "input_img": "Original Image",
            "rot_img": f"Rotated Image ({steps['use_doc_orientation_classify']}, {self['angle']})",
            "output_img": f"Unwarping Image ({steps['use_doc_unwarping']})",
        }
        photos = [draw.photo(self[key]) for key in names]
        height = max(photo.height for photo in photos)
        picture = Image.new("RGB", (sum(photo.width for photo in photos), height + _CAPTION), "white")
        left = 0
        for photo, name in zip(photos, names.values(), strict=True):
            picture.paste(photo, (left, 0))
            ImageDraw.Draw(picture).text((left + 10, height + 2), name, fill="black")
            left += photo.width
        return {"preprocessed_img": picture}


class OCRResult(_Result):
    """A page as 3.x has it; the keys are those of 3.7.

    Coordinates are int16 arrays: dt_polys and rec_polys lists of (4, 2), rec_boxes (n, 4); dt_polys has every line found, the rec_ keys
    those that were kept.
    """

    _keys = _SHOWN

    @property
    def img(self) -> dict[_Text, Image.Image]:
        """{"ocr_res_img": the page with its boxes, the text beside it}, and how it was turned. Raises ConfigError without Pillow."""
        pixels = self["doc_preprocessor_res"]["output_img"]
        height, width = pixels.shape[:2]
        words = [(text, box) for texts, boxes in self._words() for text, box in zip(texts, boxes, strict=False)]
        boxes = words or list(zip(self["rec_texts"], self["rec_polys"], strict=True))
        lines = tuple(TextLine(text, 1.0, np.asarray(box, np.float32)) for text, box in boxes)
        turned = self["doc_preprocessor_res"].img if self["model_settings"]["use_doc_preprocessor"] else {}
        return {"ocr_res_img": draw.draw(OcrResult(lines, width, height), pixels), **turned}

    def _shown(self) -> _Plain:
        shown = super()._shown()
        if self["model_settings"]["use_doc_preprocessor"]:
            shown["doc_preprocessor_res"] = self["doc_preprocessor_res"]._shown()
        else:
            del shown["doc_preprocessor_res"]
        return shown

    def _words(self) -> list[tuple[Any, Any]]:
        return list(zip(self.get("text_word", ()), self.get("text_word_region", ()), strict=True))


def _is(name: str, kind: str) -> bool:
    return (mimetypes.guess_type(name)[0] or "").startswith(kind)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _short(value: Any) -> str:
    """A repr with arrays cut to their ends; numpy's own setting for that is the whole process's."""
    if isinstance(value, np.ndarray):
        return f"array({np.array2string(value, threshold=1, edgeitems=1, separator=', ', prefix='array(')}, shape={value.shape})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_short(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list) and any(isinstance(item, np.ndarray) for item in value):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    return repr(value)
