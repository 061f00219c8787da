"""Which of our model sets read in place of the models that PaddleOCR would take, by its rules for language, version, name and folder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from threadsafe_ocr import model_sets
from threadsafe_ocr.compat import paddle_convert
from threadsafe_ocr.exceptions import InvalidArgumentError, ModelNotFoundError

VERSIONS = {"2": ("PP-OCR", "PP-OCRv2", "PP-OCRv3", "PP-OCRv4"), "3": ("PP-OCRv3", "PP-OCRv4", "PP-OCRv5", "PP-OCRv6")}

# Languages that share a model, as 3.7 groups them; 2.x's groups are parts of these.
_SCRIPTS = {
    "latin": "af az bs cs cy da de es et fr ga hr hu id is it ku la lt lv mi ms mt nl no oc pi pl pt ro rs_latin sk sl sq sv sw tl tr uz "
    "vi french german fi eu gl lb rm ca qu",
    "arabic": "ar fa ug ur ps sd bal",
    "eslav": "ru be uk",
    "cyrillic": "rs_cyrillic bg mn abq ady kbd ava dar inh che lbe lez tab kk ky tg mk tt cv ba mhr mo udm kv os bua xal tyv sah kaa",
    "devanagari": "hi mr ne bh mai ang bho mah sck new gom sa bgc",
}
_SCRIPT_OF = {language: script for script, languages in _SCRIPTS.items() for language in languages.split()}
_OTHERS = (
    "ch",
    "ch_doc",
    "en",
    "korean",
    "japan",
    "chinese_cht",
    "ta",
    "te",
    "ka",
    "th",
    "el",
    "latin",
    "arabic",
    "cyrillic",
    "devanagari",
)
# What the characters of PP-OCRv5 and PP-OCRv6 are those of.
_READ_BY_V6 = {"ch", "ch_doc", "en", "japan", "chinese_cht", "latin"}
# Abbreviations of languages in Latin letters that PP-OCRv6 reads; Pali's accents it lacks.
LATIN = frozenset({"en", "latin", *_SCRIPTS["latin"].split()} - {"pi"})

_SETS = {
    "PP-OCRv6_small": "v6-small",
    "PP-OCRv6_tiny": "v6-tiny",
    "PP-OCRv5_mobile": "v5-mobile",
    "PP-OCRv4_mobile": "v4-mobile",
    # 2.x's name of the same.
    "ch_PP-OCRv4": "v4-mobile",
}
_NEAREST = "v6-small"
_CLS = "ch_ppocr_mobile_v2.0_cls"
_DOC_ORIENTATION = "PP-LCNet_x1_0_doc_ori"

# Name of the keyword in 2.x, in 3.x -> what it names.
KEYWORDS = {
    "det_model_dir": "det_dir",
    "text_detection_model_dir": "det_dir",
    "text_detection_model_name": "det_name",
    "rec_model_dir": "rec_dir",
    "text_recognition_model_dir": "rec_dir",
    "text_recognition_model_name": "rec_name",
    "cls_model_dir": "cls_dir",
    "textline_orientation_model_dir": "cls_dir",
    "textline_orientation_model_name": "cls_name",
    "rec_char_dict_path": "dict",
    "lang": "lang",
    "ocr_version": "version",
}


@dataclass(frozen=True)
class Models:
    """What runs: `spec` is ThreadSafeOCR's argument; `used` has every model that was asked for and what reads in its place."""

    spec: Any
    used: dict[str, str]
    max_candidates: int
    replaced: dict[str, str] = field(default_factory=dict)


def check(named: dict[str, Any], generations: tuple[str, ...]) -> None:
    """Raises InvalidArgumentError where PaddleOCR knows no such language or version."""
    language, version = named.get("lang"), named.get("version")
    known = sorted({*_OTHERS, *_SCRIPT_OF})
    if language is not None and language not in known:
        raise InvalidArgumentError(f"No models are available for lang={language!r}; the languages are {', '.join(known)}")
    versions = [version for generation in generations for version in VERSIONS[generation]]
    if version is not None and version not in versions:
        raise InvalidArgumentError(f"Invalid OCR version: {version}; the versions are {', '.join(dict.fromkeys(versions))}")


