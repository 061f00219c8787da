"""PaddleOCR 2.x's calls and lists."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from threadsafe_ocr import _core, waiting
from threadsafe_ocr.compat import paddle2_slices, paddle_images, paddle_options
from threadsafe_ocr.compat.paddle_images import Pixels
from threadsafe_ocr.exceptions import InvalidArgumentError, ModelNotFoundError
from threadsafe_ocr.inputs import Source
from threadsafe_ocr.ocr import ThreadSafeOCR
from threadsafe_ocr.result import OcrResult, from_raw

Box = npt.NDArray[np.float32]
WHITE = (255, 255, 255)


class Paddle2:
    """One engine as 2.x. Nothing is kept between calls, so all of it may be called from any thread.

    options: the engine's; its use_textline_orientation is 2.x's use_angle_cls. flat: a list of crops is answered as one list, as 2.8 and
    later do, not as a list each.
    """

    def __init__(
        self,
        engine: ThreadSafeOCR,
        options: dict[str, Any],
        *,
        page_num: int,
        max_pixels: int | None,
        flat: bool,
        none_for_empty: bool,
        allow_urls: bool,
    ) -> None:
        self.engine = engine
        self.options = options
        self._page_num = page_num
        self._max_pixels = max_pixels
        self._flat = flat
        self._none_for_empty = none_for_empty
        self._allow_urls = allow_urls

    def ocr(
        self,
        img: Any,
        det: bool = True,
        rec: bool = True,
        cls: bool = True,
        bin: bool = False,
        inv: bool = False,
        alpha_color: tuple[int, int, int] = WHITE,
        slice: dict[str, int] | None = None,
        **options: Any,
    ) -> list[Any]:
        """See `threadsafe_ocr.compat.paddle.PaddleOCR.ocr`."""

        def prepared(pixels: Pixels) -> Pixels:
            return _prepared(pixels, binarize=bin, invert=inv, alpha_color=alpha_color)

        pages = self._pages(img, prepared)
        if det and slice and rec:
            return [self._lists(*self._read_slices(page, cls, slice, options)) for page in pages]
        if det and rec:
            return [self._lists(*_lines(page)) for page in self._read_ahead(pages, options, cls=cls)]
        if det:
            return [_boxes(page).tolist() or self._nothing() for page in self._read_ahead(pages, options, cls=False, recognize=False)]
        groups = [list(pages)] if isinstance(img, list) and self._flat else ([page] for page in pages)
        if rec:
            return [self._texts(group, cls=cls, options=options) for group in groups]
        if not (cls and self._asked(options)[0]["use_textline_orientation"]):
            return []
        return [self._labels(group, options)[0] for group in groups]

    def __call__(
        self, img: Any, cls: bool = True, slice: dict[str, int] | None = None, **options: Any
    ) -> tuple[list[Box] | None, list[tuple[str, float]] | None, dict[str, float]]:
        """Boxes (4, 2), texts with scores, and seconds of each step and of all; with slices only of all."""
        times = {"det": 0.0, "rec": 0.0, "cls": 0.0, "all": 0.0}
        if img is None:
            return None, None, times
        start = time.perf_counter()
        page = self._one(img)
        if slice:
            boxes, texts = self._read_slices(page, cls, slice, options)
        else:
            answer = from_raw(self._start([page], options, cls=cls).wait())
            boxes, texts = _lines(answer)
            if answer.seconds:
                times |= {"det": answer.seconds.detection, "rec": answer.seconds.recognition, "cls": answer.seconds.orientation}
        times["all"] = time.perf_counter() - start
        return boxes, texts, times

    def text_detector(self, img: Any, use_slice: bool = False, **options: Any) -> tuple[Box, float]:
        """Boxes, float32 (n, 4, 2), in the order they were found, and seconds. use_slice: long pages in parts."""
        start = time.perf_counter()
        if use_slice:
            limit = self._asked(options)[0].get("det_limit_side_len", 960)
            found = paddle2_slices.detect_long(_pixels(self._one(img)), limit, lambda part: self._detect(part, options))
        else:
            found = self._detect(self._one(img), options)
        return found, time.perf_counter() - start

    def text_recognizer(self, img_list: list[Any], **options: Any) -> tuple[list[tuple[str, float]], float]:
        """Text and score of each crop, as it is, and seconds."""
        start = time.perf_counter()
        return self._texts([self._one(img) for img in img_list], cls=False, options=options), time.perf_counter() - start

    def text_classifier(self, img_list: list[Any], **options: Any) -> tuple[list[Pixels], list[list[Any]], float]:
        """The crops, those upside down turned; [label, score] of each; seconds."""
        start = time.perf_counter()
        labels, turned = self._labels([self._one(img) for img in img_list], options)
        upright = [np.ascontiguousarray(img[::-1, ::-1]) if turn else img for img, turn in zip(img_list, turned, strict=True)]
        return upright, labels, time.perf_counter() - start

    def _pages(self, img: Any, then: Callable[[Pixels], Pixels]) -> Iterator[Source]:
        """The pages one by one, those of a PDF rendered as they are asked for."""
        if isinstance(img, list):
            for one in img:
                yield from self._pages(one, then)
            return
        if paddle_images.is_url(img):
            img = paddle_images.download(img, allowed=self._allow_urls)
        if paddle_images.is_pdf(img):
            for page in islice(paddle_images.pdf_pages(img, max_pixels=self._max_pixels), self._page_num or None):
                yield self._one(page, then)
        else:
            yield self._one(img, then)

    def _one(self, img: Any, then: Callable[[Pixels], Pixels] | None = None) -> Source:
        if img is None or isinstance(img, (bool, int, float, tuple, dict)):
            raise InvalidArgumentError(f"a {type(img).__name__} cannot be read; give an array, a path, bytes or a list of them")
        prepare = then or _prepared
        if paddle_images.is_gif(img):
            # 2.x takes red for blue here.
            return paddle_images.as_given(img, lambda pixels: prepare(np.ascontiguousarray(pixels[:, :, ::-1])), color=True)
        return paddle_images.as_given(img, prepare, color=False)

    def _asked(self, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The engine's options, and timeout and wait; a call's own come last. Raises TypeError for what is no option."""
        rest = dict(options)
        asked = {**self.options, **paddle_options.take(rest)}
        how: dict[str, Any] = {name: rest.pop(name) for name in ("timeout", "wait") if name in rest}
        if rest:
            raise TypeError(f"PaddleOCR.ocr() got an unexpected keyword argument {min(rest)!r}")
        return asked, how

    def _start(self, sources: list[Any], options: dict[str, Any], *, cls: bool, **steps: bool) -> _core.Pending:
        asked, how = self._asked(options)
        asked["use_textline_orientation"] = cls and asked["use_textline_orientation"]
        return self.engine._start(sources, options=asked, **how, **steps)

    def _read_ahead(self, pages: Iterator[Source], options: dict[str, Any], *, cls: bool, **steps: bool) -> Iterator[OcrResult]:
        """The pages' answers in order; while they are read the next one is rendered, so of a long PDF there are never more than a few."""
        started = (self._start([page], options, cls=cls, **steps) for page in pages)
        return waiting.answers(started, max(_core.cores(), 2))

    def _detect(self, page: Any, options: dict[str, Any]) -> Box:
        return _boxes(from_raw(self._start([page], options, cls=False, recognize=False).wait()))

    def _read_slices(
        self, page: Source, cls: bool, slice: dict[str, int], options: dict[str, Any]
    ) -> tuple[list[Box], list[tuple[str, float]]]:
        pixels = _pixels(page)
        boxes = paddle2_slices.detect(pixels, slice, lambda part: self.text_detector(part, use_slice=True, **options)[0])
        crops = _core.crops(pixels, boxes) if len(boxes) else []
        least = self._asked(options)[0]["rec_score_thresh"]
        read = zip(boxes, self._texts(list(crops), cls=cls, options=options), strict=True)
        kept = [(box, text) for box, text in read if text[1] >= least]
        return [box for box, _ in kept], [text for _, text in kept]

    def _lists(self, boxes: list[Box], texts: list[tuple[str, float]]) -> list[Any] | None:
        return [[box.tolist(), text] for box, text in zip(boxes, texts, strict=True)] or self._nothing()

    def _nothing(self) -> list[Any] | None:
        return None if self._none_for_empty else []

    def _texts(self, crops: list[Any], *, cls: bool, options: dict[str, Any]) -> list[tuple[str, float]]:
        lines = from_raw(self._start(crops, options, cls=cls, detect=False).wait()).lines
        return [(line.text, line.score) for line in lines]

    def _labels(self, crops: list[Any], options: dict[str, Any]) -> tuple[list[list[Any]], list[bool]]:
        asked = {**_without_orientation(options), "use_textline_orientation": True}
        lines = from_raw(self._start(crops, asked, cls=True, detect=False, recognize=False).wait()).lines
        scores = [line.upside_down_score for line in lines]
        if None in scores:
            raise ModelNotFoundError("these models have none for orientation; give one as cls_model_dir")
        labels = [["180", np.float32(score)] if score > 0.5 else ["0", np.float32(1.0 - score)] for score in scores if score is not None]
        return labels, [bool(line.upside_down) for line in lines]


