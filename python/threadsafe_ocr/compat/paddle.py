"""`PaddleOCR`, for code written for PaddleOCR 2.x or 3.x: change the import, and it runs in threads.

>>> from threadsafe_ocr.compat.paddle import PaddleOCR
>>> ocr = PaddleOCR(lang="en", use_angle_cls=True, show_log=False)
"""

from __future__ import annotations

import argparse
import functools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from threadsafe_ocr import runtime
from threadsafe_ocr.compat import paddle3_config, paddle_models, paddle_options
from threadsafe_ocr.compat.paddle2 import Paddle2
from threadsafe_ocr.compat.paddle3 import Paddle3
from threadsafe_ocr.compat.paddle3_result import OCRResult
from threadsafe_ocr.compat.paddle_draw import draw_ocr
from threadsafe_ocr.compat.paddle_options import PADDLE2, PADDLE3
from threadsafe_ocr.exceptions import ConfigError, EngineClosedError, InvalidArgumentError, ModelNotFoundError
from threadsafe_ocr.ocr import ThreadSafeOCR

__all__ = ["OCRResult", "PaddleOCR", "__version__", "draw_ocr"]

# Of what `import paddleocr` finds here, for code that asks; `api` is each object's own.
__version__ = "3.7.0"

_APIS = (None, "2", "2.7", "3")
# Fixed shapes of the models' inputs, and those that every model here has.
_SHAPES = {
    "text_det_input_shape": None,
    "text_rec_input_shape": None,
    "rec_image_shape": "3, 48, 320",
    "cls_image_shape": "3, 48, 192",
}
# Keywords of ThreadSafeOCR that limit its requests.
_LIMITS = ("timeout", "max_pixels", "max_queue_size", "max_queue_bytes", "on_fork")


