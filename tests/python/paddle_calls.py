"""The calls of PaddleOCR whose answers are recorded (scripts/record_compat.py) and compared; knows no OCR package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PAGES = Path(__file__).parents[1] / "data" / "pages"
BAND = PAGES / "formats" / "rgb.png"
TURNED = PAGES / "formats" / "exif6.jpg"
TRANSPARENT = PAGES / "formats" / "black_on_transparent.png"
CROP = PAGES / "rec_lines" / "en0005.png"
BLANK = np.full((200, 300, 3), 255, np.uint8)
SLICES = {"horizontal_stride": 300, "vertical_stride": 200, "merge_x_thres": 50, "merge_y_thres": 35}


def make_files(folder: Path) -> None:
    """The pages of BAND in the forms that have more than one: the same pixels in all of them, so that no decoder or renderer matters."""
    page = _part(np.asarray(Image.open(BAND).convert("L")))
    upper, lower = (Image.fromarray(np.where(page[rows] < 128, 0, 255).astype(np.uint8)) for rows in (slice(130), slice(130, 260)))
    more = {"save_all": True, "append_images": [lower.convert("1")]}
    upper.convert("1").save(folder / "two_pages.pdf", resolution=144, **more)
    upper.convert("1").save(folder / "two_pages.tif", compression="group4", **more)
    # Coloured, since 2.x takes red for blue here.
    coloured = [frame.convert("P") for frame in (upper, lower)]
    for frame in coloured:
        frame.putpalette([value for level in range(256) for value in (level, level // 2, 255)])
    coloured[0].save(folder / "two_frames.gif", save_all=True, append_images=coloured[1:])
    inner = folder / "folder" / "inner"
    inner.mkdir(parents=True)
    lower.save(folder / "folder" / "b.png")
    upper.save(folder / "folder" / "a.bmp")
    upper.save(folder / "folder" / "C.PNG")
    lower.save(inner / "a.png")
    (folder / "folder" / "notes.txt").write_text("no image")
    (folder / "empty").mkdir()


def calls2(ocr: Any, read: Any, folder: Path) -> dict[str, Any]:
    """Of 2.x; `read` gives the pixels of a path as `cv2.imread(path, IMREAD_UNCHANGED)`; `folder` has what `make_files` makes."""
    page, clear = _part(read(BAND)), _part(read(TRANSPARENT))
    crop = read(CROP)
    upside_down = np.ascontiguousarray(crop[::-1, ::-1])
    return {
        "ocr(path)": lambda: ocr.ocr(str(BAND)),
        "ocr(path, EXIF)": lambda: ocr.ocr(str(TURNED)),
        "ocr(path, transparent)": lambda: ocr.ocr(str(TRANSPARENT)),
        "ocr(bytes)": lambda: ocr.ocr(TRANSPARENT.read_bytes()),
        "ocr(PDF)": lambda: ocr.ocr(str(folder / "two_pages.pdf")),
        "ocr(PDF, rec=False)": lambda: ocr.ocr(str(folder / "two_pages.pdf"), rec=False),
        "ocr(GIF)": lambda: ocr.ocr(str(folder / "two_frames.gif")),
        "ocr(TIFF)": lambda: ocr.ocr(str(folder / "two_pages.tif")),
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
        "ocr([arrays])": lambda: ocr.ocr([page, BLANK]),
        "ocr(None)": lambda: ocr.ocr(None),
        "ocr(missing)": lambda: ocr.ocr("missing.png"),
        "ocr(no image)": lambda: ocr.ocr(b"no image"),
    }


def calls3(ocr: Any, read: Any, folder: Path) -> dict[str, Any]:
    """Of 3.x; `read` gives the pixels of a path as `cv2.imread(path)`; `folder` has what `make_files` makes."""
    page = _part(read(BAND))
    clear = np.dstack([page, np.zeros(page.shape[:2], np.uint8)])
    return {
        "predict(array)": lambda: ocr.predict(page),
        "predict(BGRA)": lambda: ocr.predict(clear),
        "predict(gray)": lambda: ocr.predict(np.ascontiguousarray(page[:, :, 1])),
        "predict(tiny)": lambda: ocr.predict(page[:5, :5]),
        "predict(path)": lambda: ocr.predict(str(BAND)),
        "predict(path, EXIF)": lambda: ocr.predict(str(TURNED)),
        "predict(TIFF)": lambda: ocr.predict(str(PAGES / "formats" / "lzw.tif")),
        "predict(TIFF of two pages)": lambda: ocr.predict(str(folder / "two_pages.tif")),
        "predict(PDF)": lambda: ocr.predict(str(folder / "two_pages.pdf")),
        "predict(folder)": lambda: ocr.predict(str(folder / "folder")),
        "predict(empty folder)": lambda: ocr.predict(str(folder / "empty")),
        "predict(blank)": lambda: ocr.predict(BLANK),
        "predict(blank, return_word_box)": lambda: ocr.predict(BLANK, return_word_box=True),
        "predict(return_word_box)": lambda: ocr.predict(page, return_word_box=True),
        "predict(text_rec_score_thresh)": lambda: ocr.predict(page, text_rec_score_thresh=0.99),
        "predict(limit)": lambda: ocr.predict(page, text_det_limit_side_len=320, text_det_limit_type="max"),
        "predict(thresholds)": lambda: ocr.predict(page, text_det_thresh=0.5, text_det_box_thresh=0.9, text_det_unclip_ratio=1.2),
        "predict(thresholds of 0)": lambda: ocr.predict(page, text_det_thresh=0, text_det_box_thresh=0.0, text_rec_score_thresh=0.0),
        "predict([array, path])": lambda: ocr.predict([page, str(CROP)]),
        "predict([PDF, folder])": lambda: ocr.predict([str(folder / "two_pages.pdf"), str(folder / "folder")]),
        "predict_iter": lambda: list(ocr.predict_iter(page)),
        "ocr": lambda: ocr.ocr(page),
        "ocr(cls)": lambda: ocr.ocr(page, cls=True),
        "json": lambda: ocr.predict(str(CROP), return_word_box=True)[0].json,
        "json(blank)": lambda: ocr.predict(BLANK)[0].json,
        "str": lambda: ocr.predict(str(CROP))[0].str,
        "img": lambda: {key: picture.size for key, picture in ocr.predict(str(CROP))[0].img.items()},
        "save_to_json": lambda: _saved(ocr.predict(str(folder / "two_pages.pdf")), "save_to_json", folder / "json"),
        "save_to_img": lambda: _saved(ocr.predict(str(folder / "two_pages.pdf")), "save_to_img", folder / "img"),
        "save_all": lambda: _saved(ocr.predict(str(CROP)), "save_all", folder / "all"),
        "predict([])": lambda: ocr.predict([]),
        "predict(None)": lambda: ocr.predict(None),
        "predict(bytes)": lambda: ocr.predict(CROP.read_bytes()),
        "predict(Path)": lambda: ocr.predict(CROP),
        "predict(number)": lambda: ocr.predict(7),
        "predict(unknown suffix)": lambda: ocr.predict("page.xyz"),
        "predict(missing)": lambda: ocr.predict("missing.png"),
    }


def _part(page: np.ndarray) -> np.ndarray:
    """A few lines: there are many calls."""
    return np.ascontiguousarray(page[:260, :700])


def _saved(results: Any, method: str, folder: Path) -> dict[str, Any]:
    """The files that a method of results writes, with what the JSON ones say."""
    for result in results:
        getattr(result, method)(str(folder))
    return {path.name: json.loads(path.read_text("utf-8")) if path.suffix == ".json" else "file" for path in sorted(folder.iterdir())}


def answer(call: Any, folder: Path) -> Any:
    """What a call gives, as JSON that keeps kinds apart; of an error its classes. Paths are told from `folder` and PAGES."""
    try:
        return described(call(), (str(PAGES), str(folder)))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - errors are answers
        return {"raises": [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]}


def described(value: Any, roots: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        # Kinds of results are told by their keys.
        return {
            "dict": {key: "image" if key == "output_img" else described(item, roots) for key, item in value.items() if key != "vis_fonts"}
        }
    if isinstance(value, (tuple, list)):
        items = [described(item, roots) for item in value]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        return {"pixels": [*value.shape, int(value.astype(np.int64).sum())]}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, np.generic):
        return {"scalar": value.item(), "dtype": str(value.dtype)}
    if isinstance(value, str):
        for root in roots:
            value = value.replace(root, "")
    return value
