"""What RapidOCR 3.10 answers: the same fields and methods. Pictures need Pillow: `pip install "threadsafe-ocr[draw]"`."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from threadsafe_ocr import draw
from threadsafe_ocr.inputs import Source
from threadsafe_ocr.result import OcrResult, TextLine

Pixels = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float32]
# Of one word, or one character: text, score, four corners.
Word = tuple[str, float, list[list[int]]]

# Of scores: RapidOCR's own figure, the last digits say nothing.
DIGITS = 5
NO_WORDS: tuple[Any, ...] = (("", 1.0, None),)


class _Shown:
    """Prints its fields."""

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({fields})"


class _Output(_Shown):
    """An answer keeps what was read; `img` decodes it when it is asked for: BGR, uint8, HxWx3."""

    def __init__(self, img: Any = None) -> None:
        self._source = img

    @property
    def img(self) -> Pixels | None:
        if self._source is not None and not isinstance(self._source, np.ndarray):
            self._source = bgr(self._source)
        pixels: Pixels | None = self._source
        return pixels


class RapidOCROutput(_Output):
    """A page.

    boxes: float32 (n, 4, 2), pixels of the image that was given; txts and scores: tuples of n; all None where no text was found.
    word_results: with return_word_box=True a tuple of n tuples of (text, score, box). elapse: seconds. elapse_list: the whole call's stand
    in its first place, the others are 0.
    """

    def __init__(
        self,
        img: Any = None,
        boxes: Boxes | None = None,
        txts: tuple[str, ...] | None = None,
        scores: tuple[float, ...] | None = None,
        word_results: tuple[Any, ...] = NO_WORDS,
        elapse_list: Iterable[float | None] = (),
        viser: VisRes | None = None,
    ) -> None:
        super().__init__(img)
        self.boxes, self.txts, self.scores, self.word_results = boxes, txts, scores, word_results
        self.elapse_list = list(elapse_list)
        self.elapse = sum(seconds for seconds in self.elapse_list if seconds is not None)
        self.viser = viser

    def __len__(self) -> int:
        return 0 if self.txts is None else len(self.txts)

    def to_json(self) -> list[dict[str, Any]] | None:
        """[{"box", "txt", "score"}, ...]; None where there is no text."""
        if self.boxes is None or self.txts is None or self.scores is None:
            _nothing("turn into JSON")
            return None
        rows = zip(self.boxes, self.txts, self.scores, strict=True)
        return [{"box": box.tolist(), "txt": text, "score": score} for box, text, score in rows]

    def to_markdown(self) -> str:
        """The texts in rows, with blanks for the gaps between them and an empty line for a wide one."""
        return markdown(self.boxes, self.txts)

    def vis(self, save_path: str | os.PathLike[str] | None = None) -> Pixels | None:
        """The page with its boxes, and what was read beside it: BGR, uint8; saved if there is a path. Of words where there are some."""
        if self._source is None or self.boxes is None or self.viser is None:
            _nothing("draw")
            return None
        boxes, texts, scores = self.boxes, self.txts, self.scores
        words = [word for line in self.word_results for word in line]
        if words and words != list(NO_WORDS[0]):
            texts, scores, boxes = zip(*words, strict=True)  # type: ignore[assignment]
        return _saved(self.viser(self._source, boxes, texts, scores), save_path)


class TextDetOutput(_Output):
    """use_rec=False: the boxes alone, float32 (n, 4, 2), each with its own score (RapidOCR has the scores in another order)."""

    def __init__(self, img: Any = None, boxes: Boxes | None = None, scores: list[float] | None = None, elapse: float = 0.0) -> None:
        super().__init__(img)
        self.boxes, self.scores, self.elapse = boxes, scores, elapse

    def __len__(self) -> int:
        return 0 if self.boxes is None else len(self.boxes)

    def vis(self, save_path: str | os.PathLike[str] | None = None) -> Pixels | None:
        """The image with its boxes and their scores beside it; saved if there is a path."""
        if self._source is None or self.boxes is None or self.scores is None:
            _nothing("draw")
            return None
        return _saved(VisRes()(self._source, self.boxes, None, self.scores), save_path)


class TextClsOutput(_Shown):
    """use_det=False, use_rec=False: cls_res is [("0" or "180", probability)], img_list the images, upright."""

    def __init__(
        self, img_list: list[Any] | None = None, cls_res: list[tuple[str, float]] | None = None, elapse: float | None = None
    ) -> None:
        self.img_list, self.cls_res, self.elapse = img_list, cls_res, elapse

    def __len__(self) -> int:
        return len(self.img_list or ())

    def vis(self, save_path: str | os.PathLike[str] | None = None) -> Pixels | None:
        """The images with what was said of them; saved if there is a path."""
        if self.img_list is None or self.cls_res is None:
            _nothing("draw")
            return None
        return _saved(_strips(self.img_list, [f"{label} {score:.2f}" for label, score in self.cls_res]), save_path)


class TextRecOutput(_Shown):
    """use_det=False: the image as a line."""

    def __init__(
        self,
        imgs: list[Any] | None = None,
        txts: tuple[str, ...] | None = None,
        scores: Sequence[float] = (1.0,),
        word_results: tuple[Any, ...] = NO_WORDS,
        elapse: float | None = None,
        viser: VisRes | None = None,
    ) -> None:
        self.imgs, self.txts, self.scores, self.word_results = imgs, txts, scores, word_results
        self.elapse, self.viser = elapse, viser

    def __len__(self) -> int:
        return len(self.txts or ())

    def vis(self, save_path: str | os.PathLike[str] | None = None) -> Pixels | None:
        """The images with their texts; saved if there is a path."""
        if self.imgs is None or self.txts is None:
            _nothing("draw")
            return None
        return _saved(_strips(self.imgs, self.txts), save_path)


class VisRes:
    """Draws boxes over an image and the texts beside it. font_path: for other scripts than Latin, Chinese, Japanese and Korean; none is
    downloaded. Texts below `text_score` are left out."""

    def __init__(self, text_score: float = 0.5, lang_type: Any = None, font_path: str | os.PathLike[str] | None = None) -> None:
        self.text_score, self.lang_type, self.font_path = text_score, lang_type, font_path

    def __call__(self, img_content: Any, dt_boxes: Any, txts: Sequence[str] | None = None, scores: Sequence[float] | None = None) -> Pixels:
        scores = [1.0] * len(dt_boxes) if scores is None else scores
        texts = [f"{score:.3f}" for score in scores] if txts is None else txts
        shown = [
            TextLine(text, score, np.asarray(box, np.float32))
            for box, text, score in zip(dt_boxes, texts, scores, strict=True)
            if txts is None or score >= self.text_score
        ]
        picture = _photo(img_content)
        page = OcrResult(tuple(shown), *picture.size)
        return np.ascontiguousarray(np.asarray(draw.draw(page, picture, self.font_path))[:, :, ::-1])


def bgr(image: Any) -> Pixels:
    """What can be read, as pixels."""
    draw.require_pillow()
    return np.ascontiguousarray(np.asarray(_photo(image))[:, :, ::-1])


def _photo(image: Any) -> Any:
    return draw.photo(image.load() if isinstance(image, Source) else image)


def _strips(images: Iterable[Any], texts: Iterable[str]) -> Pixels:
    """Lines among each other, each with its text beside it."""
    drawn = []
    for image, text in zip(images, texts, strict=True):
        height, width = bgr(image).shape[:2]
        drawn.append(VisRes(0.0)(image, [[[0, 0], [width, 0], [width, height], [0, height]]], [text]))
    widest = max(strip.shape[1] for strip in drawn)
    return np.concatenate([np.pad(strip, ((0, 0), (0, widest - strip.shape[1]), (0, 0)), constant_values=255) for strip in drawn])


def _saved(picture: Pixels, path: str | os.PathLike[str] | None) -> Pixels:
    if path is not None:
        from PIL import Image

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[:, :, ::-1]).save(path)
    return picture


def _nothing(to: str) -> None:
    logging.getLogger("threadsafe_ocr").warning("there is nothing to %s", to)


# A row's texts overlap by this share of the lower one's height, or their middles differ by less than that one.
OVERLAP, MIDDLES = 0.5, 0.35
# An empty line stands for a gap of this share of the higher row.
GAP = 0.8
MOST_BLANKS = 12
NO_TEXT = "没有检测到任何文本。"


class Span(NamedTuple):
    """A text's, or a row's, upright rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def middle(self) -> float:
        return self.top + (self.bottom - self.top) / 2

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def around(self, other: Span) -> Span:
        return Span(min(self.left, other.left), min(self.top, other.top), max(self.right, other.right), max(self.bottom, other.bottom))

    def is_in_row_of(self, row: Span) -> bool:
        least = max(min(self.height, row.height), 1.0)
        overlap = min(row.bottom, self.bottom) - max(row.top, self.top)
        return overlap / least > OVERLAP or abs(self.middle - row.middle) < least * MIDDLES


