"""PaddleOCR 3.x's `predict`: pages are read ahead of each other and answered in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from threadsafe_ocr import _core
from threadsafe_ocr.compat import paddle3_words, paddle_images
from threadsafe_ocr.compat.paddle3_result import DocPreprocessorResult, OCRResult
from threadsafe_ocr.compat.paddle_images import Page, Pixels
from threadsafe_ocr.ocr import ThreadSafeOCR
from threadsafe_ocr.result import OcrResult, from_raw

# 3.x has its coordinates in 16 bits; a longer page needs more.
_INT16_MOST = 32767


class Paddle3:
    """One call of `predict`. options: the engine's; lines below their rec_score_thresh are detected and not answered. unheard: what
    the results tell of detection instead. turns: pages are told as upright ones."""

    def __init__(
        self,
        engine: ThreadSafeOCR,
        options: dict[str, Any],
        *,
        unheard: dict[str, Any],
        turns: bool,
        words: bool,
        max_pixels: int | None,
        timeout: float | None,
        wait: bool,
    ) -> None:
        self._engine = engine
        self._options, self._told = options, {**options, **unheard}
        self._max_pixels = max_pixels
        self._turns, self._words = turns, words
        self._timeout, self._wait = timeout, wait

    def predict(self, inputs: Any, *, allow_urls: bool) -> Iterator[OCRResult]:
        """A result a page. Nothing is held while the caller looks at one but what runs ahead, which is let go of with the iterator."""
        running: deque[tuple[Page, _core.Pending] | Exception] = deque()
        try:
            for started in self._started(inputs, allow_urls):
                running.append(started)
                if len(running) > 4 * _core.cores():
                    yield self._settled(running.popleft())
            while running:
                yield self._settled(running.popleft())
        finally:
            for rest in running:
                if not isinstance(rest, Exception):
                    rest[1].cancel()

    def _started(self, inputs: Any, allow_urls: bool) -> Iterator[tuple[Page, _core.Pending] | Exception]:
        """Pages that run; last, perhaps, the error that ended them: it is raised after the results before it."""
        # Which way a page runs its lines vote on.
        looks = self._options["use_textline_orientation"] or self._turns
        try:
            for page in paddle_images.pages(inputs, allow_urls=allow_urls, max_pixels=self._max_pixels, timeout=self._timeout):
                # One for each page: the engine takes the options out of it.
                options = {**self._options, "rec_score_thresh": 0.0, "use_textline_orientation": looks, "use_doc_orientation": self._turns}
                yield page, self._engine._start([page.source], timeout=self._timeout, wait=self._wait, options=options)
        except Exception as error:  # noqa: BLE001 - see above
            yield error

    def _settled(self, started: tuple[Page, _core.Pending] | Exception) -> OCRResult:
        if isinstance(started, Exception):
            raise started
        page, pending = started
        try:
            return self._result(page, from_raw(pending.wait()))
        finally:
            pending.cancel()

    def _result(self, page: Page, answer: OcrResult) -> OCRResult:
        least, looks = self._options["rec_score_thresh"], self._options["use_textline_orientation"]
        number = np.int16 if max(answer.width, answer.height) <= _INT16_MOST else np.int32
        polys = [line.polygon.astype(number) for line in answer.lines]
        kept = [(line, poly) for line, poly in zip(answer.lines, polys, strict=True) if line.score >= least]
        found: dict[str, Any] = {
            "input_path": page.path,
            "page_index": page.number,
            "doc_preprocessor_res": _turned(page.pixels[0], answer.angle) if self._turns else {"output_img": page.pixels[0]},
            "dt_polys": polys,
            "model_settings": {"use_doc_preprocessor": self._turns, "use_textline_orientation": looks},
            "text_det_params": {
                "limit_side_len": self._told["det_limit_side_len"],
                "limit_type": self._told["det_limit_type"],
                "thresh": self._told["det_thresh"],
                "max_side_limit": self._told["det_max_side"],
                "box_thresh": self._told["det_box_thresh"],
                "unclip_ratio": self._told["det_unclip_ratio"],
            },
            "text_type": "general",
            "text_rec_score_thresh": least,
            "return_word_box": self._words,
            "rec_texts": [line.text for line, _ in kept],
            "rec_scores": [line.score for line, _ in kept],
            "rec_polys": [poly for _, poly in kept],
            "vis_fonts": [None] * len(kept),
        }
        if self._words:
            words = [paddle3_words.of(line, poly) for line, poly in kept]
            found["text_word"] = [texts for texts, _ in words]
            found["text_word_region"] = [regions for _, regions in words]
        if polys:
            # As 3.x: not there on an empty page, -1 where nobody looked. On the page as it is told; `upside_down` is of the given one.
            found["textline_orientation_angles"] = [
                int(line.first_corner >= 2) if looks and line.upside_down is not None else -1 for line in answer.lines
            ]
        found["rec_boxes"] = _upright(found["rec_polys"])
        if self._words:
            found["text_word_boxes"] = [_upright(regions) for regions in found["text_word_region"]]
        return OCRResult(found)


def _turned(pixels: Pixels, angle: int) -> DocPreprocessorResult:
    """The page upright. 3.x gives the step that does it an array, so no path."""
    upright = np.ascontiguousarray(np.rot90(pixels, angle // 90)) if angle else pixels
    found = {
        "input_path": None,
        "page_index": None,
        "input_img": pixels,
        "model_settings": {"use_doc_orientation_classify": True, "use_doc_unwarping": False},
        "angle": angle,
        "rot_img": upright,
        "output_img": upright,
    }
    return DocPreprocessorResult(found)


def _upright(polys: list[Any]) -> Any:
    """left, top, right, bottom of each; 3.x has an empty float64 array where there is none."""
    if not polys:
        return np.array([])
    corners = np.stack(polys)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
