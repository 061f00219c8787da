"""The configuration that 3.x exports: PaddleX's pipeline "OCR" with what was asked for."""

from __future__ import annotations

import json
from typing import Any


def config(options: dict[str, Any], models: dict[str, str], *, words: bool) -> dict[str, Any]:
    """options: the engine's. models: "det", "rec" and "ori" -> the model's name."""
    return {
        "pipeline_name": "OCR",
        "text_type": "general",
        "use_doc_preprocessor": False,
        "use_textline_orientation": options["use_textline_orientation"],
        "SubModules": {
            "TextDetection": {
                "module_name": "text_detection",
                "model_name": models["det"],
                "limit_side_len": options["det_limit_side_len"],
                "limit_type": options["det_limit_type"],
                "max_side_limit": options["det_max_side"],
                "thresh": options["det_thresh"],
                "box_thresh": options["det_box_thresh"],
                "unclip_ratio": options["det_unclip_ratio"],
            },
            "TextLineOrientation": {"module_name": "textline_orientation", "model_name": models["ori"], "batch_size": 6},
            "TextRecognition": {
                "module_name": "text_recognition",
                "model_name": models["rec"],
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
