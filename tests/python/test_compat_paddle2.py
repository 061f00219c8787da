"""PaddleOCR 2.x's calls: every nesting, keyword and rule; texts are those of the default models."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from conftest import LINES, PAGES, TEXT, Run, upright_page_with_a_tall_line
from paddle_calls import BAND, BLANK, CROP
from threadsafe_ocr import (
    ConfigError,
    EngineClosedError,
    ImageNotFoundError,
    InvalidImageError,
    ModelLoadError,
    ModelNotFoundError,
    OcrTimeoutError,
    ThreadSafeOCR,
    _core,
    waiting,
)
from threadsafe_ocr.compat import paddle_images, paddle_models
from threadsafe_ocr.compat.paddle import PaddleOCR, draw_ocr
from threadsafe_ocr.compat.paddle_options import PADDLE2

# PaddleOCR's models are not in the package; tests of their own look at the warning.
pytestmark = pytest.mark.filterwarnings("ignore:PaddleOCR. v6-small reads in place of:UserWarning")


@pytest.fixture(scope="module")
def paddle() -> Iterator[PaddleOCR]:
    made = PaddleOCR(use_angle_cls=True, lang="en")
    yield made
    made.close()


def pixels(path: Path) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(Image.open(path).convert("RGB"))[:, :, ::-1])


@pytest.fixture(scope="module")
def band() -> np.ndarray:
    """A few lines, so that a test of many reads takes seconds."""
    return np.ascontiguousarray(pixels(BAND)[:260, :700])


@pytest.fixture(scope="module")
def file(band: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "band.png"
    Image.fromarray(band[:, :, ::-1]).save(path)
    return path


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    return pixels(CROP)


def texts(page: list) -> list[str]:
    return [text for _, (text, _) in page]


def test_a_page_is_a_list_of_boxes_with_their_text_and_score(paddle: PaddleOCR, band: np.ndarray, ocr: ThreadSafeOCR) -> None:
    (page,) = paddle.ocr(band)
    assert type(page) is list
    assert page
    for line in page:
        assert type(line) is list
        box, answer = line
        assert type(answer) is tuple
        text, score = answer
        assert (type(text), type(score)) == (str, float)
        assert [len(point) for point in box] == [2, 2, 2, 2]
        assert all(type(value) is float and value == int(value) for point in box for value in point)
        assert score >= 0.5
    plain = ocr.read(band, **{**PADDLE2, "use_textline_orientation": True})
    assert texts(page) == [line.text for line in plain.lines]


def test_a_page_without_text_is_none_or_an_empty_list(paddle: PaddleOCR) -> None:
    assert paddle.ocr(BLANK) == [None]
    assert paddle.ocr(BLANK, rec=False) == [None]
    assert paddle(BLANK)[:2] == ([], [])
    assert PaddleOCR(lang="en", none_for_empty=False).ocr(BLANK) == [[]]


def test_lines_below_drop_score_are_left_out_of_this_call_only(paddle: PaddleOCR, band: np.ndarray) -> None:
    every = paddle.ocr(band)
    assert paddle.ocr(band, drop_score=1.0) == [None]
    assert paddle.ocr(band) == every


def test_detection_alone_gives_boxes_as_they_were_found(paddle: PaddleOCR, band: np.ndarray) -> None:
    (boxes,) = paddle.ocr(band, rec=False)
    read = [box for box, _ in paddle.ocr(band, drop_score=0.0)[0]]
    assert sorted(boxes) == sorted(read)
    # From the bottom to the top, as contours are found.
    assert boxes[0][0][1] > boxes[-1][0][1]
    assert read[0][0][1] < read[-1][0][1]
    found, seconds = paddle.text_detector(band)
    assert (found.dtype, found.tolist()) == (np.float32, boxes)
    assert seconds > 0


def test_crops_nest_as_in_each_release(paddle: PaddleOCR, crop: np.ndarray) -> None:
    one = paddle.ocr(crop, det=False)
    ((line,),) = one
    assert (type(one[0]), type(line), type(line[0]), type(line[1])) == (list, tuple, str, float)
    assert paddle.ocr([crop, crop], det=False) == [[line, line]]
    assert paddle.ocr([], det=False) == [[]]
    older = PaddleOCR(lang="en", api="2.7")
    assert older.ocr([crop, crop], det=False) == [[line], [line]]


def test_orientation_alone_answers_labels(paddle: PaddleOCR, crop: np.ndarray) -> None:
    upside_down = crop[::-1, ::-1]
    ((first, second),) = paddle.ocr([crop, upside_down], det=False, rec=False)
    assert (first[0], second[0]) == ("0", "180")
    assert (type(first), type(first[1])) == (list, np.float32)
    assert PaddleOCR(lang="en", api="2.7", use_angle_cls=True).ocr([crop, crop], det=False, rec=False) == [[first], [first]]
    # Where nobody is to look, 2.x has no labels.
    assert paddle.ocr(crop, det=False, rec=False, cls=False) == []
    assert PaddleOCR(lang="en").ocr(crop, det=False, rec=False) == []


def test_upside_down_lines_are_turned_where_both_the_object_and_the_call_say_so(paddle: PaddleOCR, crop: np.ndarray) -> None:
    upside_down = crop[::-1, ::-1]
    upright = paddle.ocr(crop, det=False)[0][0][0]
    assert paddle.ocr(upside_down, det=False)[0][0][0] == upright
    assert paddle.ocr(upside_down, det=False, cls=False)[0][0][0] != upright
    assert PaddleOCR(lang="en").ocr(upside_down, det=False, cls=True)[0][0][0] != upright


def test_the_parts_can_be_called(paddle: PaddleOCR, band: np.ndarray, crop: np.ndarray) -> None:
    boxes, answers, times = paddle(band)
    assert [[box.tolist(), answer] for box, answer in zip(boxes, answers, strict=True)] == paddle.ocr(band)[0]
    assert (boxes[0].dtype, boxes[0].shape, set(times)) == (np.float32, (4, 2), {"det", "rec", "cls", "all"})
    assert 0 < times["det"] + times["rec"] <= times["all"]
    boxes[0][0, 0] = 1  # not read-only
    assert paddle(None) == (None, None, dict.fromkeys(("det", "rec", "cls", "all"), 0.0))
    upside_down = crop[::-1, ::-1]
    upright, labels, _ = paddle.text_classifier([crop, upside_down])
    assert [label for label, _ in labels] == ["0", "180"]
    assert np.array_equal(upright[1], crop)
    read, _ = paddle.text_recognizer(upright)
    assert read == paddle.ocr([crop, crop], det=False)[0]
    assert (paddle.use_angle_cls, paddle.drop_score, paddle.page_num, paddle.args.lang) == (True, 0.5, 0, "en")


def test_every_kind_of_input_reads_the_same(paddle: PaddleOCR, band: np.ndarray, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = paddle.ocr(band)
    monkeypatch.chdir(file.parent)
    opaque = np.dstack([band, np.full(band.shape[:2], 255, np.uint8)])
    for same in (str(file), file.name, file, file.read_bytes(), Image.open(file), opaque):
        assert paddle.ocr(same) == page
    assert texts(paddle.ocr(band[:, :, 1])[0])
    assert paddle.ocr([band, str(file)]) == page * 2


def test_exif_is_not_looked_at_as_in_the_original(paddle: PaddleOCR, crop: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = tmp_path / "turned.png"
    Image.fromarray(crop[:, :, ::-1]).save(turned, exif=exif)
    assert paddle.ocr(str(turned), det=False, cls=False) == paddle.ocr(crop, det=False, cls=False)


def test_transparency_lies_over_alpha_color(paddle: PaddleOCR) -> None:
    black = np.asarray(Image.open(PAGES / "formats" / "black_on_transparent.png"))[:120, :600]
    (page,) = paddle.ocr(black)
    assert page
    assert paddle.ocr(black, alpha_color=(0, 0, 0)) == [None]
    encoded = io.BytesIO()
    Image.fromarray(black[:, :, [2, 1, 0, 3]]).save(encoded, "PNG")
    assert paddle.ocr(encoded.getvalue()) == [page]


def test_inverted_and_binarised_pages_are_read(paddle: PaddleOCR, band: np.ndarray) -> None:
    assert texts(paddle.ocr(~band, inv=True)[0]) == texts(paddle.ocr(band)[0])
    assert texts(paddle.ocr(band // 2 + 60, bin=True)[0])


def test_sliding_windows_find_what_the_page_has(paddle: PaddleOCR, band: np.ndarray) -> None:
    windows = {"horizontal_stride": 350, "vertical_stride": 260, "merge_x_thres": 50, "merge_y_thres": 35}
    (page,) = paddle.ocr(band, slice=windows)
    whole = "".join(texts(paddle.ocr(band)[0]))
    assert len("".join(texts(page))) > 0.8 * len(whole)
    assert paddle.ocr(BLANK, slice=windows) == [None]
    long = np.concatenate([band] * 6)
    boxes, _ = paddle.text_detector(long, use_slice=True)
    assert boxes[:, :, 1].max() > 5 * band.shape[0]
    assert len(boxes) >= len(paddle.text_detector(long)[0])
    with pytest.raises(AssertionError, match="merge_x_thres"):
        paddle.ocr(band, slice={"horizontal_stride": 1, "vertical_stride": 1, "merge_y_thres": 1})
    with pytest.raises(ConfigError, match="raise the strides"):
        paddle.ocr(band, slice={**windows, "horizontal_stride": 1})


@pytest.mark.parametrize("nothing", [None, 3, ("page.png",), {}])
def test_what_the_original_asserts_is_still_an_assertion(paddle: PaddleOCR, nothing: object) -> None:
    with pytest.raises(AssertionError, match="cannot be read"):
        paddle.ocr(nothing)


def test_a_pdf_is_a_list_of_its_pages(paddle: PaddleOCR, tmp_path: Path) -> None:
    pages = [Image.new("RGB", (600, 200), "white") for _ in range(3)]
    pages[1].paste(Image.open(LINES[0]).convert("RGB"), (20, 60))
    pages[0].save(tmp_path / "pages.pdf", save_all=True, append_images=pages[1:], resolution=144)
    first, second, third = paddle.ocr(str(tmp_path / "pages.pdf"))
    assert (first, third) == (None, None)
    assert second[0][1][0] == paddle.ocr(np.asarray(pages[1])[:, :, ::-1])[0][0][1][0]


def test_of_a_long_pdf_a_few_pages_are_rendered_ahead_so_that_memory_is_bounded(paddle: PaddleOCR, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = max(_core.cores(), 2)
    running, most = 0, 0

    def pages(_path: str, **_limits: object) -> Iterator[np.ndarray]:
        nonlocal running, most
        for _ in range(4 * ahead):
            running += 1
            most = max(most, running)
            yield np.full((64, 64, 3), 255, np.uint8)

    def answered(raw: object) -> object:
        nonlocal running
        running -= 1
        return from_raw(raw)

    from_raw = waiting.from_raw
    monkeypatch.setattr(paddle_images, "pdf_pages", pages)
    monkeypatch.setattr(waiting, "from_raw", answered)
    for rec in (True, False):
        assert paddle.ocr("long.pdf", rec=rec) == [None] * 4 * ahead
        assert (running, most) == (0, ahead)


def test_a_pdf_is_rendered_twice_as_large_and_a_large_page_as_it_is(paddle: PaddleOCR, tmp_path: Path) -> None:
    pages = [Image.new("RGB", size, "white") for size in ((980, 200), (1100, 200))]
    for page in pages:
        page.paste(Image.open(LINES[0]).convert("RGB"), (40, 80))
    pages[0].save(tmp_path / "pages.pdf", save_all=True, append_images=pages[1:], resolution=72)
    # 1100 points are 2200 pixels at 144 dpi, more than 2.x's 2000.
    lefts = [page[0][0][0][0] for page in paddle.ocr(str(tmp_path / "pages.pdf"))]
    assert [abs(left - expected) < 10 for left, expected in zip(lefts, (80, 40), strict=True)] == [True, True]


def test_a_broken_file_among_others_is_named(paddle: PaddleOCR, file: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(file.read_bytes()[:-200])
    for read in (paddle.ocr, paddle.predict):
        with pytest.raises(InvalidImageError, match=r"broken\.png: this PNG is cut short"):
            read([str(file), str(tmp_path / "broken.png")])


def test_what_neither_generation_has_is_told_when_the_object_is_made(tmp_path: Path) -> None:
    wrong = ({"lang": "korean"}, {"text_recognition_model_name": "bogus"}, {"det_model_dir": str(tmp_path / "nothing")})
    for keywords in wrong:
        with pytest.raises(ModelNotFoundError):
            PaddleOCR(**keywords)


def test_attributes_of_2x_may_be_read_and_set(band: np.ndarray) -> None:
    ocr = PaddleOCR(lang="en", det_db_thresh=0.4)
    assert (ocr.args.det_db_thresh, ocr.args.det_db_box_thresh, ocr.args.drop_score) == (0.4, 0.6, 0.5)
    ocr.drop_score = 1.0
    assert (ocr.drop_score, ocr.ocr(band)) == (1.0, [None])
    ocr.page_num = 2
    assert ocr.page_num == 2


def test_a_font_that_is_not_there_is_no_reason_not_to_draw(band: np.ndarray) -> None:
    box = [[10, 10], [90, 10], [90, 40], [10, 40]]
    drawn = [draw_ocr(band, [box], ["text"], [0.9], font_path=path) for path in (None, "fonts/simfang.ttf")]
    assert np.array_equal(*drawn)


def test_max_pixels_is_the_limit_of_a_rendered_page_too(tmp_path: Path) -> None:
    Image.new("RGB", (400, 300), "white").save(tmp_path / "page.pdf", resolution=144)
    most = PaddleOCR(max_pixels=100_000, lang="en")
    for read in (most.ocr, most.predict):
        with pytest.raises(InvalidImageError, match="too large"):
            read(str(tmp_path / "page.pdf"))


def test_pixels_as_pdftoppm_writes_them_are_read(paddle: PaddleOCR, band: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(band[:, :, ::-1]).save(tmp_path / "page.ppm")
    page = paddle.ocr(band)
    assert paddle.ocr(str(tmp_path / "page.ppm")) == page
    assert paddle.predict(str(tmp_path))[0]["rec_texts"] == paddle.predict(band)[0]["rec_texts"]


def test_a_tall_line_on_an_upright_page_is_read(paddle: PaddleOCR) -> None:
    (read,) = paddle.ocr(upright_page_with_a_tall_line())
    assert texts(read) == ["alpha bravo"] * 3


def test_errors_are_typed(paddle: PaddleOCR, band: np.ndarray) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        paddle.ocr("missing.png")
    assert isinstance(missing.value, ImageNotFoundError)
    with pytest.raises(InvalidImageError):
        paddle.ocr(b"no image")
    with pytest.raises(OcrTimeoutError):
        paddle.ocr(band, timeout=0.0)
    with pytest.raises(TypeError, match="det_treshold"):
        paddle.ocr(band, det_treshold=0.1)
    with pytest.raises(ConfigError, match="allow_urls"):
        paddle.ocr("https://example.invalid/page.png")
    with pytest.raises(FileNotFoundError):
        paddle.ocr("missing.pdf")
    with pytest.raises(ConfigError, match="it can be"):
        PaddleOCR(api="4")


def test_keywords_of_either_generation_mean_the_same(band: np.ndarray) -> None:
    two = PaddleOCR(lang="en", det_db_unclip_ratio=2.5, det_limit_side_len=640.0, drop_score=0.9, use_angle_cls=True)
    three = PaddleOCR(
        lang="en", text_det_unclip_ratio=2.5, text_det_limit_side_len=640, text_rec_score_thresh=0.9, use_textline_orientation=True
    )
    other = PaddleOCR(lang="en")
    assert two.ocr(band) == three.ocr(band) != other.ocr(band)
    assert other.ocr(band, det_db_unclip_ratio=2.5, text_det_limit_side_len=640, drop_score=0.9) == two.ocr(band, cls=False)
    with pytest.raises(ConfigError, match="mutually exclusive"):
        PaddleOCR(use_angle_cls=True, use_textline_orientation=False)


def test_keywords_without_effect_are_accepted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "threadsafe_ocr"):
        for _ in range(2):
            PaddleOCR(show_log=False, enable_mkldnn=True, cpu_threads=4, use_gpu=False, nothing_of_this_name=1)
    told = [record for record in caplog.records if "nothing_of_this_name" in record.getMessage()]
    assert len(told) == 1


def test_what_a_keyword_asks_for_and_does_not_get_is_told(crop: np.ndarray) -> None:
    with pytest.warns(UserWarning, match="skipped: rec_image_shape='3, 32, 320'"):
        PaddleOCR(api="2", rec_image_shape="3, 32, 320", cls_image_shape="3, 48, 192")
    with pytest.warns(UserWarning, match="reads on the first card alone"):
        PaddleOCR(device="gpu:0,1")


def test_thread_keywords_are_no_knobs_of_the_device(run_python: Run) -> None:
    run_python("""
        from threadsafe_ocr.compat.paddle import PaddleOCR
        names = {"text_detection_model_name": "PP-OCRv6_small_det", "text_recognition_model_name": "PP-OCRv6_small_rec"}
        # Another explicit value of a knob of the device is an error.
        objects = [PaddleOCR(api="2", cpu_threads=n, gpu_mem=n, max_batch_size=n, enable_mkldnn=True, **names) for n in (1, 8)]
        assert objects[0].ocr(LINE, det=False) == objects[1].ocr(LINE, det=False)
    """)


def test_a_model_that_is_not_here_is_named_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, crop: np.ndarray) -> None:
    monkeypatch.setenv("THREADSAFE_OCR_CACHE", str(tmp_path))
    with pytest.warns(UserWarning, match="v6-small reads in place of ch_PP-OCRv4_det and ch_PP-OCRv4_rec") as told:
        ocr = PaddleOCR(api="2")
    assert len(told) == 1
    ocr.ocr(crop, det=False)
    assert ocr.model_settings == {
        "2": {
            "ch_PP-OCRv4_det": "v6-small",
            "ch_PP-OCRv4_rec": "v6-small",
            "ch_ppocr_mobile_v2.0_cls": "ch_ppocr_mobile_v2.0_cls",
        }
    }
    with pytest.raises(ModelNotFoundError, match="v6-small reads in place"):
        PaddleOCR(api="2", strict_models=True)


def named(**keywords: object) -> dict[str, object]:
    return {paddle_models.KEYWORDS[name]: value for name, value in keywords.items()}


@pytest.mark.parametrize(
    ("keywords", "wanted"),
    [
        ({}, ("ch_PP-OCRv4_det", "ch_PP-OCRv4_rec")),
        ({"lang": "en"}, ("en_PP-OCRv4_det", "en_PP-OCRv4_rec")),
        ({"lang": "german"}, ("en_PP-OCRv4_det", "latin_PP-OCRv4_rec")),
        ({"lang": "japan"}, ("ml_PP-OCRv4_det", "japan_PP-OCRv4_rec")),
        ({"ocr_version": "PP-OCRv3"}, ("ch_PP-OCRv3_det", "ch_PP-OCRv3_rec")),
        ({"ocr_version": "PP-OCRv5"}, ("PP-OCRv5_server_det", "PP-OCRv5_server_rec")),
    ],
)
def test_languages_and_versions_choose_as_in_2x(keywords: dict[str, object], wanted: tuple[str, str]) -> None:
    assert tuple(paddle_models.choose("2", named(**keywords)).used)[:2] == wanted


def test_a_server_model_is_replaced_as_the_guide_says_whatever_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paddle_models, "_is_here", lambda name: name == "v4-mobile")
    for version, replacement in (("server", "v6-small"), ("mobile", "v4-mobile")):
        names = named(text_detection_model_name=f"PP-OCRv4_{version}_det", text_recognition_model_name=f"PP-OCRv4_{version}_rec")
        assert paddle_models.choose("3", names).spec == replacement


def test_a_script_that_no_set_reads_is_an_error_that_says_what_to_do() -> None:
    for language in ("korean", "ar", "hi", "ru", "ta"):
        with pytest.raises(ModelNotFoundError, match="rec_model_dir or text_recognition_model_dir"):
            PaddleOCR(lang=language, api="2")


def test_unknown_languages_and_versions_fail_the_assertion() -> None:
    with pytest.raises(AssertionError, match="lang='xx'"):
        PaddleOCR(lang="xx")
    with pytest.raises(AssertionError, match=r"PP-OCRv9.*PP-OCRv4"):
        PaddleOCR(ocr_version="PP-OCRv9")


def test_own_models_are_folders_or_files(band: np.ndarray, tmp_path: Path) -> None:
    models = Path(__file__).parents[2] / "models" / "v6-small"
    own = PaddleOCR(
        api="2", lang="en", use_onnx=True, det_model_dir=str(models / "det"), rec_model_dir=str(models / "rec" / "inference.onnx")
    )
    assert own.ocr(band) == PaddleOCR(lang="en").ocr(band)
    assert own.model_settings["2"]["en_PP-OCRv4_det"] == str(models / "det")
    with pytest.raises(ModelNotFoundError, match="is missing"):
        PaddleOCR(api="2", det_model_dir=str(tmp_path / "nothing"))


def test_an_own_recogniser_without_its_characters_needs_their_file(crop: np.ndarray, tmp_path: Path) -> None:
    models = Path(__file__).parents[2] / "models" / "v6-small"
    (tmp_path / "rec").symlink_to(models / "rec" / "inference.onnx")
    keywords = {"api": "2", "lang": "en", "rec_model_dir": str(tmp_path / "rec")}
    with pytest.raises(ModelNotFoundError, match="give rec_char_dict_path"):
        PaddleOCR(**keywords)
    config = yaml.safe_load((models / "rec" / "inference.yml").read_text(encoding="utf-8"))
    (tmp_path / "keys.txt").write_text("\n".join(config["PostProcess"]["character_dict"]), encoding="utf-8")
    own = PaddleOCR(**keywords, rec_char_dict_path=str(tmp_path / "keys.txt"))
    assert own.ocr(crop, det=False)[0][0][0] == TEXT


def test_a_classifier_of_lines_that_gets_other_pixels_is_replaced(tmp_path: Path, crop: np.ndarray) -> None:
    models = Path(__file__).parents[2] / "models" / "v6-small"
    (tmp_path / "inference.onnx").symlink_to(models / "cls" / "inference.onnx")
    (tmp_path / "inference.yml").write_text("Global:\n  model_name: PP-LCNet_x1_0_textline_ori\n", encoding="utf-8")
    own = {"api": "3", "textline_orientation_model_dir": str(tmp_path), "use_doc_unwarping": False}
    with pytest.warns(UserWarning, match=r"v2.0_cls reads in place of PP-LCNet_x1_0_textline_ori"):
        read = PaddleOCR(**own).predict(np.ascontiguousarray(crop[::-1, ::-1]))
    assert read[0]["rec_texts"] == [TEXT]
    with pytest.raises(ModelNotFoundError, match="PP-LCNet"):
        PaddleOCR(**own, strict_models=True)
    # 2.x's own is used.
    second = PaddleOCR(api="2", lang="en", cls_model_dir=str(models / "cls"), use_angle_cls=True)
    assert second.ocr(np.ascontiguousarray(crop[::-1, ::-1]), det=False)[0][0][0] == TEXT


def test_an_object_pickles_and_closes(crop: np.ndarray) -> None:
    ocr = PaddleOCR(lang="en", drop_score=0.7)
    same = pickle.loads(pickle.dumps(ocr))
    assert same.drop_score == 0.7
    assert same.ocr(crop, det=False) == ocr.ocr(crop, det=False)
    ocr.close()
    with pytest.raises(EngineClosedError):
        ocr.ocr(crop, det=False)
    with pytest.raises(EngineClosedError):
        ocr.predict(crop)


def test_a_close_during_another_threads_first_call_closes_what_that_makes(crop: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def closed_meanwhile(*arguments: object, **keywords: object) -> ThreadSafeOCR:
        ocr.close()
        made.append(ThreadSafeOCR(*arguments, **keywords))
        return made[0]

    ocr = PaddleOCR(lang="en")
    monkeypatch.setattr("threadsafe_ocr.compat.paddle.ThreadSafeOCR", closed_meanwhile)
    with pytest.raises(EngineClosedError):
        ocr.ocr(crop, det=False)
    assert made[0].closed


def test_it_reads_after_a_fork(run_python: Run) -> None:
    run_python("""
        from threadsafe_ocr.compat.paddle import PaddleOCR
        ocr = PaddleOCR(text_detection_model_name="PP-OCRv6_small_det", text_recognition_model_name="PP-OCRv6_small_rec")
        def look():
            assert ocr.ocr(LINE, det=False)[0][0][0] == TEXT
        look()
        child(look)
    """)


def paddle_folder(path: Path) -> Path:
    path.mkdir()
    (path / "inference.pdmodel").write_bytes(b"network")
    (path / "inference.pdiparams").write_bytes(b"weights")
    return path


def test_models_in_paddles_own_format_are_converted_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, crop: np.ndarray) -> None:
    monkeypatch.setenv("THREADSAFE_OCR_CACHE", str(tmp_path / "cache"))
    models = Path(__file__).parents[2] / "models" / "v6-small"
    converted = []

    class Converter:
        @staticmethod
        def export(network: str, weights: str, target: str, **_how: object) -> None:
            if network.endswith(".json"):
                raise RuntimeError("unknown format")
            converted.append((Path(network).name, Path(weights).name))
            Path(target).write_bytes((models / "det" / "inference.onnx").read_bytes())

    folder = paddle_folder(tmp_path / "det")
    monkeypatch.setitem(sys.modules, "paddle2onnx", None)
    with pytest.raises(ModelNotFoundError, match=r"threadsafe-ocr\[paddle\]"):
        PaddleOCR(api="2", lang="en", det_model_dir=str(folder))
    monkeypatch.setitem(sys.modules, "paddle2onnx", Converter)
    for _ in range(2):
        own = PaddleOCR(api="2", lang="en", det_model_dir=str(folder))
    assert converted == [("inference.pdmodel", "inference.pdiparams")]
    assert own.ocr(crop)[0]
    (folder / "inference.pdmodel").rename(folder / "inference.json")
    (folder / "inference.pdiparams").write_bytes(b"other weights")
    with pytest.raises(ModelLoadError, match="paddlepaddle>=3"):
        PaddleOCR(api="2", lang="en", det_model_dir=str(folder))
    # Of what failed nothing is left.
    assert len(list((tmp_path / "cache").iterdir())) == 1
    (folder / "inference.json").unlink()
    with pytest.raises(ModelNotFoundError, match="no network"):
        PaddleOCR(api="2", lang="en", det_model_dir=str(folder))
