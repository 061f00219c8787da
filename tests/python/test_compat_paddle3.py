"""PaddleOCR 3.x's `predict`: what 3.7 answered on these pages, every key and kind, and what a result can do."""

from __future__ import annotations

import contextlib
import copy
import functools
import http.server
import json
import pickle
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from conftest import MODELS, PAGES, until, upright_page_with_a_tall_line
from paddle_calls import BAND, BLANK, CROP
from threadsafe_ocr import ConfigError, ImageNotFoundError, InvalidImageError, ModelNotFoundError, OcrTimeoutError, TextLine, _core
from threadsafe_ocr.compat import paddle3_words, paddle_models
from threadsafe_ocr.compat.paddle import OCRResult, PaddleOCR, draw_ocr

KEYS = [
    "input_path", "page_index", "doc_preprocessor_res", "dt_polys", "model_settings", "text_det_params", "text_type",
    "text_rec_score_thresh", "return_word_box", "rec_texts", "rec_scores", "rec_polys", "vis_fonts", "textline_orientation_angles",
    "rec_boxes",
]  # fmt: skip

SMALL = {"text_detection_model_name": "PP-OCRv6_small_det", "text_recognition_model_name": "PP-OCRv6_small_rec"}
OFF = dict.fromkeys(("use_doc_orientation_classify", "use_doc_unwarping", "use_textline_orientation"), False)

# PaddleOCR's models are not in the package; tests of their own look at the warning.
pytestmark = pytest.mark.filterwarnings("ignore:PaddleOCR. v6-small reads in place of:UserWarning")


@pytest.fixture(scope="module")
def paddle() -> Iterator[PaddleOCR]:
    made = PaddleOCR(api="3", **OFF, **SMALL)
    yield made
    made.close()


@pytest.fixture(scope="module")
def band() -> np.ndarray:
    """A few lines, so that a test of many reads takes seconds."""
    return np.ascontiguousarray(np.asarray(Image.open(BAND).convert("RGB"))[:260, :700, ::-1])