def choose(generation: str, named: dict[str, Any]) -> Models:
    """The models of a generation for what `KEYWORDS` name.

    Raises ModelNotFoundError where no set here has the script, or what a folder was said to hold is not there.
    """
    det_wanted, rec_wanted = _wanted(generation, named)
    used, replaced, parts = {}, {}, {}
    for part, wanted in (("det", det_wanted), ("rec", rec_wanted)):
        if folder := named.get(f"{part}_dir"):
            parts[part] = used[wanted] = str(folder)
            continue
        parts[part] = _set_of(wanted)
        used[wanted] = parts[part]
        if not _is_of(parts[part], wanted):
            replaced[wanted] = parts[part]
    cls_wanted = named.get("cls_name") or (_CLS if generation == "2" else "PP-LCNet_x1_0_textline_ori")
    if (folder := named.get("cls_dir")) and _is_of_3x(Path(folder)):
        named = {name: value for name, value in named.items() if name != "cls_dir"}
    used[cls_wanted] = str(named.get("cls_dir") or _CLS)
    if not named.get("cls_dir") and cls_wanted != _CLS:
        replaced[cls_wanted] = _CLS
    if generation == "3":
        # Which way a page runs its lines vote on.
        used[_DOC_ORIENTATION] = replaced[_DOC_ORIENTATION] = used[cls_wanted]
    return Models(_spec(generation, parts, named), used, _max_candidates(generation, parts["det"]), replaced)


def _wanted(generation: str, named: dict[str, Any]) -> tuple[str, str]:
    """The names of the models that PaddleOCR would take."""
    det, rec = named.get("det_name"), named.get("rec_name")
    if generation == "3" and (det or rec or named.get("det_dir") or named.get("rec_dir")):
        # Its default for the one that is not named; language and version are not looked at.
        return det or "PP-OCRv6_medium_det", rec or "PP-OCRv6_medium_rec"
    language, version = named.get("lang") or "ch", named.get("version")
    script = _SCRIPT_OF.get(language, language)
    if generation == "2" and version in (None, *VERSIONS["2"]):
        version = version or "PP-OCRv4"
        script = "cyrillic" if script == "eslav" else script
        group = {"ch": "ch", "ch_doc": "ch", "en": "en", "latin": "en"}.get(script, "ml")
        return det or f"{group}_{version}_det", rec or f"{script}_{version}_rec"
    if version not in VERSIONS["3"]:
        version = "PP-OCRv6" if script in _READ_BY_V6 and language != "pi" else "PP-OCRv3" if language == "ka" else "PP-OCRv5"
    prefix = "" if script in ("ch", "ch_doc", "chinese_cht", "japan") else f"{script}_"
    if version == "PP-OCRv6":
        if script not in _READ_BY_V6 or language == "pi":
            raise InvalidArgumentError(f"No models are available for lang={language!r} and ocr_version={version!r}")
        names = "PP-OCRv6_medium_det", "PP-OCRv6_medium_rec"
    elif version == "PP-OCRv5":
        names = "PP-OCRv5_server_det", f"{prefix}PP-OCRv5_mobile_rec" if prefix else "PP-OCRv5_server_rec"
    else:
        names = f"{version}_mobile_det", f"{prefix}{version}_mobile_rec"
    return det or names[0], rec or names[1]


def _is_here(name: str) -> bool:
    return name in model_sets.added() or (name in model_sets.manifest()["sets"] and not model_sets.missing(name))


def _is_of(model_set: str, wanted: str) -> bool:
    """Whether the set is the very one the model belongs to."""
    return model_set in (wanted, _SETS.get(re.sub("_(det|rec)$", "", wanted)))


