"""The keywords of `ThreadSafeOCR` and of its calls. What they mean, and their defaults, is in docs/settings.md; None is the default."""

from __future__ import annotations

from typing import Literal, TypedDict

Color = Literal["bgr", "rgb"]


class Options(TypedDict, total=False):
    """What a call may be given, and the constructor for all calls."""

    numerics: Literal["paddle2", "paddle3", "rapidocr", "mineru", "mineru4"] | None
    page_max_side: int | None
    page_min_side: int | None
    page_pad_ratio: float | None
    page_pad_height: int | None
    det_limit_side_len: int | None
    det_limit_type: Literal["min", "max", "resize_long", "auto"] | None
    det_max_side: int | None
    det_thresh: float | None
    det_box_thresh: float | None
    det_unclip_ratio: float | None
    det_use_dilation: bool | None
    det_score_mode: Literal["fast", "slow"] | None
    det_max_candidates: int | None
    use_doc_orientation: bool | None
    use_textline_orientation: bool | None
    cls_thresh: float | None
    rec_score_thresh: float | None
    rec_width_step: int | None
    rec_min_width: int | None
    rec_max_width: int | None
    rec_group: int | None


class CallOptions(Options, total=False):
    """All keywords of a call."""

    timeout: float | None
    wait: bool
    color: Color


class Settings(Options, total=False):
    """Keywords of the constructor, beside `models`, `device` and `precision`."""

    timeout: float | None
    max_pixels: int | None
    max_queue_size: int | None
    max_queue_bytes: int | None
    on_fork: Literal["rebuild", "error"] | None
    run_size: int | None
    intra_op_num_threads: int | None
    activation_bytes: int | None