@pytest.fixture(scope="module")
def file(band: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "band.png"
    Image.fromarray(band[:, :, ::-1]).save(path)
    return path


@pytest.fixture(scope="module")
def page(paddle: PaddleOCR, file: Path) -> OCRResult:
    return paddle.predict(str(file))[0]


@pytest.mark.parametrize("name", ["formats/exif6.jpg", "formats/palette.png", "rec_lines/en0011.png"])
def test_files_read_as_by_3_7(paddle: PaddleOCR, golden: dict[str, dict[str, Any]], name: str) -> None:
    (answer,) = paddle.predict(str(PAGES / name))
    recorded = golden[name]
    assert answer["rec_texts"] == recorded["rec_texts"]
    assert np.abs(np.array(answer["rec_scores"]) - recorded["rec_scores"]).max() < 0.01
    for key in ("dt_polys", "rec_polys"):
        assert np.abs(np.array(answer[key], int) - np.array(recorded[key])).max() <= 2


def test_every_key_is_there_and_of_its_kind(page: OCRResult, file: Path) -> None:
    assert isinstance(page, dict)
    assert list(page) == KEYS
    count = len(page["rec_texts"])
    assert count > 1
    assert (page["input_path"], page["page_index"], page["text_type"]) == (str(file), None, "general")
    assert page["model_settings"] == {"use_doc_preprocessor": False, "use_textline_orientation": False}
    assert page["text_det_params"] == {
        "limit_side_len": 64,
        "limit_type": "min",
        "thresh": 0.3,
        "max_side_limit": 4000,
        "box_thresh": 0.6,
        "unclip_ratio": 1.5,
    }
    assert (page["text_rec_score_thresh"], page["return_word_box"]) == (0.0, False)
    assert page["textline_orientation_angles"] == [-1] * len(page["dt_polys"])
    for key in ("dt_polys", "rec_polys"):
        assert type(page[key]) is list
        assert {(poly.dtype, poly.shape) for poly in page[key]} == {(np.dtype(np.int16), (4, 2))}
    assert (page["rec_boxes"].dtype, page["rec_boxes"].shape) == (np.int16, (count, 4))
    assert page["rec_boxes"][0].tolist() == [*page["rec_polys"][0].min(axis=0), *page["rec_polys"][0].max(axis=0)]
    assert {type(text) for text in page["rec_texts"]} == {str}
    assert {type(score) for score in page["rec_scores"]} == {float}


def test_an_array_has_no_path_and_its_pixels_come_back(paddle: PaddleOCR, band: np.ndarray, page: OCRResult) -> None:
    (answer,) = paddle.predict(band)
    assert answer["input_path"] is None
    assert answer["doc_preprocessor_res"]["output_img"] is band
    assert answer["rec_texts"] == page["rec_texts"]
    assert np.array_equal(page["doc_preprocessor_res"]["output_img"], band)
    (clear,) = paddle.predict(np.dstack([band, np.zeros(band.shape[:2], np.uint8)]))
    assert clear["rec_texts"] == page["rec_texts"]


def test_a_page_without_text_has_empty_lists_and_no_angles(paddle: PaddleOCR) -> None:
    (empty,) = paddle.predict(BLANK)
    assert [key for key in KEYS if key not in empty] == ["textline_orientation_angles"]
    assert [empty[key] for key in ("dt_polys", "rec_texts", "rec_scores", "rec_polys", "vis_fonts")] == [[]] * 5
    assert (empty["rec_boxes"].dtype, empty["rec_boxes"].shape) == (np.float64, (0,))
    assert "textline_orientation_angles" not in empty.json["res"]
    assert empty.json["res"]["rec_boxes"] == []


def test_options_of_a_call_hold_for_that_call(paddle: PaddleOCR, band: np.ndarray, page: OCRResult) -> None:
    (strict,) = paddle.predict(band, text_rec_score_thresh=0.99)
    assert strict["text_rec_score_thresh"] == 0.99
    assert 0 < len(strict["rec_texts"]) < len(strict["dt_polys"]) == len(page["dt_polys"])
    assert min(strict["rec_scores"]) >= 0.99
    (small,) = paddle.predict(band, text_det_limit_side_len=160, text_det_limit_type="max", text_det_thresh=0.4)
    assert (small["text_det_params"]["limit_side_len"], small["text_det_params"]["thresh"]) == (160, 0.4)
    assert small["rec_texts"] != page["rec_texts"]
    (looked,) = paddle.predict(band[::-1, ::-1], use_textline_orientation=True)
    assert set(looked["textline_orientation_angles"]) == {1}
    assert looked["model_settings"]["use_textline_orientation"] is True
    assert paddle.predict(band)[0]["rec_texts"] == page["rec_texts"]


def test_eight_threads_with_options_of_their_own_each_get_their_own_answer(paddle: PaddleOCR, band: np.ndarray) -> None:
    crops = [np.asarray(Image.open(CROP))[:, :, ::-1], np.asarray(Image.open(CROP))[::-1, ::-1, ::-1]]
    lists = PaddleOCR(lang="en", use_angle_cls=True)
    part = band[:130]
    calls = [
        lambda: paddle.predict(part)[0].json,
        lambda: paddle.predict(part, text_rec_score_thresh=0.99)[0].json,
        lambda: paddle.predict(part, text_det_limit_side_len=320, text_det_limit_type="max")[0].json,
        lambda: paddle.predict(part, text_det_unclip_ratio=2.0, text_det_box_thresh=0.9)[0].json,
        lambda: paddle.predict(part, use_textline_orientation=True)[0].json,
        lambda: lists.ocr(part),
        lambda: lists.ocr(part, rec=False),
        lambda: lists.ocr(part, drop_score=0.99),
        lambda: lists.ocr(part, inv=True),
        lambda: lists.ocr(crops, det=False),
        lambda: lists.ocr(crops, det=False, cls=False),
        lambda: lists.ocr(crops, det=False, rec=False),
    ]
    alone = [call() for call in calls]
    assert len({repr(answer) for answer in alone}) == len(calls)
    start = threading.Barrier(8)

    def work(number: int) -> list[bool]:
        start.wait()
        order = np.random.default_rng(number).permutation(len(calls))
        return [calls[i]() == alone[i] for i in order]

    with ThreadPoolExecutor(8) as pool:
        assert all(all(right) for right in pool.map(work, range(8)))


def test_pages_come_in_order_and_an_error_after_those_before_it(paddle: PaddleOCR, tmp_path: Path, page: OCRResult) -> None:
    names = [tmp_path / "b" / "2.png", tmp_path / "a.png", tmp_path / "b" / "1.PNG"]
    (tmp_path / "b").mkdir()
    for name in names:
        Image.open(CROP).save(name)
    (tmp_path / "notes.txt").write_text("no image")
    found = paddle.predict(str(tmp_path))
    assert [answer["input_path"] for answer in found] == sorted(map(str, names))
    # Each with all of the options.
    (alone,) = paddle.predict(str(names[0]))
    assert [(answer["rec_texts"], answer["rec_boxes"].tolist()) for answer in found] == [
        (alone["rec_texts"], alone["rec_boxes"].tolist())
    ] * 3
    (tmp_path / "b" / "15.png").write_bytes(b"no image")
    pages = paddle.predict_iter([str(tmp_path), str(BAND)])
    assert next(pages)["input_path"] == str(names[1])
    assert next(pages)["input_path"] == str(names[2])
    with pytest.raises(InvalidImageError):
        next(pages)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidImageError, match="no image in"):
        paddle.predict(str(tmp_path / "empty"))


