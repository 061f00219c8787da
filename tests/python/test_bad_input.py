"""Bad input: a typed error that says what was wrong, soon; never a crash, a hang or half an answer."""

from __future__ import annotations

import errno
import io
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import LINES, MODELS, PAGES, TEXT, Run, ask
from threadsafe_ocr import ConfigError, ImageFileError, InvalidImageError, ModelLoadError, ModelNotFoundError, OcrError, ThreadSafeOCR

JPEG = (PAGES / "formats" / "q30.jpg").read_bytes()
PNG = LINES[0].read_bytes()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"hello, this is text", b"%PDF-1.7 ...", JPEG[: len(JPEG) // 2], PNG[: len(PNG) // 2], JPEG[:20], PNG[:20]],
    ids=["empty", "nul", "text", "pdf", "half-jpeg", "half-png", "start-jpeg", "start-png"],
)
def test_bytes_that_are_no_whole_image_are_refused(ocr: ThreadSafeOCR, content: bytes) -> None:
    with pytest.raises(InvalidImageError):
        ocr.read(content)


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 10), (10, 0, 3), (5,), (4, 4, 2), (4, 4, 5), (2, 2, 2, 2), ()])
def test_arrays_of_odd_shapes_are_refused(ocr: ThreadSafeOCR, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidImageError):
        ocr.read(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16, bool, object])
def test_arrays_of_other_types_are_refused(ocr: ThreadSafeOCR, dtype: type) -> None:
    with pytest.raises(TypeError, match="uint8"):
        ocr.read(np.zeros((32, 32, 3), dtype))


@pytest.mark.parametrize("value", [None, 7, 1.5, {}, object()])
def test_other_values_are_refused(ocr: ThreadSafeOCR, value: object) -> None:
    with pytest.raises(TypeError):
        ocr.read(value)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30000), (30000, 1), (5, 5, 3), (60000, 8, 3)])
def test_pages_of_extreme_sides_are_answered(ocr: ThreadSafeOCR, shape: tuple[int, ...]) -> None:
    assert ocr.read(np.full(shape, 255, np.uint8)).lines == ()


def test_more_pixels_than_allowed_are_refused_before_they_are_copied() -> None:
    with ThreadSafeOCR(max_pixels=1000) as small:
        with pytest.raises(InvalidImageError, match="max_pixels"):
            small.read(np.broadcast_to(np.uint8(255), (60000, 60000, 3)))
        with pytest.raises(InvalidImageError, match="max_pixels"):
            small.read(LINES[0])