class PaddleOCR:
    """PaddleOCR 2.x and 3.x in one class, on `ThreadSafeOCR`: every method from any thread, options of a call for that call only.

    The method decides: `ocr`, `__call__`, `text_detector`, `text_recognizer` and `text_classifier` answer as 2.10 does, with its settings;
    `predict` and `predict_iter` as 3.7. Keywords of either generation set both; without names they are 3.7's in its order. Besides these:

    api: "2", "2.7" or "3": loads that generation's models at once; otherwise the first call of a generation does, and what neither has is
    told here. "2.7" answers lists of crops as 2.7 did; "3" makes `ocr` the deprecated `predict` of 3.x and refuses the keywords that 3.x
    refuses.
    strict_models: where a model is not here, ModelNotFoundError instead of the nearest one and a UserWarning.
    none_for_empty: False answers [[]] instead of 2.x's [None] for a page without text. allow_urls: URLs are downloaded.
    timeout, max_pixels, max_queue_size, max_queue_bytes, on_fork: those of ThreadSafeOCR.

    Raises ConfigError, InvalidArgumentError (an AssertionError and a ValueError), ModelNotFoundError, ModelLoadError.
    """

    def __init__(
        self,
        *positional: Any,
        api: str | None = None,
        strict_models: bool = False,
        none_for_empty: bool = True,
        allow_urls: bool = False,
        **keywords: Any,
    ) -> None:
        api = None if api is None else str(api)
        if api not in _APIS:
            raise ConfigError(f'api={api!r}; it can be "2", "2.7" or "3"')
        keywords = paddle_options.by_name(positional, keywords)
        own = {"api": api, "strict_models": strict_models, "none_for_empty": none_for_empty, "allow_urls": allow_urls}
        self._arguments = {**own, **keywords}
        self._api, self._strict, self._none_for_empty, self._allow_urls = api, strict_models, none_for_empty, allow_urls
        if api == "3":
            paddle_options.refuse_unknown_to_3(keywords.keys() - set(_LIMITS))
            self._warn_deprecated(keywords)
        self.args = argparse.Namespace(**{**paddle_options.DEFAULTS_OF_2, **keywords})
        rest = dict(keywords)
        if (config := rest.pop("paddlex_config", None)) is not None:
            rest = {**paddle3_config.keywords(config), **{name: value for name, value in rest.items() if value is not None}}
        self._options = paddle_options.take(rest)
        self._named = paddle_options.take_named(rest, paddle_models.KEYWORDS)
        self._limits = {name: rest.pop(name) for name in _LIMITS if name in rest}
        self._device = _device(rest)
        self._page_num = int(rest.pop("page_num", 0))
        self._steps = {name: rest.pop(name, None) for name in ("use_doc_orientation_classify", "use_doc_unwarping", "return_word_box")}
        self._turns = _turns(self._steps["use_doc_orientation_classify"], self._steps["use_doc_unwarping"], otherwise=True)
        self._lacking = [f"{name}={shape!r}" for name in _SHAPES if (shape := rest.pop(name, None)) and shape != _SHAPES[name]]
        if rest.pop("det_box_type", "quad") != "quad":
            self._lacking.append('det_box_type="poly"')
        paddle_options.tell_without_effect(set(rest))
        paddle_models.check(self._named, ("3",) if api == "3" else ("2",) if api else ("2", "3"))
        self._made: dict[str, Any] = {}
        self._closed = False
        if api:
            self._engine(api[0])
        else:
            self._check_models()

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), **self._arguments), ()

    def ocr(self, img: Any, *arguments: Any, **keywords: Any) -> Any:
        """2.x's lists: ocr(img, det=True, rec=True, cls=True, bin=False, inv=False, alpha_color=(255, 255, 255), slice={}).

        img: a BGR, gray or BGRA array, the path or bytes of an image or a PDF, a list of them; also a PIL image. One entry a page:
        [[[box, (text, score)], ...]], with rec=False [[box, ...]]; a page without text is None. det=False: img is a crop or a list of them,
        the answer [[(text, score), ...]]; det=rec=False: [[[label, score], ...]]. Further keywords: any option of either generation,
        timeout, wait; for this call only.

        Waits without the GIL. Raises what `ThreadSafeOCR.read` raises.
        """
        if self._api == "3":
            warnings.warn("Please use `predict` instead.", DeprecationWarning, stacklevel=2)
            return self.predict(img, *arguments, **keywords)
        return self._as_2().ocr(img, *arguments, **keywords)

    def __call__(self, img: Any, cls: bool = True, slice: dict[str, int] | None = None, **options: Any) -> Any:
        """2.x's `TextSystem`: boxes, float32 (4, 2) each, [(text, score), ...], and {"all": seconds, ...}; None, None for no image."""
        return self._as_2()(img, cls, slice, **options)

    def text_detector(self, img: Any, use_slice: bool = False, **options: Any) -> Any:
        """2.x's detection alone: boxes, float32 (n, 4, 2), in the order they were found, and seconds."""
        return self._as_2().text_detector(img, use_slice, **options)

    def text_recognizer(self, img_list: list[Any], **options: Any) -> Any:
        """2.x's recognition alone: [(text, score), ...] of crops as they are, and seconds."""
        return self._as_2().text_recognizer(img_list, **options)

    def text_classifier(self, img_list: list[Any], **options: Any) -> Any:
        """2.x's orientation alone: the crops, upside-down ones turned; [[label, score], ...]; seconds."""
        return self._as_2().text_classifier(img_list, **options)

    def predict(
        self,
        input: Any,
        *,
        use_doc_orientation_classify: bool | None = None,
        use_doc_unwarping: bool | None = None,
        use_textline_orientation: bool | None = None,
        text_det_limit_side_len: int | None = None,
        text_det_limit_type: str | None = None,
        text_det_thresh: float | None = None,
        text_det_box_thresh: float | None = None,
        text_det_unclip_ratio: float | None = None,
        text_rec_score_thresh: float | None = None,
        return_word_box: bool | None = None,
        timeout: float | None = None,
        wait: bool = True,
    ) -> list[OCRResult]:
        """3.x's results, one a page.

        input: a BGR array, the path of an image, of a PDF or of a folder, or a list of them; also bytes and PIL images. Options hold for
        this call only; timeout: seconds a page. Waits without the GIL. Raises what `ThreadSafeOCR.read` raises.
        """
        options = {
            "use_textline_orientation": use_textline_orientation,
            "text_det_limit_side_len": text_det_limit_side_len,
            "text_det_limit_type": text_det_limit_type,
            "text_det_thresh": text_det_thresh,
            "text_det_box_thresh": text_det_box_thresh,
            "text_det_unclip_ratio": text_det_unclip_ratio,
            "text_rec_score_thresh": text_rec_score_thresh,
        }
        pages = self.predict_iter(
            input,
            use_doc_orientation_classify=use_doc_orientation_classify,
            use_doc_unwarping=use_doc_unwarping,
            return_word_box=return_word_box,
            timeout=timeout,
            wait=wait,
            **options,
        )
        return list(pages)

    def predict_iter(
        self,
        input: Any,
        *,
        use_doc_orientation_classify: bool | None = None,
        use_doc_unwarping: bool | None = None,
        return_word_box: bool | None = None,
        timeout: float | None = None,
        wait: bool = True,
        **options: Any,
    ) -> Iterator[OCRResult]:
        """As `predict`, one after the other; four pages a core are read ahead."""
        rest = dict(options)
        engine = self._engine("3")
        given = paddle_options.take(rest)
        # As in 3.7, whose detector takes a call's 0 for nothing said, and whose results tell it all the same.
        unheard = {name: value for name, value in given.items() if name.startswith("det_") and not value}
        heard = {name: value for name, value in given.items() if name not in unheard}
        asked = {**PADDLE3, "det_max_candidates": self._made["3"][1].max_candidates, **self._options, **heard}
        if rest:
            raise TypeError(f"PaddleOCR.predict() got an unexpected keyword argument {min(rest)!r}")
        if use_doc_unwarping:
            warnings.warn("PaddleOCR.predict(): use_doc_unwarping skipped: the model is not here", UserWarning, stacklevel=2)
        turns = _turns(use_doc_orientation_classify, use_doc_unwarping, otherwise=self._turns)
        words = bool(self._steps["return_word_box"] if return_word_box is None else return_word_box)
        most = self._limits.get("max_pixels")
        call = Paddle3(engine, asked, unheard=unheard, turns=turns, words=words, max_pixels=most, timeout=timeout, wait=wait)
        return call.predict(input, allow_urls=self._allow_urls)

    def export_paddlex_config_to_yaml(self, yaml_path: str | os.PathLike[str]) -> None:
        """Writes 3.x's settings as PaddleX's pipeline configuration."""
        self._engine("3")
        models = {}
        for part, name in zip(("det", "rec", "cls"), self._made["3"][1].used, strict=False):
            folder = self._named.get(f"{part}_dir")
            models[part] = {"model_name": name, "model_dir": folder and os.fspath(folder)}
        steps = {"use_doc_orientation_classify": self._turns, "use_doc_unwarping": self._steps["use_doc_unwarping"] is not False}
        words = bool(self._steps["return_word_box"])
        content = paddle3_config.config({**PADDLE3, **self._options}, models, steps, words=words)
        Path(yaml_path).write_text(paddle3_config.to_yaml(content), encoding="utf-8")

    @property
    def use_angle_cls(self) -> bool:
        """Whether `cls=True` of 2.x's calls looks for upside-down lines."""
        return bool({**PADDLE2, **self._options}["use_textline_orientation"])

    @property
    def drop_score(self) -> float:
        """2.x leaves out lines of a lower score. May be set: for later calls of all threads."""
        return float({**PADDLE2, **self._options}["rec_score_thresh"])

    @drop_score.setter
    def drop_score(self, least: float) -> None:
        self._options = {**self._options, "rec_score_thresh": least}

    @property
    def page_num(self) -> int:
        """Pages of a PDF that 2.x's `ocr` reads at most; 0: all. May be set: for later calls of all threads."""
        return self._page_num

    @page_num.setter
    def page_num(self, most: int) -> None:
        self._page_num = most

    @property
    def model_settings(self) -> dict[str, dict[str, str]]:
        """What ran so far: generation -> the model PaddleOCR would take -> the set, or the file, that read in its place."""
        return {generation: dict(made[1].used) for generation, made in self._made.copy().items()}

    def close(self) -> None:
        """Ends it: requests that run finish, further ones raise EngineClosedError."""
        self._closed = True
        # Another thread's first call may add one meanwhile, and closes it itself.
        for engine, _ in self._made.copy().values():
            engine.close()

    def _engine(self, generation: str) -> ThreadSafeOCR:
        """A generation's engine; it is made by the first call. No lock: one may be held by another thread when a process forks."""
        made = self._made.get(generation)
        if made is None:
            if self._closed:
                raise EngineClosedError("this PaddleOCR was closed")
            if generation == "3" and self._named.keys() & {"lang", "version"} and len(self._named.keys() - {"lang", "version"}):
                warnings.warn("`lang` and `ocr_version` are ignored where models are named or given", UserWarning, stacklevel=4)
            models = paddle_models.choose(generation, self._named)
            absent = self._absent(generation, models)
            if absent and self._strict:
                raise ModelNotFoundError(f"strict_models=True, and these are not here: {'; '.join(absent)}")
            new = (ThreadSafeOCR(models.spec, device=self._device, **self._limits), models)
            made = self._made.setdefault(generation, new)
            if self._closed:
                made[0].close()
                raise EngineClosedError("this PaddleOCR was closed")
            if made is new and absent:
                warnings.warn(f"PaddleOCR: {'; '.join(absent)} (strict_models=True makes this an error)", UserWarning, stacklevel=4)
        engine: ThreadSafeOCR = made[0]
        return engine

    def _check_models(self) -> None:
        """Raises ModelNotFoundError where neither generation can read, before the first request does."""
        errors = []
        for generation in ("2", "3"):
            try:
                paddle_models.choose(generation, self._named)
            except (ModelNotFoundError, InvalidArgumentError) as error:
                errors.append(error)
        if len(errors) == 2:
            raise errors[0]

    def _absent(self, generation: str, models: paddle_models.Models) -> list[str]:
        """What PaddleOCR would use and is not here."""
        options = {**(PADDLE2 if generation == "2" else PADDLE3), **self._options}
        by: dict[str, list[str]] = {}
        looks = {"textline_ori": options["use_textline_orientation"], "doc_ori": self._turns}
        for wanted, used in models.replaced.items():
            if all(on for kind, on in looks.items() if kind in wanted):
                by.setdefault(used, []).append(wanted)
        absent = [f"{used} reads in place of {' and '.join(wanted)}" for used, wanted in by.items()]
        skipped = list(self._lacking)
        if generation == "3" and self._steps["use_doc_unwarping"] is not False:
            skipped.append("UVDoc")
        return absent + ([f"skipped: {', '.join(skipped)}"] if skipped else [])

    def _as_2(self) -> Paddle2:
        engine = self._engine("2")
        return Paddle2(
            engine,
            {**PADDLE2, **self._options},
            page_num=self._page_num,
            max_pixels=self._limits.get("max_pixels"),
            flat=self._api != "2.7",
            none_for_empty=self._none_for_empty,
            allow_urls=self._allow_urls,
        )

    def _warn_deprecated(self, keywords: dict[str, Any]) -> None:
        for name in keywords.keys() & paddle_options.DEPRECATED.keys():
            new = paddle_options.DEPRECATED[name]
            warnings.warn(f"The parameter `{name}` has been deprecated; use `{new}` instead.", DeprecationWarning, stacklevel=3)


def _turns(classify: bool | None, unwarp: bool | None, *, otherwise: bool) -> bool:
    """Whether 3.x turns a page upright: without a word on that it does not where unwarping, the other of its two steps, is switched off."""
    return otherwise if classify is None and unwarp is not False else bool(classify)


def _device(keywords: dict[str, Any]) -> str:
    """Of `device` (3.x), else `use_gpu` and `gpu_id` (2.x, which uses the CPU where there is no card)."""
    device, use_gpu, gpu = keywords.pop("device", None), keywords.pop("use_gpu", None), keywords.pop("gpu_id", 0)
    if device is None:
        if use_gpu is False:
            return "cpu"
        return f"cuda:{gpu}" if gpu and runtime.may_use_gpu() else "auto"
    kind, _, number = str(device).partition(":")
    if kind not in ("cpu", "gpu", "cuda", "auto"):
        raise ConfigError(f'device={device!r}; it can be "cpu", "gpu" or "gpu:1"')
    first, *others = number.split(",")
    if others:
        # 3.x has a copy of its models on each.
        warnings.warn(f"device={device!r}: reads on the first card alone; make a PaddleOCR for each", UserWarning, stacklevel=3)
    return kind if kind in ("cpu", "auto") else f"cuda:{first or 0}"