def test_an_iterator_that_is_held_keeps_nobody_waiting(paddle: PaddleOCR) -> None:
    held = paddle.predict_iter([str(CROP)] * 40)
    first = next(held)
    assert paddle.predict(str(CROP))[0]["rec_texts"] == first["rec_texts"]
    held.close()
    engine = paddle._made["3"][0]
    until(lambda: not engine.stats()["queue_size"])


WORDS = ["alpha", "bravo", "charlie", "delta", "echo"]


def document_of(words: list[str], path: Path) -> Path:
    """A PDF or TIFF, as its name says, whose pages are pictures of words, of 72 pixels an inch."""
    pages = [Image.new("RGB", (210, 50), "white") for _ in words]
    for page, word in zip(pages, words, strict=True):
        ImageDraw.Draw(page).text((20, 10), word, fill="black", font=ImageFont.load_default(24))
    pages[0].save(path, save_all=True, append_images=pages[1:], resolution=72)
    return path


def read_of(answers: list[OCRResult]) -> list[tuple[int | None, list[str]]]:
    return [(answer["page_index"], answer["rec_texts"]) for answer in answers]


@pytest.mark.parametrize("name", ["words.pdf", "words.tif"])
def test_all_pages_of_a_document_come_in_order(paddle: PaddleOCR, tmp_path: Path, name: str) -> None:
    path = document_of(WORDS, tmp_path / name)
    assert read_of(paddle.predict(str(path))) == [(index, [word]) for index, word in enumerate(WORDS)]
    assert read_of(paddle.predict(path.read_bytes())) == read_of(paddle.predict(path))


