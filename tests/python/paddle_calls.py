"""The calls of PaddleOCR whose answers are recorded (scripts/record_compat.py) and compared; knows no OCR package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

PAGES = Path(__file__).parents[1] / "data" / "pages"
BAND = PAGES / "formats" / "rgb.png"
TURNED = PAGES / "formats" / "exif6.jpg"
TRANSPARENT = PAGES / "formats" / "black_on_transparent.png"
CROP = PAGES / "rec_lines" / "en0005.png"
BLANK = np.full((200, 300, 3), 255, np.uint8)
SLICES = {"horizontal_stride": 300, "vertical_stride": 200, "merge_x_thres": 50, "merge_y_thres": 35}


def calls2(ocr: Any, read: Any) -> dict[str, Any]:
    """Of 2.x; `read` gives the pixels of a path as `cv2.imread(path, IMREAD_UNCHANGED)`."""
    page, clear = _part(read(BAND)), _part(read(TRANSPARENT))
    crop = read(CROP)
    upside_down = np.ascontiguousarray(crop[::-1, ::-1])
    return {
        "ocr(path)": lambda: ocr.ocr(str(BAND)),
        "ocr(path, EXIF)": lambda: ocr.ocr(str(TURNED)),
        "ocr(bytes)": lambda: ocr.ocr(TRANSPARENT.read_bytes()),
        "ocr(array)": lambda: ocr.ocr(page),
        "ocr(gray)": lambda: ocr.ocr(np.ascontiguousarray(page[:, :, 1])),
        "ocr(BGRA)": lambda: ocr.ocr(clear),
        "ocr(BGRA, alpha_color)": lambda: ocr.ocr(clear, alpha_color=(250, 240, 20)),
        "ocr(upside down)": lambda: ocr.ocr(np.ascontiguousarray(page[::-1, ::-1])),
        "ocr(upside down, cls=False)": lambda: ocr.ocr(np.ascontiguousarray(page[::-1, ::-1]), cls=False),
        "ocr(inv)": lambda: ocr.ocr(page, inv=True),
        "ocr(bin)": lambda: ocr.ocr(page, bin=True),
        "ocr(bin, inv)": lambda: ocr.ocr(page, bin=True, inv=True),
        "ocr(slice)": lambda: ocr.ocr(page, slice=SLICES),
        "ocr(blank)": lambda: ocr.ocr(BLANK),
        "ocr(rec=False)": lambda: ocr.ocr(page, rec=False),
        "ocr(blank, rec=False)": lambda: ocr.ocr(BLANK, rec=False),
        "ocr(crop, det=False)": lambda: ocr.ocr(crop, det=False),
        "ocr(crop path, det=False)": lambda: ocr.ocr(str(CROP), det=False),
        "ocr([crops], det=False)": lambda: ocr.ocr([crop, upside_down], det=False),
        "ocr([crops], det=False, cls=False)": lambda: ocr.ocr([crop, upside_down], det=False, cls=False),
        "ocr(crop, det=False, rec=False)": lambda: ocr.ocr(crop, det=False, rec=False),
        "ocr([crops], det=False, rec=False)": lambda: ocr.ocr([crop, upside_down], det=False, rec=False),
        "ocr([crops], det=False, rec=False, cls=False)": lambda: ocr.ocr([crop, upside_down], det=False, rec=False, cls=False),
        "__call__": lambda: ocr(page)[:2],
        "__call__(blank)": lambda: ocr(BLANK)[:2],
        "__call__(None)": lambda: ocr(None),
        "__call__(slice)": lambda: ocr(page, slice=SLICES)[:2],
        "text_detector": lambda: ocr.text_detector(page)[:1],
        "text_detector(long, use_slice)": lambda: ocr.text_detector(np.concatenate([page] * 5), use_slice=True)[:1],
        "text_recognizer": lambda: ocr.text_recognizer([crop, upside_down])[:1],
        "text_classifier": lambda: ocr.text_classifier([crop, upside_down])[:2],
        "ocr(None)": lambda: ocr.ocr(None),
        "ocr(missing)": lambda: ocr.ocr("missing.png"),
        "ocr(no image)": lambda: ocr.ocr(b"no image"),
    }


def calls3(ocr: Any, read: Any) -> dict[str, Any]:
    """Of 3.x; `read` gives the pixels of a path as `cv2.imread(path)`."""
    page = _part(read(BAND))
    clear = np.dstack([page, np.zeros(page.shape[:2], np.uint8)])
    return {
        "predict(array)": lambda: ocr.predict(page),
        "predict(BGRA)": lambda: ocr.predict(clear),
        "predict(path)": lambda: ocr.predict(str(BAND)),
        "predict(path, EXIF)": lambda: ocr.predict(str(TURNED)),
        "predict(TIFF)": lambda: ocr.predict(str(PAGES / "formats" / "lzw.tif")),
        "predict(blank)": lambda: ocr.predict(BLANK),
        "predict(blank, return_word_box)": lambda: ocr.predict(BLANK, return_word_box=True),
        "predict(return_word_box)": lambda: ocr.predict(page, return_word_box=True),
        "predict(text_rec_score_thresh)": lambda: ocr.predict(page, text_rec_score_thresh=0.99),
        "predict(limit)": lambda: ocr.predict(page, text_det_limit_side_len=320, text_det_limit_type="max"),
        "predict(thresholds)": lambda: ocr.predict(page, text_det_thresh=0.5, text_det_box_thresh=0.9, text_det_unclip_ratio=1.2),
        "predict([array, path])": lambda: ocr.predict([page, str(CROP)]),
        "predict_iter": lambda: list(ocr.predict_iter(page)),
        "json": lambda: ocr.predict(str(CROP), return_word_box=True)[0].json,
        "json(blank)": lambda: ocr.predict(BLANK)[0].json,
        "str": lambda: ocr.predict(str(CROP))[0].str,
        "img": lambda: {key: picture.size for key, picture in ocr.predict(str(CROP))[0].img.items()},
        "predict([])": lambda: ocr.predict([]),
        "predict(None)": lambda: ocr.predict(None),
        "predict(unknown suffix)": lambda: ocr.predict("page.xyz"),
        "predict(missing)": lambda: ocr.predict("missing.png"),
    }


def _part(page: np.ndarray) -> np.ndarray:
    """A few lines: there are many calls."""
    return np.ascontiguousarray(page[:260, :700])


def answer(call: Any) -> Any:
    """What a call gives, as JSON that keeps kinds apart; of an error its classes."""
    try:
        return described(call())
    except (Exception, SystemExit) as error:  # noqa: BLE001 - errors are answers
        return {"raises": [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]}


def described(value: Any) -> Any:
    if isinstance(value, dict):
        # Kinds of results are told by their keys.
        return {"dict": {key: "image" if key == "output_img" else described(item) for key, item in value.items() if key != "vis_fonts"}}
    if isinstance(value, tuple):
        return {"tuple": [described(item) for item in value]}
    if isinstance(value, list):
        return [described(item) for item in value]
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        return {"pixels": [*value.shape, int(value.astype(np.int64).sum())]}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, np.generic):
        return {"scalar": value.item(), "dtype": str(value.dtype)}
    if isinstance(value, str) and value.startswith(str(PAGES)):
        return value.removeprefix(str(PAGES))
    return value