def _set_of(wanted: str) -> str:
    """The set that has this model, else the nearest that is here."""
    family = re.sub("_(det|rec)$", "", wanted)
    candidates = [wanted, _SETS.get(family, "")]
    script = re.match(r"(?:([a-z_]+)_)?PP-OCR", wanted)
    if script is None:
        known = ", ".join(f"{name}_det, {name}_rec" for name in _SETS if not name.startswith("ch_"))
        raise ModelNotFoundError(f"there is no model {wanted!r}; there is: {known}; own ones are given as folders, {_own(wanted)}")
    if wanted.endswith("_rec") and (language := script[1]) and language not in _READ_BY_V6:
        if wanted in model_sets.added():
            return wanted
        raise ModelNotFoundError(
            f"no model set here reads what {wanted} reads; there is: {', '.join(sorted(_READ_BY_V6))}. Convert that model to ONNX and give "
            f"its folder, {_own(wanted)}; or add it with a detection model: threadsafe-ocr models add FOLDER --name {wanted}"
        )
    if re.search(r"PP-OCR(?:v[234])?(?:_|$)", wanted) and "server" not in wanted and script[1] in (None, "ch"):
        candidates.append("v4-mobile")
    return next((name for name in candidates if name and _is_here(name)), _NEAREST)


def _own(wanted: str) -> str:
    if wanted.endswith("_det"):
        return "det_model_dir or text_detection_model_dir"
    return "rec_model_dir or text_recognition_model_dir"


def _spec(generation: str, parts: dict[str, str], named: dict[str, Any]) -> Any:
    """A set's name where all is of one set, else the files."""
    given = [part for part in ("det", "rec", "cls") if named.get(f"{part}_dir")]
    if not given and parts["det"] == parts["rec"] and not named.get("dict"):
        return parts["det"]
    files: dict[str, Any] = {}
    for part in ("det", "rec"):
        files[part] = _folder(named[f"{part}_dir"]) if part in given else _file(parts[part], part)
    dictionary = named.get("dict") or (_own_dictionary(generation, files["rec"], named) if "rec" in given else _file(parts["rec"], "dict"))
    files["dict"] = str(dictionary) if dictionary else None
    files["cls"] = _folder(named["cls_dir"]) if "cls" in given else _file(_NEAREST, "cls")
    return files


def _is_of_3x(folder: Path) -> bool:
    """Whether it has 3.x's classifier of lines, which gets other pixels than 2.x's: 160 x 80 of them."""
    config = folder / "inference.yml"
    return config.is_file() and "PP-LCNet" in config.read_text(encoding="utf-8", errors="replace")


def _folder(given: Any) -> str:
    """A model that the caller gave: a folder with inference.onnx, or an ONNX file."""
    path = Path(given)
    if not path.exists():
        raise ModelNotFoundError(f"{path} is missing: a model is a folder with inference.onnx (and inference.yml), or an ONNX file")
    return str(paddle_convert.readable(path)) if path.is_dir() else str(path)


def _own_dictionary(generation: str, rec: str, named: dict[str, Any]) -> str | None:
    """2.x brings the characters of its Chinese model, and takes them where a model comes without; 3.x's models have an inference.yml."""
    beside = Path(rec) if Path(rec).is_dir() else Path(rec).parent
    if (beside / "inference.yml").is_file():
        return None
    if generation == "2" and named.get("lang") in (None, "ch") and (found := _file("v4-mobile", "dict")):
        return found
    raise ModelNotFoundError(
        f"{beside} has no inference.yml with the characters that the model reads; give rec_char_dict_path, the file that has one a line "
        "(PaddleOCR 2.x has them in ppocr/utils: en_dict.txt, ppocr_keys_v1.txt for ch, dict/*_dict.txt)"
    )


def _file(model_set: str, part: str) -> str | None:
    """The path of a set's part; None where the set has no such part."""
    sets = model_sets.manifest()["sets"]
    if model_set not in sets:
        path = model_sets.cache() / model_set / ("rec/dict.txt" if part == "dict" else f"{part}/inference.onnx")
        return str(path) if path.is_file() else None
    file = sets[model_set]["files"].get(part)
    found = model_sets.find(file["path"]) if file else None
    return str(found) if found else None


def _max_candidates(generation: str, det: str) -> int:
    """2.x has one number; 3.x reads it in the model's inference.yml."""
    if generation == "2":
        return 1000
    sets = model_sets.manifest()["sets"]
    if det in sets:
        return int(sets[det]["detection"]["max_candidates"])
    config = Path(det) / "inference.yml"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    found = re.search(r"^\s*max_candidates:\s*(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 1000
