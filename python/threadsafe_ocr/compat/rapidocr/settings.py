"""RapidOCR 3.10's configuration: its keys and defaults (`rapidocr/config.yaml`), and what they are in settings of `ThreadSafeOCR`."""

from __future__ import annotations

import copy
import hashlib
import os
import warnings
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from threadsafe_ocr import model_sets, runtime
from threadsafe_ocr.exceptions import ConfigError, ModelNotFoundError

Config = dict[str, Any]


class EngineType(Enum):
    """Only ONNX Runtime runs here; another one is named in a warning."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    PADDLE = "paddle"
    TORCH = "torch"
    TENSORRT = "tensorrt"
    MNN = "mnn"


class OCRVersion(Enum):
    PPOCRV4 = "PP-OCRv4"
    PPOCRV5 = "PP-OCRv5"
    PPOCRV6 = "PP-OCRv6"


class ModelType(Enum):
    MOBILE = "mobile"
    SERVER = "server"
    TINY = "tiny"
    SMALL = "small"
    MEDIUM = "medium"


class LangDet(Enum):
    CH = "ch"
    EN = "en"
    MULTI = "multi"


class LangCls(Enum):
    CH = "ch"


class LangRec(Enum):
    CH = "ch"
    CH_DOC = "ch_doc"
    EN = "en"
    ARABIC = "arabic"
    CHINESE_CHT = "chinese_cht"
    CYRILLIC = "cyrillic"
    DEVANAGARI = "devanagari"
    JAPAN = "japan"
    KOREAN = "korean"
    KA = "ka"
    LATIN = "latin"
    TA = "ta"
    TE = "te"
    ESLAV = "eslav"
    TH = "th"
    EL = "el"


DEFAULTS: Config = {
    "Global": {
        "text_score": 0.5, "use_det": True, "use_cls": True, "use_rec": True, "use_preprocess_img": True, "min_side_len": 30,
        "max_side_len": 2000, "use_vertical_padding": True, "min_height": 30, "width_height_ratio": 8, "return_word_box": False,
        "return_single_char_box": False, "font_path": None, "log_level": "info", "model_root_dir": None,
    },
    "EngineConfig": {engine.value: {} for engine in EngineType},
    "Det": {
        "engine_type": "onnxruntime", "lang_type": "ch", "model_type": "small", "ocr_version": "PP-OCRv6", "model_path": None,
        "limit_side_len": 736, "limit_type": "min", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "thresh": 0.3, "box_thresh": 0.5,
        "max_candidates": 1000, "unclip_ratio": 1.6, "use_dilation": True, "score_mode": "fast",
    },
    "Cls": {
        "engine_type": "onnxruntime", "lang_type": "ch", "model_type": "mobile", "ocr_version": "PP-OCRv4", "model_path": None,
        "cls_image_shape": [3, 48, 192], "cls_thresh": 0.9, "label_list": ["0", "180"],
    },
    "Rec": {
        "engine_type": "onnxruntime", "lang_type": "ch", "model_type": "small", "ocr_version": "PP-OCRv6", "model_path": None,
        "rec_keys_path": None, "rec_img_shape": [3, 48, 320], "rec_batch_num": 6,
    },
}  # fmt: skip

# What is not to be set here, because the networks or the steps are made for it.
FIXED = (("Det", "mean"), ("Det", "std"), ("Cls", "cls_image_shape"), ("Cls", "label_list"))

SETS = {
    ("PP-OCRv6", "small"): "v6-small",
    ("PP-OCRv6", "tiny"): "v6-tiny",
    ("PP-OCRv5", "mobile"): "v5-mobile",
    ("PP-OCRv4", "mobile"): "v4-mobile",
}
# Scripts that no set reads.
UNREAD = {"arabic", "cyrillic", "devanagari", "korean", "ka", "ta", "te", "eslav", "th", "el"}

# Detection's input for a page eight times as high as wide, in shorter sides; a longer one is reduced to it, where RapidOCR has no bound
# and a strip of 30 x 2000 pixels takes 6 GB. A wide page never gets there: it is padded.
LONGEST = 8


class Native(NamedTuple):
    """A configuration as arguments of `ThreadSafeOCR`."""

    models: str | dict[str, str]
    device: str
    options: dict[str, Any]


def load(config_path: str | os.PathLike[str] | None, params: dict[str, Any] | None) -> Config:
    """The defaults, a YAML file over them, and dotted keys such as "Det.box_thresh" over both.

    Raises ConfigError for a key that RapidOCR does not have, and for a file that is not there (RapidOCR then takes its defaults).
    """
    config = copy.deepcopy(DEFAULTS)
    if config_path is not None:
        for section, values in _read(Path(config_path)).items():
            _section(config, section).update({key: _plain(value) for key, value in (values or {}).items()})
    for name, value in (params or {}).items():
        section, _, key = name.partition(".")
        if not key or (section == "Global" and key not in DEFAULTS["Global"]):
            raise ConfigError(f"{name} is not a key of RapidOCR's configuration; they are Global.text_score, Det.box_thresh and the like")
        *parts, last = key.split(".")
        target = _section(config, section)
        for part in parts:
            target = target.setdefault(part, {})
        target[last] = _plain(value)
    return config


def _section(config: Config, name: str) -> Config:
    if name not in config:
        raise ConfigError(f"RapidOCR's configuration has no section {name}; there is: {', '.join(config)}")
    section: Config = config[name]
    return section


def _read(path: Path) -> Config:
    try:
        import yaml
    except ImportError as error:
        raise ConfigError('config_path needs PyYAML, which is not installed: pip install "threadsafe-ocr[rapidocr]"') from error
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"config_path={str(path)!r} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"config_path={str(path)!r} is not a configuration of RapidOCR: it has no sections")
    return content


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def native(config: Config) -> Native:
    """The configuration as models, device and options of `ThreadSafeOCR`; one UserWarning names what runs differently.

    Raises ConfigError for what is made otherwise here, ModelNotFoundError for networks that are not here.
    """
    for section, key in FIXED:
        if list(config[section][key]) != DEFAULTS[section][key]:
            raise ConfigError(f"{section}.{key} is {DEFAULTS[section][key]} here, not {config[section][key]}")
    channels, height, width = config["Rec"]["rec_img_shape"][:3]
    if (channels, height) != (3, 48):
        raise ConfigError(f"Rec.rec_img_shape is [3, 48, width] here, not {config['Rec']['rec_img_shape']}")
    everywhere, det = config["Global"], config["Det"]
    resize, pad = everywhere["use_preprocess_img"], everywhere["use_vertical_padding"]
    side, kind = int(det["limit_side_len"]), "max" if det["limit_type"] == "max" else "min"
    options = {
        "numerics": "rapidocr",
        "page_max_side": int(everywhere["max_side_len"]) if resize else 0,
        "page_min_side": int(everywhere["min_side_len"]) if resize else 0,
        "page_pad_ratio": max(float(everywhere["width_height_ratio"]), 0.0) if pad else 0.0,
        "page_pad_height": int(everywhere["min_height"]) if pad else 0,
        "det_limit_side_len": side,
        "det_limit_type": kind,
        "det_max_side": min(max(LONGEST * side, 32), 65_536),
        "det_thresh": det["thresh"],
        "det_box_thresh": det["box_thresh"],
        "det_unclip_ratio": det["unclip_ratio"],
        "det_use_dilation": det["use_dilation"],
        "det_score_mode": "fast" if det["score_mode"] == "fast" else "slow",
        "det_max_candidates": det["max_candidates"],
        "cls_thresh": config["Cls"]["cls_thresh"],
        "rec_score_thresh": everywhere["text_score"],
        "rec_group": config["Rec"]["rec_batch_num"],
        "rec_width_step": 1,
        "rec_min_width": int(width),
        "rec_max_width": 65_536,
    }
    replaced: list[str] = []
    models = _models(config, replaced)
    for section in ("Det", "Cls", "Rec"):
        if config[section]["engine_type"] != "onnxruntime":
            replaced.append(f"{section}.engine_type={config[section]['engine_type']} runs on onnxruntime")
    device = _device(config["EngineConfig"].get(config["Rec"]["engine_type"]) or {}, replaced)
    if replaced:
        warnings.warn(f"RapidOCR on threadsafe-ocr: {'; '.join(replaced)}", UserWarning, stacklevel=4)
    return Native(models, device, options)


def _device(engine: Config, replaced: list[str]) -> str:
    """The card where there is one that onnxruntime can use, as RapidOCR has it."""
    replaced += [f"{name} runs on the CPU" for name in ("use_dml", "use_cann", "use_coreml") if engine.get(name)]
    if not engine.get("use_cuda"):
        return "cpu"
    if not runtime.may_use_gpu():
        replaced.append("use_cuda runs on the CPU: onnxruntime-gpu is not installed, or found no card")
        return "cpu"
    # "auto" is the first card, or the CPU where that does not work.
    card = (engine.get("cuda_ep_cfg") or {}).get("device_id", 0)
    return f"cuda:{card}" if card else "auto"


def _models(config: Config, replaced: list[str]) -> str | dict[str, str]:
    language = str(config["Rec"]["lang_type"]).lower()
    if language in UNREAD and not config["Rec"]["model_path"]:
        raise ModelNotFoundError(f"no model set here reads {language!r}; give RapidOCR's network for it as Rec.model_path")
    paths = {part: config[section]["model_path"] for part, section in (("det", "Det"), ("cls", "Cls"), ("rec", "Rec"))}
    names = {part: _set(config, section, replaced) for part, section in (("det", "Det"), ("rec", "Rec")) if not paths[part]}
    if config["Cls"]["ocr_version"] != "PP-OCRv4" and not paths["cls"]:
        replaced.append(f"Cls.ocr_version={config['Cls']['ocr_version']} is PP-OCRv4 here")
    if names.get("rec") in ("v4-mobile", "v5-mobile") and language not in ("ch", "ch_doc"):
        replaced.append(f"Rec.lang_type={language} is ch here")
    if not any(paths.values()) and names["det"] == names["rec"]:
        return names["rec"]
    found = {part: str(paths[part] or model_sets.part(names.get(part, "v6-small"), part)) for part in paths}
    if paths["rec"]:
        found["dict"] = str(config["Rec"]["rec_keys_path"] or _dictionary(Path(paths["rec"])))
    return found


def _set(config: Config, section: str, replaced: list[str]) -> str:
    version, kind = config[section]["ocr_version"], config[section]["model_type"]
    found = SETS.get((version, kind))
    if found is not None and not model_sets.missing(found):
        return found
    remedy = f" ({model_sets.remedy(found)})" if found else ""
    replaced.append(f"{section} {version} {kind} is PP-OCRv6 small here{remedy}")
    return "v6-small"


def _dictionary(model: Path) -> Path:
    """A text file of the characters that RapidOCR's ONNX files carry inside, in the cache folder under its own hash."""
    if not model.is_file():
        raise ModelNotFoundError(f"Rec.model_path: there is no file {model}")
    characters = model_sets.metadata(model.read_bytes()).get("character")
    if not characters:
        raise ConfigError(f"{model} does not carry its characters; give a file with a character a line as Rec.rec_keys_path")
    content = characters.encode()
    place = model_sets.cache() / "dictionaries" / f"{hashlib.sha256(content).hexdigest()}.txt"
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = place.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(content)
        unfinished.replace(place)
    return place
