"""The OCR object that MinerU's pipelines ask for."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from threadsafe_ocr import _core, model_sets, runtime, waiting
from threadsafe_ocr.compat import paddle_images
from threadsafe_ocr.compat.mineru import boxes
from threadsafe_ocr.compat.mineru.profiles import MINERU4, Profile
from threadsafe_ocr.ocr import ThreadSafeOCR
from threadsafe_ocr.rendering import MOST_PIXELS
from threadsafe_ocr.result import OcrResult

Pixels = npt.NDArray[np.uint8]
Text = tuple[str, float]

# Detection's bound and thresholds, which no version changes.
LIMIT, THRESH, CANDIDATES = 960, 0.3, 1000
# Pages detected at once, a core.
AHEAD = 4


class MinerUOCR:
    """One of MinerU's OCR objects: `ocr`, `text_detector`, `text_recognizer`, with its thresholds. Models and workers are shared.

    profile: whose steps. models: what `ThreadSafeOCR` takes; None: the sets of the profile, or "v6-small" where they are not here, which a
    UserWarning says once. device: MinerU's, "cuda:1" is a card; MINERU_DEVICE_MODE goes before it, and its "cpu" is heard. Other
    keywords of MinerU's are accepted and mean nothing here (show_log, small_backend, det_model_path, ...).

    Every method may be called from any thread at once; the GIL is released while it reads.
    """

    use_angle_cls = False
    is_seal = False
    device = "cpu"

    def __init__(
        self,
        *,
        det_db_box_thresh: float = 0.5,
        det_db_unclip_ratio: float = 1.5,
        use_dilation: bool = False,
        enable_merge_det_boxes: bool = True,
        drop_score: float = 0.5,
        rec_batch_num: int | None = None,
        lang: str | None = "ch",
        device: str | None = None,
        profile: Profile = MINERU4,
        models: Any = None,
        **_ignored: Any,
    ) -> None:
        self.lang, self.drop_score, self.enable_merge_det_boxes, self.profile = lang or "ch", drop_score, enable_merge_det_boxes, profile
        self.engine = ThreadSafeOCR(
            models if models is not None else installed(profile),
            device=_device(device),
            numerics=profile.numerics,
            det_limit_side_len=LIMIT,
            det_limit_type="max",
            det_max_side=profile.det_max_side,
            det_thresh=THRESH,
            det_box_thresh=det_db_box_thresh,
            det_unclip_ratio=det_db_unclip_ratio,
            det_use_dilation=use_dilation,
            det_max_candidates=CANDIDATES,
            use_textline_orientation=False,
            rec_score_thresh=0.0,
            rec_group=rec_batch_num or profile.group,
            rec_width_step=1,
            rec_min_width=320,
            rec_max_width=profile.max_width,
        )
        self.text_detector = TextDetector(self.engine)
        self.text_recognizer = TextRecognizer(self.engine, profile)

    def ocr(
        self,
        img: Any,
        det: bool = True,
        rec: bool = True,
        mfd_res: Sequence[dict[str, Any]] | None = None,
        tqdm_enable: bool = False,
        tqdm_desc: str = "OCR-rec Predict",
        tqdm_progress_bar: Any = None,
        **_ignored: Any,
    ) -> list[Any]:
        """MinerU's lists: [[[box, (text, score)], ...]], [None] for a page without text; rec=False: [[box, ...]]; det=False, for a line or
        a list of lines: [[(text, score), ...]].

        img: uint8 HxW, HxWx3 (BGR) or HxWx4 (BGRA, laid on white), or the bytes or the path of an image, which is not turned as its
        EXIF says. mfd_res: formulas, which are cut out of lines.
        """
        if not det:
            lines = [_pixels(line) for line in img] if isinstance(img, (list, tuple)) else [_pixels(img)]
            read, _ = self.text_recognizer(lines, tqdm_enable, tqdm_desc, tqdm_progress_bar) if rec else ([], 0.0)
            return [[one] for one in read] if self.profile.paddle else [read]
        pages = img if isinstance(img, (list, tuple)) else [img]
        return [self._page(_pixels(page), rec, mfd_res) for page in pages]

    def __call__(self, img: Any, *given: Any, mfd_res: Sequence[dict[str, Any]] | None = None, **_ignored: Any) -> tuple[Any, ...]:
        """(boxes, texts), or (None, None) for a page without text; mfd_res may come second.

        magic-pdf before 1.3: (boxes, texts, seconds of each step); `cls`, which means nothing, comes second and mfd_res third.
        """
        paddle = self.profile.paddle
        formulas = mfd_res or next(iter(given[1 if paddle else 0 :]), None)
        if img is None:
            return (None, None, _seconds()) if paddle else (None, None)
        found, read, seconds = self._read(_pixels(img), formulas)
        if paddle:
            return found, read, seconds
        return (found, read) if found else (None, None)

    def _page(self, page: Pixels, rec: bool, formulas: Sequence[dict[str, Any]] | None) -> Any:
        if not rec:
            return [box.tolist() for box in self._find(page, formulas)[0]]
        found, read, _ = self._read(page, formulas)
        return [[box.tolist(), text] for box, text in zip(found, read, strict=True)] or None

    def _find(self, page: Pixels, formulas: Sequence[dict[str, Any]] | None) -> tuple[list[boxes.Box], float]:
        found, seconds = self.text_detector(page)
        ordered = boxes.sort([] if found is None else found)
        if self.enable_merge_det_boxes:
            ordered = boxes.join(ordered, only_long_lines=self.profile.only_long_lines)
        return boxes.without_formulas(ordered, formulas) if formulas else ordered, seconds

    def _read(self, page: Pixels, formulas: Sequence[dict[str, Any]] | None) -> tuple[list[boxes.Box], list[Text], dict[str, float]]:
        begun = time.perf_counter()
        found, det = self._find(page, formulas)
        cut = self._cut(page, found)
        read, rec = self.text_recognizer([crop for _, crop in cut])
        kept = [(box, text) for (box, _), text in zip(cut, read, strict=True) if text[1] >= self.drop_score]
        seconds = _seconds(det=det, rec=rec, whole=time.perf_counter() - begun)
        return [box for box, _ in kept], [text for _, text in kept], seconds

    def _cut(self, page: Pixels, found: Iterable[boxes.Box]) -> list[tuple[boxes.Box, Pixels]]:
        """The boxes that have a crop, each with it."""
        crops = [(box, self._sliced(page, box)) for box in found]
        slanted = [box for box, crop in crops if crop is None and all(_sides(box))]
        # One call: it copies the page.
        straightened = iter(_core.crops(page, np.stack(slanted), half=self.profile.numerics == "mineru4") if slanted else ())
        cut = []
        for box, crop in crops:
            if crop is None:
                width, height = _sides(box)
                if not (width and height):
                    continue
                crop = next(straightened)
                # The native crop is turned left from 1.5 on.
                if CROPS_TURNED <= height / width < self.profile.tall:
                    crop = np.rot90(crop, -1)
            cut.append((box, crop))
        return cut

    def _sliced(self, page: Pixels, box: boxes.Box) -> Pixels | None:
        """An upright line's pixels as they are; None where it has to be straightened."""
        steps = self.profile
        if not (steps.slices and boxes.is_upright(box)):
            return None
        (left, top), (right, bottom) = box.min(axis=0).astype(int), box.max(axis=0).astype(int)
        crop = page[top:bottom, left:right]
        if not crop.size:
            return None
        return _turned(crop, steps.tall) if steps.turns_slices else crop