def test_pdf_pages_are_rendered_at_3xs_scale(paddle: PaddleOCR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(document_of(WORDS[:1], tmp_path / "word.pdf"))
    assert paddle.predict(path)[0]["doc_preprocessor_res"]["output_img"].shape == (100, 420, 3)
    monkeypatch.setenv("PADDLE_PDX_PDF_RENDER_SCALE", "3.0")
    assert paddle.predict(path)[0]["doc_preprocessor_res"]["output_img"].shape == (150, 630, 3)
    monkeypatch.setenv("PADDLE_PDX_PDF_RENDER_SCALE", "large")
    with pytest.raises(ConfigError, match="PADDLE_PDX_PDF_RENDER_SCALE='large'"):
        paddle.predict(path)


def test_a_pdf_that_one_thread_is_in_the_midst_of_keeps_no_other_threads_pdf_waiting(paddle: PaddleOCR, tmp_path: Path) -> None:
    # So long that it is not rendered to its end ahead of the first answer.
    held = paddle.predict_iter(str(document_of(WORDS[:1] * (4 * _core.cores() + 3), tmp_path / "long.pdf")))
    next(held)
    found: list[OCRResult] = []
    other = threading.Thread(target=lambda: found.extend(paddle.predict(str(document_of(WORDS, tmp_path / "other.pdf")))), daemon=True)
    other.start()
    other.join(40)
    assert [answer["rec_texts"] for answer in found] == [[word] for word in WORDS]
    held.close()


def test_a_tall_line_on_an_upright_page_is_read(paddle: PaddleOCR) -> None:
    pixels = upright_page_with_a_tall_line()
    for options in ({}, {"use_textline_orientation": True}, {"use_doc_orientation_classify": True}):
        (answer,) = paddle.predict(pixels, **options)
        assert answer["rec_texts"] == ["alpha bravo"] * 3


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_turned_page_is_told_as_an_upright_one(paddle: PaddleOCR, turns: int) -> None:
    image = Image.new("RGB", (420, 200), "white")
    for row, text in enumerate(("alpha bravo charlie", "delta", "echo foxtrot")):
        ImageDraw.Draw(image).text((20, 20 + 60 * row), text, fill="black", font=ImageFont.load_default(28))
    upright = np.ascontiguousarray(image)
    (page,) = paddle.predict(upright)
    given = np.ascontiguousarray(np.rot90(upright, -turns))
    (answer,) = paddle.predict(given, use_doc_orientation_classify=True, return_word_box=True)
    turned = answer["doc_preprocessor_res"]
    assert list(turned) == ["input_path", "page_index", "input_img", "model_settings", "angle", "rot_img", "output_img"]
    assert turned["angle"] == 90 * turns
    assert turned["input_img"] is given
    assert np.array_equal(turned["rot_img"], upright)
    assert turned["model_settings"] == {"use_doc_orientation_classify": True, "use_doc_unwarping": False}
    assert answer["model_settings"] == {"use_doc_preprocessor": True, "use_textline_orientation": False}
    assert answer["rec_texts"] == page["rec_texts"] == ["alpha bravo charlie", "delta", "echo foxtrot"]
    assert np.abs(answer["rec_boxes"].astype(int) - page["rec_boxes"]).max() <= 6
    # Words are where they are on the upright page too.
    for line, words in zip(answer["rec_boxes"], answer["text_word_boxes"], strict=True):
        assert np.abs(words[:, 1] - line[1]).max() <= 6
        assert (np.diff(words[:, 0]) > 0).all()
    assert set(answer["textline_orientation_angles"]) == {-1}
    (looked,) = paddle.predict(given, use_doc_orientation_classify=True, use_textline_orientation=True)
    assert set(looked["textline_orientation_angles"]) == {0}


def test_a_page_that_was_turned_shows_how(paddle: PaddleOCR, band: np.ndarray, tmp_path: Path) -> None:
    (answer,) = paddle.predict(np.ascontiguousarray(np.rot90(band)), use_doc_orientation_classify=True)
    plain = answer.json["res"]
    assert list(plain)[:4] == ["input_path", "page_index", "model_settings", "doc_preprocessor_res"]
    settings = {"use_doc_orientation_classify": True, "use_doc_unwarping": False}
    assert plain["doc_preprocessor_res"] == {"input_path": None, "page_index": None, "model_settings": settings, "angle": 270}
    assert answer["doc_preprocessor_res"].json["res"] == plain["doc_preprocessor_res"]
    pictures = {name: picture.size for name, picture in answer.img.items()}
    assert pictures == {"ocr_res_img": (2 * 700, 260), "preprocessed_img": (260 + 2 * 700, 700 + 25)}
    answer.save_to_img(tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as saved:
        assert saved.size == pictures["ocr_res_img"]
    assert copy.deepcopy(answer).json == pickle.loads(pickle.dumps(answer)).json == answer.json


def test_pages_are_turned_where_3x_does_it(band: np.ndarray) -> None:
    def turned(made: dict[str, bool], **call: bool) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (answer,) = PaddleOCR(**made, **SMALL).predict(BLANK, **call)
        return bool(answer["model_settings"]["use_doc_preprocessor"])

    classify, unwarp = "use_doc_orientation_classify", "use_doc_unwarping"
    assert turned({})
    # 3.x leaves out both steps where the only one that is named is switched off.
    assert not turned({unwarp: False})
    assert turned({unwarp: False, classify: True})
    assert not turned({}, **{unwarp: False})
    assert not turned({}, **{classify: False})
    assert turned(OFF, **{classify: True})


def test_a_tiff_has_page_numbers(paddle: PaddleOCR, page: OCRResult, tmp_path: Path) -> None:
    Image.fromarray(page["doc_preprocessor_res"]["output_img"][:, :, ::-1]).save(tmp_path / "page.tif")
    (answer,) = paddle.predict(str(tmp_path / "page.tif"))
    assert answer["page_index"] == 0
    assert answer["rec_texts"] == page["rec_texts"]
    answer.save_to_json(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["page_0_res.json"]


def test_what_cannot_be_read_is_left_out_or_told(paddle: PaddleOCR, tmp_path: Path) -> None:
    assert paddle.predict([]) == []
    for nothing in (None, 3):
        with pytest.warns(UserWarning, match="left out"):
            assert paddle.predict(nothing) == []
    with pytest.warns(UserWarning, match="left out"):
        assert paddle.predict("page.xyz") == []
    with pytest.raises(ImageNotFoundError):
        paddle.predict("missing.png")
    with pytest.raises(OcrTimeoutError):
        paddle.predict(BLANK, timeout=0.0)
    with pytest.raises(ConfigError, match="allow_urls"):
        paddle.predict("https://example.invalid/a.png")
    assert paddle.predict([CROP, CROP.read_bytes(), Image.open(CROP)])[2]["rec_texts"] == paddle.predict(str(CROP))[0]["rec_texts"]


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server that gives a folder's files."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.func.log_message = lambda *_: None  # type: ignore[method-assign]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_urls_are_downloaded_where_that_is_allowed(file: Path, page: OCRResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ocr = PaddleOCR(allow_urls=True, **OFF, **SMALL)
    with served(file.parent) as url:
        (answer,) = ocr.predict(f"{url}/{file.name}")
        assert (answer["input_path"], answer["rec_texts"]) == (f"{url}/{file.name}", page["rec_texts"])
        assert ocr.ocr(f"{url}/{file.name}", rec=False)[0]
        with pytest.raises(InvalidImageError, match="cannot be downloaded"):
            ocr.ocr(f"{url}/missing.png")
    assert list(tmp_path.iterdir()) == []  # no ./tmp.jpg


def test_all_pages_of_what_was_downloaded_are_read(tmp_path: Path) -> None:
    ocr = PaddleOCR(allow_urls=True, **OFF, **SMALL)
    # Whatever its address ends with.
    for name in ("words.pdf", "words.tif"):
        document_of(WORDS[:2], tmp_path / name).rename(tmp_path / "words")
        with served(tmp_path) as url:
            answers = ocr.predict(f"{url}/words")
            assert {answer["input_path"] for answer in answers} == {f"{url}/words"}
            assert read_of(answers) == [(0, WORDS[:1]), (1, WORDS[1:2])]
            if name == "words.pdf":
                assert [page[0][1][0] for page in ocr.ocr(f"{url}/words")] == WORDS[:2]


def test_a_result_is_json_and_text(page: OCRResult, capsys: pytest.CaptureFixture[str]) -> None:
    plain = page.json["res"]
    assert json.loads(json.dumps(plain)) == plain
    assert list(plain)[:3] == ["input_path", "page_index", "model_settings"]
    assert plain["rec_polys"] == [poly.tolist() for poly in page["rec_polys"]]
    arrays = page.str["res"]
    assert arrays["rec_polys"].shape == (len(page["rec_texts"]), 4, 2)
    assert list(arrays) == list(plain)
    before = np.get_printoptions()
    page.print()
    out, shown = capsys.readouterr()
    assert page["rec_texts"][0] in shown
    assert "..." in shown
    page.print(json_format=True)
    # Where 3.x's log goes.
    assert (json.loads(capsys.readouterr().err), out) == ({"res": plain}, "")
    assert np.get_printoptions() == before
    same = pickle.loads(pickle.dumps(page))
    assert (type(same), same.json) == (OCRResult, page.json)
    assert copy.deepcopy(page).json == page.json


def test_a_result_draws_and_saves_itself(paddle: PaddleOCR, page: OCRResult, band: np.ndarray, tmp_path: Path) -> None:
    assert page.img["ocr_res_img"].size == (2 * 700, 260)
    page.save_all(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["band_ocr_res_img.png", "band_res.json"]
    assert json.loads((tmp_path / "out" / "band_res.json").read_text(encoding="utf-8")) == page.json["res"]
    page.save_to_img(str(tmp_path / "mine.jpg"))
    page.save_to_json(str(tmp_path / "mine.json"))
    assert {"mine.jpg", "mine.json"} <= {path.name for path in tmp_path.iterdir()}
    (array,) = paddle.predict(band)
    array.save_all(str(tmp_path / "array"))
    stems = {path.name.split("_ocr")[0].split("_res")[0] for path in (tmp_path / "array").iterdir()}
    assert len(stems) == 1


def test_what_is_not_here_is_told_in_one_warning_and_what_ran_afterwards() -> None:
    with pytest.warns(UserWarning, match="PaddleOCR") as told:
        ocr = PaddleOCR(api="3")
    (warning,) = told
    message = str(warning.message)
    cls = "ch_ppocr_mobile_v2.0_cls"
    for part in (
        "v6-small reads in place of PP-OCRv6_medium_det and PP-OCRv6_medium_rec",
        f"{cls} reads in place of PP-LCNet_x1_0_textline_ori and PP-LCNet_x1_0_doc_ori",
        "skipped: UVDoc",
        "strict_models",
    ):
        assert part in message
    assert ocr.model_settings["3"]["PP-OCRv6_medium_rec"] == "v6-small"
    assert ocr.model_settings["3"]["PP-LCNet_x1_0_doc_ori"] == cls
    with pytest.raises(ModelNotFoundError, match="UVDoc"):
        PaddleOCR(api="3", strict_models=True)


def test_the_third_generation_is_as_strict_as_it_is() -> None:
    with pytest.raises(ValueError, match="Unknown argument: use_gpu"):
        PaddleOCR(api="3", use_gpu=False)
    with pytest.warns(UserWarning, match="UVDoc"), pytest.warns(DeprecationWarning, match="use_textline_orientation"):
        ocr = PaddleOCR(api="3", use_angle_cls=False)
    with pytest.raises(ValueError, match="mutually exclusive"), pytest.warns(DeprecationWarning, match="use_angle_cls"):
        PaddleOCR(api="3", use_angle_cls=False, use_textline_orientation=False)
    with pytest.warns(DeprecationWarning, match="predict"):
        assert isinstance(ocr.ocr(BLANK)[0], OCRResult)
    with pytest.raises(TypeError, match="cls"), pytest.warns(DeprecationWarning, match="predict"):
        ocr.ocr(BLANK, cls=True)
    with pytest.raises(TypeError, match="text_det_treshold"):
        ocr.predict(BLANK, text_det_treshold=1)  # type: ignore[call-arg]
    with pytest.warns(UserWarning, match="use_doc_unwarping skipped"):
        ocr.predict(BLANK, use_doc_unwarping=True)


def test_parameters_without_names_have_3xs_order(band: np.ndarray) -> None:
    models = (None,) * 4 + ("PP-OCRv6_small_det", None, None, None, None, "PP-OCRv6_small_rec", None, None)
    (answer,) = PaddleOCR(*models, False, False, False, 320, "max", api="3").predict(band)
    assert (answer["text_det_params"]["limit_side_len"], answer["text_det_params"]["limit_type"]) == (320, "max")
    with pytest.raises(TypeError, match="multiple values for argument 'text_detection_model_name'"):
        PaddleOCR(*models, text_detection_model_name="PP-OCRv6_small_det")
    with pytest.raises(TypeError, match="27 were given"):
        PaddleOCR(*(None,) * 27)


def named(**keywords: object) -> dict[str, object]:
    return {paddle_models.KEYWORDS[name]: value for name, value in keywords.items()}


@pytest.mark.parametrize(
    ("keywords", "wanted"),
    [
        ({}, ("PP-OCRv6_medium_det", "PP-OCRv6_medium_rec")),
        ({"lang": "fr"}, ("PP-OCRv6_medium_det", "PP-OCRv6_medium_rec")),
        ({"lang": "japan", "ocr_version": "PP-OCRv5"}, ("PP-OCRv5_server_det", "PP-OCRv5_server_rec")),
        ({"lang": "en", "ocr_version": "PP-OCRv5"}, ("PP-OCRv5_server_det", "en_PP-OCRv5_mobile_rec")),
        ({"lang": "en", "ocr_version": "PP-OCRv4"}, ("PP-OCRv4_mobile_det", "en_PP-OCRv4_mobile_rec")),
        ({"ocr_version": "PP-OCRv3"}, ("PP-OCRv3_mobile_det", "PP-OCRv3_mobile_rec")),
        ({"text_recognition_model_name": "PP-OCRv6_small_rec"}, ("PP-OCRv6_medium_det", "PP-OCRv6_small_rec")),
    ],
)
def test_languages_versions_and_names_choose_as_in_3_7(keywords: dict[str, object], wanted: tuple[str, str]) -> None:
    assert tuple(paddle_models.choose("3", named(**keywords)).used)[:2] == wanted


def test_a_name_that_nobody_has_names_those_that_exist() -> None:
    with pytest.raises(ModelNotFoundError, match="PP-OCRv6_small_rec"):
        PaddleOCR(api="3", text_recognition_model_name="my_rec")
    with pytest.raises(ModelNotFoundError, match="cyrillic_PP-OCRv5_mobile_rec"):
        PaddleOCR(api="3", lang="bg")
    with pytest.raises(ConfigError, match="lang='pi'"):
        PaddleOCR(api="3", lang="pi", ocr_version="PP-OCRv6")


def test_devices_are_named_as_in_either_generation() -> None:
    with pytest.raises(ConfigError, match="npu"):
        PaddleOCR(device="npu:0")
    assert PaddleOCR(device="cpu", lang="en").ocr(BLANK) == [None]


def test_draw_ocr_gives_an_rgb_array(band: np.ndarray) -> None:
    boxes = [[[10, 10], [200, 10], [200, 60], [10, 60]], [[300, 10], [400, 10], [400, 60], [300, 60]]]
    drawn = draw_ocr(band[:, :, ::-1], boxes, scores=[0.9, 0.1])
    assert drawn.shape == band.shape
    assert drawn[10, 50].tolist() == [255, 0, 0]
    assert drawn[10, 350].tolist() != [255, 0, 0]
    beside = draw_ocr(Image.fromarray(band), boxes, ["one", "两" * 80], [0.9, 0.8])
    assert (beside.shape[0], beside.dtype) == (round(600 * 260 / 700), np.uint8)
    assert beside.shape[1] >= 1200
    assert (beside[:, 600:] == 0).any()


def line_of(text: str, columns: list[int], count: float) -> TextLine:
    return TextLine(text, 1.0, np.zeros((4, 2), np.float32), column_count=count, columns=np.array(columns, np.int32))


def test_words_are_runs_of_one_kind_placed_by_their_columns() -> None:
    across = np.array([[0, 10], [100, 10], [100, 30], [0, 30]], np.int16)
    texts, regions = paddle3_words.of(line_of("a-1 v2.5x", [0, 1, 2, 3, 4, 5, 6, 7, 8], 10.0), across)
    assert texts == ["a-1", " ", "v2.5x"]
    assert regions == [((x0, 10), (x1, 10), (x1, 30), (x0, 30)) for x0, x1 in ((0, 30), (30, 40), (40, 90))]
    # Chinese characters stand alone, as wide as their run tells, and within the line.
    texts, regions = paddle3_words.of(line_of("中文字", [1, 4, 7], 10.0), across)
    assert texts == ["中", "文", "字"]
    assert [(region[0][0], region[1][0]) for region in regions] == [(0, 32), (27, 62), (57, 92)]
    assert paddle3_words.of(line_of("", [], 10.0), across) == ([], [])
    down = np.array([[0, 0], [20, 0], [20, 100], [0, 100]], np.int16)
    _, regions = paddle3_words.of(line_of("ab", [1, 3], 10.0), down)
    assert regions == [((0, 10), (0, 40), (20, 40), (20, 10))]


def test_word_boxes_come_with_the_result(paddle: PaddleOCR, band: np.ndarray) -> None:
    (answer,) = paddle.predict(band, return_word_box=True)
    assert answer["return_word_box"] is True
    assert ["".join(words) for words in answer["text_word"]] == answer["rec_texts"]
    for words, regions, boxes in zip(answer["text_word"], answer["text_word_region"], answer["text_word_boxes"], strict=True):
        assert boxes.shape == (len(words), 4)
        assert [(type(region), len(region), type(region[0])) for region in regions] == [(tuple, 4, tuple)] * len(words)
        assert boxes[0].tolist() == [*np.min(regions[0], axis=0), *np.max(regions[0], axis=0)]
    assert list(answer.json["res"])[-2:] == ["text_word_boxes", "text_word"]
    (empty,) = paddle.predict(BLANK, return_word_box=True)
    assert (empty["text_word"], empty["text_word_region"], empty["text_word_boxes"]) == ([], [], [])


def test_the_settings_are_exported_as_paddlex_has_them(paddle: PaddleOCR, tmp_path: Path) -> None:
    paddle.export_paddlex_config_to_yaml(tmp_path / "OCR.yaml")
    rows = (tmp_path / "OCR.yaml").read_text(encoding="utf-8").splitlines()
    assert rows[0] == 'pipeline_name: "OCR"'
    assert '    model_name: "PP-OCRv6_small_rec"' in rows
    assert "    box_thresh: 0.6" in rows
    assert "use_textline_orientation: false" in rows


@pytest.mark.filterwarnings("ignore:PaddleOCR. ch_ppocr:UserWarning")
def test_an_exported_configuration_makes_the_same_reader(band: np.ndarray, tmp_path: Path) -> None:
    models = MODELS / "v6-small"
    own = {"text_detection_model_dir": models / "det", "text_recognition_model_dir": str(models / "rec")}
    made = PaddleOCR(**SMALL, **own, use_textline_orientation=False, use_doc_orientation_classify=True, text_det_unclip_ratio=2.0)
    made.export_paddlex_config_to_yaml(tmp_path / "OCR.yaml")
    same = PaddleOCR(paddlex_config=str(tmp_path / "OCR.yaml"))
    assert same.predict(band)[0].json == made.predict(band)[0].json
    assert same.model_settings == made.model_settings
    assert made.model_settings["3"]["PP-OCRv6_small_rec"] == str(models / "rec")


def test_an_exported_configuration_is_taken(paddle: PaddleOCR, band: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "use_doc_preprocessor": False,
        "use_textline_orientation": False,
        "SubModules": {
            "TextDetection": {"model_name": "PP-OCRv6_small_det", "unclip_ratio": 2.5, "limit_side_len": 320, "limit_type": "max"},
            "TextRecognition": {"model_name": "PP-OCRv6_small_rec", "score_thresh": 0.99},
        },
    }
    (same,) = PaddleOCR(api="3", paddlex_config=config).predict(band)
    options = {"text_det_unclip_ratio": 2.5, "text_det_limit_side_len": 320, "text_det_limit_type": "max", "text_rec_score_thresh": 0.99}
    assert same.json == paddle.predict(band, **options)[0].json
    assert PaddleOCR(paddlex_config=config, text_rec_score_thresh=0.5).drop_score == 0.5
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError, match="PyYAML"):
        PaddleOCR(paddlex_config=str(tmp_path / "OCR.yaml"))


def test_a_language_beside_named_models_is_ignored_and_told(paddle: PaddleOCR) -> None:
    with pytest.warns(UserWarning, match="are ignored"):
        PaddleOCR(
            api="3",
            lang="korean",
            **OFF,
            **SMALL,
        )
