"""The class `RapidOCR`."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from threadsafe_ocr.compat import paddle_images
from threadsafe_ocr.compat.rapidocr import settings, words
from threadsafe_ocr.compat.rapidocr.output import (
    DIGITS,
    Pixels,
    RapidOCROutput,
    TextClsOutput,
    TextDetOutput,
    TextRecOutput,
    VisRes,
    bgr,
)
from threadsafe_ocr.exceptions import ImageFileError, InvalidImageError
from threadsafe_ocr.ocr import ThreadSafeOCR
from threadsafe_ocr.result import TextLine

# EXIF's tag.
ORIENTATION = 274


class LoadImageError(InvalidImageError):
    """The image cannot be read; the message says why."""


class RapidOCR:
    """`rapidocr.RapidOCR` 3.10 on `ThreadSafeOCR`: the same arguments, texts and boxes, from any number of threads on one object.

    config_path: a YAML file of RapidOCR's keys. params: dotted keys, {"Global.text_score": 0.6, "Rec.ocr_version": OCRVersion.PPOCRV5}.
    Options of a call hold for that call only. `engine` is the ThreadSafeOCR below, whose `submit` and `aread` read at the same settings.

    Raises ConfigError (a ValueError), ModelNotFoundError, and what ThreadSafeOCR raises.

    >>> from threadsafe_ocr.compat.rapidocr import RapidOCR
    >>> result = RapidOCR(params={"Global.text_score": 0.6})("page.png")
    >>> result.txts, result.boxes.shape
    (('Hello, world', 'Total: 42.50'), (2, 4, 2))
    """

    def __init__(self, config_path: str | os.PathLike[str] | None = None, params: dict[str, Any] | None = None) -> None:
        self.cfg = settings.load(config_path, params)
        models, device, options = settings.native(self.cfg)
        self.engine = ThreadSafeOCR(models, device=device, **options)

    def __call__(
        self,
        img_content: Any,
        use_det: bool | None = None,
        use_cls: bool | None = None,
        use_rec: bool | None = None,
        return_word_box: bool | None = None,
        return_single_char_box: bool | None = None,
        text_score: float | None = None,
        box_thresh: float | None = None,
        unclip_ratio: float | None = None,
    ) -> RapidOCROutput | TextDetOutput | TextClsOutput | TextRecOutput:
        """Reads an image: a path, bytes, a PIL image, or a uint8 array HxW, HxWx1, HxWx2 (gray and alpha), HxWx3 (BGR), HxWx4 (RGBA).

        None: as constructed. Without detection the image is a line, without recognition the boxes are answered, with orientation alone the
        image's label. Safe from any thread; the GIL is released while it is read.

        Raises LoadImageError, InferenceError, EngineClosedError.
        """
        begun = time.perf_counter()
        det, cls, rec, with_words, characters = (
            self._default(key) if given is None else given
            for key, given in (
                ("use_det", use_det),
                ("use_cls", use_cls),
                ("use_rec", use_rec),
                ("return_word_box", return_word_box),
                ("return_single_char_box", return_single_char_box),
            )
        )
        call = {"rec_score_thresh": text_score, "det_box_thresh": box_thresh, "det_unclip_ratio": unclip_ratio}
        options: dict[str, Any] = {key: value for key, value in call.items() if value is not None}
        if not (det or rec):
            # Looked for only where it is the answer.
            return self._classify(img_content, begun) if cls else RapidOCROutput()
        options["use_textline_orientation"] = bool(cls and rec)
        try:
            image = _prepared(img_content)
            if not det:
                (line,) = self.engine.recognize([image], **options)  # type: ignore[misc]
                return TextRecOutput([image], (line.text,), (round(line.score, DIGITS),), (None,), _since(begun), self._viser())
            lines = list((self.engine.read if rec else self.engine.detect)(image, **options).lines)
        except (InvalidImageError, ImageFileError, TypeError) as error:
            raise LoadImageError(str(error)) from error
        if not rec:
            boxes = _boxes(lines)
            if boxes is None:
                return RapidOCROutput()
            return TextDetOutput(image, boxes, [line.score for line in lines], _since(begun))
        lines = [line for line in lines if line.text.strip()]
        if not lines:
            return RapidOCROutput()
        return RapidOCROutput(
            img=image,
            boxes=_boxes(lines),
            txts=tuple(line.text for line in lines),
            scores=tuple(round(line.score, DIGITS) for line in lines),
            word_results=tuple(words.of(line, characters=characters) for line in lines) if with_words else (),
            elapse_list=[_since(begun), 0.0, 0.0],
            viser=self._viser(),
        )

    def close(self, cancel: bool = False) -> None:
        """Ends the object, as `ThreadSafeOCR.close`."""
        self.engine.close(cancel)

    def _default(self, key: str) -> Any:
        return self.cfg["Global"][key]

    def _viser(self) -> VisRes:
        return VisRes(self._default("text_score"), self.cfg["Rec"]["lang_type"], self._default("font_path"))

    def _classify(self, img_content: Any, begun: float) -> TextClsOutput:
        try:
            image = _prepared(img_content)
            (((label, score),),) = self.engine.ocr([image], det=False, rec=False)
        except (InvalidImageError, ImageFileError, TypeError) as error:
            raise LoadImageError(str(error)) from error
        upright = bgr(image)
        if label == "180" and score > self.cfg["Cls"]["cls_thresh"]:
            upright = np.ascontiguousarray(upright[::-1, ::-1])
        return TextClsOutput([upright], [(label, score)], _since(begun))


def _since(begun: float) -> float:
    return time.perf_counter() - begun


def _boxes(lines: list[TextLine]) -> Any:
    return np.array([line.polygon for line in lines], np.float32) if lines else None


def _prepared(image: Any) -> Any:
    """What RapidOCR makes of an array with alpha: gray on white, colours on whichever of black and white is further from them.

    Files are turned as their EXIF says, bytes and PIL images are not.
    """
    if isinstance(image, bytes):
        # Decoded when it has its permit.
        return paddle_images.as_given(image, lambda pixels: _prepared(_rgba(pixels)), color=False)
    if (pil := sys.modules.get("PIL.Image")) and isinstance(image, pil.Image) and image.getexif().get(ORIENTATION, 1) != 1:
        return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] not in (2, 4) or image.dtype != np.uint8:
        return image
    alpha = image[:, :, -1:]
    if image.shape[2] == 2:
        gray: Pixels = np.where(alpha > 0, np.minimum(image[:, :, :1].astype(np.uint16) + (255 - alpha), 255), 255 - alpha)
        return np.ascontiguousarray(gray.astype(np.uint8))
    colours, opaque = image[:, :, :3], image[alpha[:, :, 0] > 0]
    # Rec. 601's weights; an array without any opaque pixel is white.
    light = float(opaque[:, :3].mean(axis=0) @ (0.299, 0.587, 0.114)) if len(opaque) else 0.0
    ground = np.float32(255 if light < 128 else 0)
    share = alpha.astype(np.float32) / 255
    blended = (colours.astype(np.float32) * share + ground * (1 - share)).astype(np.uint8)
    return np.ascontiguousarray(blended[:, :, ::-1])


def _rgba(pixels: Pixels) -> Pixels:
    """BGRA as RapidOCR has it; gray and BGR as they are."""
    return pixels[:, :, [2, 1, 0, 3]] if pixels.ndim == 3 and pixels.shape[2] == 4 else pixels