def _without_orientation(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if paddle_options.OPTIONS.get(name) != "use_textline_orientation"}


def _lines(page: OcrResult) -> tuple[list[Box], list[tuple[str, float]]]:
    return [line.polygon.copy() for line in page.lines], [(line.text, line.score) for line in page.lines]


def _boxes(page: OcrResult) -> Box:
    return np.stack([line.polygon for line in page.lines]) if page.lines else np.zeros((0, 4, 2), np.float32)


def _pixels(page: Source) -> Pixels:
    pixels: Pixels = page.load()
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels


def _prepared(pixels: Pixels, *, binarize: bool = False, invert: bool = False, alpha_color: tuple[int, int, int] = WHITE) -> Pixels:
    """Transparency over a colour (red, green, blue), then colours inverted, then black and white."""
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:] / 255
        pixels = (np.array(alpha_color[::-1]) * (1 - alpha) + pixels[:, :, :3] * alpha).astype(np.uint8)
    if invert:
        pixels = ~pixels
    if binarize and pixels.ndim == 3:
        gray = _gray(pixels)
        pixels = np.where(gray > _otsu(gray), 255, 0).astype(np.uint8)
    return pixels


def _gray(pixels: Pixels) -> Pixels:
    """cv2.COLOR_BGR2GRAY: 15 fractional bits."""
    blue, green, red = np.moveaxis(pixels.astype(np.int32), 2, 0)
    gray: Pixels = ((blue * 3735 + green * 19235 + red * 9798 + (1 << 14)) >> 15).astype(np.uint8)
    return gray


def _otsu(gray: Pixels) -> int:
    """The threshold of cv2.THRESH_OTSU: of the largest variance between what is above and what is not, the first."""
    share = np.bincount(gray.ravel(), minlength=256) / gray.size
    below = np.cumsum(share)
    mean = np.cumsum(share * np.arange(256))
    above = 1 - below
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = below * above * (mean / below - (mean[-1] - mean) / above) ** 2
    # cv2 leaves out what holds less than this on either side.
    variance[np.minimum(below, above) < np.finfo(np.float32).eps] = 0
    return int(np.argmax(np.nan_to_num(variance)))
