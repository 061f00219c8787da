"""PaddleX's configuration of the pipeline "OCR", which 3.x takes as `paddlex_config` and exports."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from threadsafe_ocr.exceptions import ConfigError

# Part, and a value's name in it -> 3.x's keyword.
_TOP = {"use_textline_orientation": "use_textline_orientation"}
_PARTS = {
    ("SubModules", "TextDetection"): {
        "model_name": "text_detection_model_name",
        "model_dir": "text_detection_model_dir",
        "limit_side_len": "text_det_limit_side_len",
        "limit_type": "text_det_limit_type",
        "max_side_limit": "text_det_max_side_limit",
        "thresh": "text_det_thresh",
        "box_thresh": "text_det_box_thresh",
        "unclip_ratio": "text_det_unclip_ratio",
    },
    ("SubModules", "TextLineOrientation"): {
        "model_name": "textline_orientation_model_name",
        "model_dir": "textline_orientation_model_dir",
    },
    ("SubModules", "TextRecognition"): {
        "model_name": "text_recognition_model_name",
        "model_dir": "text_recognition_model_dir",
        "batch_size": "text_recognition_batch_size",
        "score_thresh": "text_rec_score_thresh",
        "return_word_box": "return_word_box",
    },
    ("SubPipelines", "DocPreprocessor"): {
        "use_doc_orientation_classify": "use_doc_orientation_classify",
        "use_doc_unwarping": "use_doc_unwarping",
    },
}


def keywords(given: Any) -> dict[str, Any]:
    """3.x's keywords for what a configuration says; `given` is one, or the path of a YAML file, which needs PyYAML. Raises ConfigError."""
    content = given if isinstance(given, dict) else _read(Path(given))
    found = {keyword: content[name] for name, keyword in _TOP.items() if content.get(name) is not None}
    for (group, part), names in _PARTS.items():
        values = (content.get(group) or {}).get(part) or {}
        found |= {keyword: values[name] for name, keyword in names.items() if values.get(name) is not None}
    if content.get("use_doc_preprocessor") is False:
        found |= {"use_doc_orientation_classify": False, "use_doc_unwarping": False}
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise ConfigError(f"paddlex_config={str(path)!r} needs PyYAML (pip install pyyaml); or give its content as a dict") from None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"paddlex_config={str(path)!r} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"paddlex_config={str(path)!r} is no configuration of a pipeline")
    return content


def config(options: dict[str, Any], models: dict[str, dict[str, Any]], steps: dict[str, bool], *, words: bool) -> dict[str, Any]:
    """options: the engine's. models: "det", "rec" and "cls" -> model_name and model_dir. steps: what is done to a page before."""
    return {
        "pipeline_name": "OCR",
        "text_type": "general",
        "use_doc_preprocessor": any(steps.values()),
        "use_textline_orientation": options["use_textline_orientation"],
        "SubPipelines": {
            "DocPreprocessor": {
                "pipeline_name": "doc_preprocessor",
                **steps,
                "SubModules": {
                    "DocOrientationClassify": {"module_name": "doc_text_orientation", "model_name": "PP-LCNet_x1_0_doc_ori"},
                    "DocUnwarping": {"module_name": "image_unwarping", "model_name": "UVDoc"},
                },
            },
        },
        "SubModules": {
            "TextDetection": {
                "module_name": "text_detection",
                **models["det"],
                "limit_side_len": options["det_limit_side_len"],
                "limit_type": options["det_limit_type"],
                "max_side_limit": options["det_max_side"],
                "thresh": options["det_thresh"],
                "box_thresh": options["det_box_thresh"],
                "unclip_ratio": options["det_unclip_ratio"],
            },
            "TextLineOrientation": {"module_name": "textline_orientation", **models["cls"], "batch_size": 6},
            "TextRecognition": {
                "module_name": "text_recognition",
                **models["rec"],
                "batch_size": options["rec_group"],
                "score_thresh": options["rec_score_thresh"],
                "return_word_box": words,
            },
        },
    }


def to_yaml(value: dict[str, Any], indent: str = "") -> str:
    """Nested mappings of plain values, which JSON and YAML write alike."""
    rows = []
    for key, item in value.items():
        rows.append(f"{indent}{key}:\n{to_yaml(item, indent + '  ')}" if isinstance(item, dict) else f"{indent}{key}: {json.dumps(item)}\n")
    return "".join(rows)