def test_files_that_cannot_be_read_are_told_apart(ocr: ThreadSafeOCR, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        ocr.read(tmp_path / "missing.png")
    assert isinstance(missing.value, OcrError)
    assert str(missing.value) == f"[Errno 2] No such file or directory: '{tmp_path / 'missing.png'}'"
    assert missing.value.filename == str(tmp_path / "missing.png")
    with pytest.raises(ImageFileError, match="directory") as folder:
        ocr.read(tmp_path)
    assert folder.value.errno == errno.EISDIR
    text = tmp_path / "text.png"
    text.write_text("this is no picture")
    with pytest.raises(InvalidImageError):
        ocr.read(text)


def lying(form: str, width: int, height: int) -> bytes:
    """A line's file whose header says that it is that large."""
    buffer = io.BytesIO()
    Image.open(LINES[0]).save(buffer, form)
    content = bytearray(buffer.getvalue())
    if form == "PNG":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif form == "JPEG":
        start = content.index(b"\xff\xc0") + 5
        content[start : start + 4] = struct.pack(">HH", height, width)
    elif form == "BMP":
        content[18:26] = struct.pack("<ii", width, height)
    elif form == "GIF":
        content[6:10] = struct.pack("<HH", width, height)
        start = content.index(b"\x2c\0\0\0\0") + 5
        content[start : start + 4] = struct.pack("<HH", width, height)
    elif form == "WEBP":
        start = content.index(b"\x9d\x01\x2a") + 3
        content[start : start + 4] = struct.pack("<HH", min(width, 16383), min(height, 16383))
    elif form == "TIFF":
        start = struct.unpack("<I", content[4:8])[0] + 2
        for entry in range(start, start + 12 * struct.unpack("<H", content[start - 2 : start])[0], 12):
            # Width, height, and that all rows are in one strip.
            value = {256: width, 257: height, 278: height}.get(struct.unpack("<H", content[entry : entry + 2])[0])
            if value:
                content[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(content)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("side", [9900, 65535], ids=["allowed", "too-large"])
def test_a_header_that_lies_costs_nothing(ocr: ThreadSafeOCR, form: str, side: int) -> None:
    content = lying(form, side, side)
    start = time.perf_counter()
    with pytest.raises(InvalidImageError):
        ocr.read(content)
    assert time.perf_counter() - start < 1


def test_a_bomb_is_refused_before_its_pixels_are_allocated(run_python: Run) -> None:
    run_python(
        """
        import io, resource
        from PIL import Image
        content = io.BytesIO()
        Image.new("1", (20000, 20000)).save(content, "PNG")
        with ThreadSafeOCR() as ocr:
            reads(ocr)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            start = time.perf_counter()
            try:
                ocr.read(content.getvalue())
            except InvalidImageError as error:
                assert "max_pixels" in str(error)
            else:
                raise SystemExit("it was read")
            assert time.perf_counter() - start < 1
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10
            reads(ocr)
        """
    )


def test_files_without_an_end_are_refused(ocr: ThreadSafeOCR, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.png"
    os.mkfifo(fifo)
    for path in (fifo, "/dev/zero", "/dev/null", "a\0b", ""):
        with pytest.raises(ImageFileError) as refused:
            ocr.read(path)
        assert refused.value.errno == (errno.EINVAL if path else errno.ENOENT)


def test_a_file_of_gigabytes_is_refused_and_not_read_into_memory(ocr: ThreadSafeOCR, tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    path.write_bytes(PNG)
    os.truncate(path, (4 << 30) + 1)
    with pytest.raises(InvalidImageError, match="4294967297 bytes"):
        ocr.read(path)


def test_names_of_files_may_be_anything(ocr: ThreadSafeOCR, tmp_path: Path) -> None:
    for name in ("page 1.PNG", "\u00e9\u65e5\u672c.png", os.fsdecode(b"\xff\xfe.png"), "no suffix"):
        path = tmp_path / name
        path.write_bytes(PNG)
        assert ocr.read(path).text == ocr.read(str(path)).text == ocr.read(BytesPath(path)).text == TEXT
        path.unlink()


class BytesPath(os.PathLike):  # type: ignore[type-arg]
    """A path that gives itself as bytes, as `os.scandir(b".")` does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> bytes:
        return os.fsencode(self.path)


def test_file_objects_are_told_apart(ocr: ThreadSafeOCR) -> None:
    with LINES[0].open("rb") as file:
        assert ocr.read(file).text == TEXT
        with pytest.raises(InvalidImageError, match="empty"):
            ocr.read(file)  # It is at its end.
    with pytest.raises(TypeError, match="binary"):
        ocr.read(io.StringIO("text"))

    class Broken:
        def read(self) -> bytes:
            raise ConnectionError("the user's own")

    with pytest.raises(ConnectionError, match="own"):
        ocr.read(Broken())


def test_pil_images_that_cannot_be_decoded_are_refused(ocr: ThreadSafeOCR) -> None:
    with pytest.raises(InvalidImageError, match="truncated"):
        ocr.read(Image.open(io.BytesIO(PNG[: len(PNG) // 2])))
    with pytest.raises(InvalidImageError):
        ocr.read(Image.new("RGB", (0, 0)))
    closed = Image.open(LINES[0])
    closed.close()
    with pytest.raises(InvalidImageError):
        ocr.read(closed)


@pytest.mark.parametrize("call", ["read", "submit", "aread", "detect", "recognize", "ocr", "read_many"])
@pytest.mark.parametrize(
    ("image", "error"),
    [(JPEG[:2000], InvalidImageError), (np.zeros((9, 9)), TypeError), ("missing.png", FileNotFoundError), (7, TypeError)],
)
def test_every_call_refuses_in_the_same_way(ocr: ThreadSafeOCR, call: str, image: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        ask(ocr, call, image)


@pytest.mark.parametrize(
    "options",
    [
        {"det_thresh": 2.0},
        {"det_thresh": float("nan")},
        {"rec_width_step": 0},
        {"det_limit_type": "no"},
        {"det_limit_type": ""},
        {"rec_group": -1},
        {"timeout": -1},
    ],
)
def test_settings_that_cannot_work_are_named(ocr: ThreadSafeOCR, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ocr.read(LINES[0], **options)


def test_unknown_settings_are_named(ocr: ThreadSafeOCR) -> None:
    with pytest.raises(TypeError, match="det_tresh"):
        ocr.read(LINES[0], det_tresh=0.3)
    with pytest.raises(TypeError, match="det_tresh"):
        ThreadSafeOCR(det_tresh=0.3)


def test_models_that_are_missing_or_wrong_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="v6-small"):
        ThreadSafeOCR("v7-huge")
    with pytest.raises(ModelNotFoundError, match="det"):
        ThreadSafeOCR(tmp_path)
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"no model")
    characters = tmp_path / "characters.txt"
    characters.write_text("a\nb\n")
    with pytest.raises(ModelLoadError, match=r"wrong\.onnx"):
        ThreadSafeOCR({"det": wrong, "rec": wrong, "dict": characters})
    own = {kind: MODELS / "v6-small" / kind for kind in ("det", "rec")}
    with pytest.raises(ModelLoadError, match=r"wrong\.onnx"):
        ThreadSafeOCR({**own, "cls": wrong})
    with pytest.raises(ModelLoadError, match=r"det.*is it a 0/180 orientation model"):
        ThreadSafeOCR({**own, "cls": own["det"]})


def test_a_picture_of_pil_with_broken_exif_is_read(ocr: ThreadSafeOCR) -> None:
    image = Image.open(LINES[0])
    image.load()
    image.info["exif"] = b"Exif\x00\x00no TIFF header"
    assert ocr.read(image).text == TEXT


def test_without_an_orientation_model_nobody_invents_an_answer() -> None:
    with ThreadSafeOCR({kind: MODELS / "v6-small" / kind for kind in ("det", "rec")}) as plain:
        assert plain.read(LINES[0]).lines[0].upside_down is None
        with pytest.raises(ConfigError, match="cls"):
            plain.ocr(LINES[0], det=False, rec=False)


def test_a_good_neighbour_is_answered_among_bad_input(ocr: ThreadSafeOCR) -> None:
    good = [ocr.submit(LINES[0]) for _ in range(4)]
    # Their headers are whole: these fail while the others are read.
    bad = [ocr.submit(PNG[:-1000]) for _ in range(4)]
    assert [future.result().text for future in good] == [TEXT] * 4
    assert all(isinstance(future.exception(), InvalidImageError) for future in bad)


def test_none_is_the_default_of_the_constructors_own_keywords_too() -> None:
    with ThreadSafeOCR(None, device=None, precision=None) as ocr:
        assert ocr.read(LINES[0]).text == TEXT


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:-1", "cpu:0", "", 5])
def test_a_device_that_there_cannot_be_is_refused(device: object) -> None:
    with pytest.raises(ConfigError, match='it can be "auto", "cpu", "cuda" or "cuda:1"'):
        ThreadSafeOCR(device=device)


@pytest.mark.parametrize("in_flight", [0, -1])
def test_read_many_reads_at_least_one_at_once(ocr: ThreadSafeOCR, in_flight: int) -> None:
    with pytest.raises(ConfigError, match=f"in_flight={in_flight}"):
        next(ocr.read_many([LINES[0]], in_flight=in_flight))
