"""The keywords of PaddleOCR's two generations, and what each generation does where nothing is said."""

from __future__ import annotations

import logging
from typing import Any

from threadsafe_ocr.exceptions import ConfigError, InvalidArgumentError

_BOTH: dict[str, Any] = {
    "det_thresh": 0.3,
    "det_box_thresh": 0.6,
    "det_unclip_ratio": 1.5,
    "det_use_dilation": False,
    "det_score_mode": "fast",
    "cls_thresh": 0.9,
    "rec_group": 6,
    "rec_min_width": 320,
    "rec_width_step": 1,
}
# Of 2.7 to 2.10; whether single lines are turned is up to the call.
PADDLE2: dict[str, Any] = {
    **_BOTH,
    "numerics": "paddle2",
    "det_limit_side_len": 960,
    "det_limit_type": "max",
    "det_max_side": 65536,
    "det_max_candidates": 1000,
    "rec_score_thresh": 0.5,
    "rec_max_width": 65536,
    "use_textline_orientation": False,
}
# Of 3.7's pipeline "OCR"; its max_candidates are those of the detection model.
PADDLE3: dict[str, Any] = {
    **_BOTH,
    "numerics": "paddle3",
    "det_limit_side_len": 64,
    "det_limit_type": "min",
    "det_max_side": 4000,
    "rec_score_thresh": 0.0,
    "rec_max_width": 3200,
    "use_textline_orientation": True,
}

# Name in 2.x, in 3.x -> the engine's option, which is understood too.
_NAMES = [
    ("det_limit_side_len", "text_det_limit_side_len", "det_limit_side_len"),
    ("det_limit_type", "text_det_limit_type", "det_limit_type"),
    ("det_db_thresh", "text_det_thresh", "det_thresh"),
    ("det_db_box_thresh", "text_det_box_thresh", "det_box_thresh"),
    ("det_db_unclip_ratio", "text_det_unclip_ratio", "det_unclip_ratio"),
    ("use_dilation", None, "det_use_dilation"),
    ("det_db_score_mode", None, "det_score_mode"),
    (None, "text_det_max_side_limit", "det_max_side"),
    ("use_angle_cls", "use_textline_orientation", "use_textline_orientation"),
    ("cls_thresh", None, "cls_thresh"),
    ("drop_score", "text_rec_score_thresh", "rec_score_thresh"),
    ("rec_batch_num", "text_recognition_batch_size", "rec_group"),
]
OPTIONS = {name: names[-1] for names in _NAMES for name in names if name}
# What `args` of a 2.x object has where nothing was said.
DEFAULTS_OF_2 = {"lang": "ch", "page_num": 0, **{second: PADDLE2[option] for second, _, option in _NAMES if second}}

# 3.x refuses other keywords than its own; these it still knows, and says by which name.
DEPRECATED = {
    "det_model_dir": "text_detection_model_dir",
    "det_limit_side_len": "text_det_limit_side_len",
    "det_limit_type": "text_det_limit_type",
    "det_db_thresh": "text_det_thresh",
    "det_db_box_thresh": "text_det_box_thresh",
    "det_db_unclip_ratio": "text_det_unclip_ratio",
    "rec_model_dir": "text_recognition_model_dir",
    "rec_batch_num": "text_recognition_batch_size",
    "use_angle_cls": "use_textline_orientation",
    "cls_model_dir": "textline_orientation_model_dir",
    "cls_batch_num": "textline_orientation_batch_size",
}
# The parameters of 3.7's constructor, in its order.
_PARAMETERS_OF_3 = (
    "doc_orientation_classify_model_name", "doc_orientation_classify_model_dir", "doc_unwarping_model_name", "doc_unwarping_model_dir",
    "text_detection_model_name", "text_detection_model_dir", "textline_orientation_model_name", "textline_orientation_model_dir",
    "textline_orientation_batch_size", "text_recognition_model_name", "text_recognition_model_dir", "text_recognition_batch_size",
    "use_doc_orientation_classify", "use_doc_unwarping", "use_textline_orientation", "text_det_limit_side_len", "text_det_limit_type",
    "text_det_thresh", "text_det_box_thresh", "text_det_unclip_ratio", "text_det_input_shape", "text_rec_score_thresh", "return_word_box",
    "text_rec_input_shape", "lang", "ocr_version",
)  # fmt: skip
_KNOWN_TO_3 = {
    *DEPRECATED, *_PARAMETERS_OF_3,
    "paddlex_config", "device", "engine", "engine_config", "enable_hpi", "use_tensorrt", "precision", "enable_mkldnn",
    "mkldnn_cache_capacity", "cpu_threads", "enable_cinn",
}  # fmt: skip

_log = logging.getLogger("threadsafe_ocr")
_told: set[str] = set()


def take(keywords: dict[str, Any]) -> dict[str, Any]:
    """Takes the engine's options out of `keywords`, by whichever name; None is the default. Raises ConfigError where two names differ."""
    return take_named(keywords, OPTIONS)


def take_named(keywords: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Takes what has a name of `names`, under what that name means. Raises ConfigError where two names mean one thing."""
    found: dict[str, Any] = {}
    by: dict[str, str] = {}
    for name in [name for name in keywords if name in names]:
        value = keywords.pop(name)
        if value is None:
            continue
        meaning = names[name]
        if meaning in by:
            raise ConfigError(f"`{by[meaning]}` and `{name}` are mutually exclusive: they mean the same")
        by[meaning] = name
        # 2.x's argument parser has it as a float.
        found[meaning] = int(value) if meaning == "det_limit_side_len" else value
    return found


def by_name(positional: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords, with what was given without a name in 3.x's order. Raises TypeError as Python does."""
    if len(positional) > len(_PARAMETERS_OF_3):
        raise TypeError(f"PaddleOCR() takes {len(_PARAMETERS_OF_3)} positional arguments but {len(positional)} were given")
    named = dict(zip(_PARAMETERS_OF_3, positional, strict=False))
    if twice := named.keys() & keywords.keys():
        raise TypeError(f"PaddleOCR() got multiple values for argument {min(twice)!r}")
    return {**{name: value for name, value in named.items() if value is not None}, **keywords}


def tell_without_effect(names: set[str]) -> None:
    """Says once a process which keywords do nothing here."""
    new = names - _told
    if new:
        _told.update(new)
        _log.info("PaddleOCR's keywords without effect here: %s", ", ".join(sorted(new)))


def refuse_unknown_to_3(names: set[str]) -> None:
    """As 3.x does."""
    if unknown := names - _KNOWN_TO_3:
        raise InvalidArgumentError(f"Unknown argument: {min(unknown)}")