CROPS_TURNED = 1.5


def _seconds(det: float = 0.0, rec: float = 0.0, whole: float = 0.0) -> dict[str, float]:
    return {"det": det, "rec": rec, "cls": 0.0, "all": whole}


def _turned(crop: Pixels, tall: float) -> Pixels:
    return np.rot90(crop) if crop.shape[0] / crop.shape[1] >= tall else crop


def _sides(box: boxes.Box) -> tuple[int, int]:
    """A slanted box's width and height, whole pixels."""
    a, b, c, d = box
    length = np.linalg.norm
    return int(max(length(a - b), length(c - d))), int(max(length(a - d), length(b - c)))


class TextDetector:
    """Boxes as they are found: MinerU sorts and joins them itself."""

    def __init__(self, engine: ThreadSafeOCR) -> None:
        self._engine = engine

    def __call__(self, img: Pixels) -> tuple[npt.NDArray[np.float32] | None, float]:
        """float32 (n, 4, 2) and the seconds it took; None for an image without pixels."""
        (answer,) = self.batch_predict([img])
        return answer

    def batch_predict(
        self,
        img_list: Sequence[Pixels],
        max_batch_size: int = 8,
        tqdm_enable: bool = False,
        tqdm_desc: str = "OCR-det Predict",
        tqdm_progress_bar: Any = None,
    ) -> list[tuple[npt.NDArray[np.float32] | None, float]]:
        """The same for every image, in their order; they share the engine with all other callers, whatever `max_batch_size` is."""
        answers: list[tuple[npt.NDArray[np.float32] | None, float]] = []
        begun = time.perf_counter()
        with _progress(len(img_list), tqdm_enable, tqdm_desc, tqdm_progress_bar) as progress:
            for page in _detected(self._engine, img_list):
                now = time.perf_counter()
                found = None
                if page is not None:
                    found = np.array([line.polygon for line in page.lines], np.float32).reshape(-1, 4, 2)
                answers.append((found, now - begun))
                begun = now
                progress.update(1)
        return answers