def markdown(boxes: Boxes | None, texts: Sequence[str] | None) -> str:
    """Texts in rows, as `RapidOCROutput.to_markdown` of RapidOCR 3.10 lays them out; its constants are those above."""
    if boxes is None or texts is None:
        return NO_TEXT
    spans = [Span(*box.min(axis=0).tolist(), *box.max(axis=0).tolist()) for box in boxes]
    rows: list[tuple[Span, list[tuple[Span, str]]]] = []
    for item in sorted(zip(spans, texts, strict=True), key=lambda item: (item[0].middle, item[0].left)):
        at = next((i for i, (row, _) in enumerate(rows) if item[0].is_in_row_of(row)), None)
        if at is None:
            rows.append((item[0], [item]))
        else:
            row, items = rows[at]
            rows[at] = (row.around(item[0]), [*items, item])
    rows.sort(key=lambda row: (row[0].top, row[0].left))
    lines = []
    for i, (row, items) in enumerate(rows):
        above = rows[i - 1][0] if i else row
        if i and row.top - above.bottom > max(above.height, row.height) * GAP:
            lines.append("")
        items.sort(key=lambda item: item[0].left)
        gaps = ["", *(_blanks(a, b) for (a, _), (b, _) in itertools.pairwise(items))]
        lines.append("".join(gap + text for gap, (_, text) in zip(gaps, items, strict=True)))
    return "\n".join(lines)


def _blanks(before: Span, after: Span) -> str:
    """One for every half of the narrower text's width, at least one where there is a gap."""
    gap = after.left - before.right
    if gap <= 1:
        return ""
    narrower = max(min(before.right - before.left, after.right - after.left), 1.0)
    return " " * min(max(round(gap / max(narrower * 0.5, 1.0)), 1), MOST_BLANKS)