class TextRecognizer:
    """Texts of lines."""

    def __init__(self, engine: ThreadSafeOCR, profile: Profile) -> None:
        self._engine, self._profile = engine, profile

    def __call__(
        self,
        img_list: Sequence[Pixels],
        tqdm_enable: bool = False,
        tqdm_desc: str = "OCR-rec Predict",
        tqdm_progress_bar: Any = None,
    ) -> tuple[list[Text], float]:
        """[(text, score), ...] in the order of the images, and the seconds it took. All lines of a call are one request."""
        begun = time.perf_counter()
        with _progress(len(img_list), tqdm_enable, tqdm_desc, tqdm_progress_bar) as progress:
            order = self._order(img_list)
            lines = self._engine.recognize([img_list[i] for i in order]) if order else []
            progress.update(len(img_list))
        read = [(line.text, line.score if line.text else self._profile.empty_score) for line in lines]  # type: ignore[union-attr]
        return [text for _, text in sorted(zip(order, read, strict=True))], time.perf_counter() - begun

    def _order(self, img_list: Sequence[Pixels]) -> list[int]:
        """MinerU groups lines in the order of numpy's sort, which is not stable: equally long lines come in its own order, which the engine
        keeps."""
        if self._profile.numerics != "mineru4":
            return list(range(len(img_list)))
        return [int(i) for i in np.argsort([image.shape[1] / max(image.shape[0], 1) for image in img_list])]


def _device(given: str | None) -> str:
    """ThreadSafeOCR's. That MinerU 4.x gives "cpu" to all that runs on ONNX Runtime is no wish of its user's; MINERU_DEVICE_MODE=cpu is."""
    wish = os.environ.get("MINERU_DEVICE_MODE")
    kind, _, number = (wish or given or "").partition(":")
    if kind == "cpu" and wish:
        return "cpu"
    return f"cuda:{number or 0}" if kind in ("cuda", "gpu") and runtime.may_use_gpu() else "auto"


def installed(profile: Profile) -> str | dict[str, str]:
    """What of the profile's model sets is on this machine, as `models` of ThreadSafeOCR."""
    names = {part: name for part, name in (("det", profile.det), ("rec", profile.rec))}
    if missing := sorted({name for name in names.values() if model_sets.missing(name)}):
        remedies = "; ".join(model_sets.remedy(name) for name in missing)
        warnings.warn(f"MinerU's {' and '.join(missing)} is not here, v6-small reads instead; {remedies}", UserWarning, stacklevel=3)
        names = {part: "v6-small" if name in missing else name for part, name in names.items()}
    if names["det"] == names["rec"]:
        return names["det"]
    return {part: str(model_sets.part(name, part)) for part, name in names.items()}


def _detected(engine: ThreadSafeOCR, images: Sequence[Pixels]) -> Iterator[OcrResult | None]:
    """Every image's lines, in order, a few images ahead; None for one without pixels."""
    started = (engine._start([_pixels(image)], recognize=False, options={}) for image in images if image.size)
    read = waiting.answers(started, AHEAD * _core.cores())
    return (next(read) if image.size else None for image in images)


def _pixels(image: Any) -> Pixels:
    """As BGR; transparency on white, cut to whole numbers as MinerU does."""
    if isinstance(image, (str, bytes)):
        image = paddle_images.decoded(image, color=False, max_pixels=MOST_PIXELS)
    pixels: Pixels = np.asarray(image)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, np.newaxis], 3, axis=2)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:] / 255
        return (255 * (1 - alpha) + pixels[:, :, :3] * alpha).astype(np.uint8)
    return pixels


@contextlib.contextmanager
def _progress(total: int, shown: bool, description: str, given: Any) -> Iterator[Any]:
    """The caller's bar, or one of our own where it is to be shown."""
    if given is not None or not shown:
        yield _Silent() if given is None else given
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=description) as bar:
        yield bar


class _Silent:
    def update(self, _count: int) -> None:
        """Nobody looks."""
