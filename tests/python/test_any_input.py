"""Whatever is given to `read`: a result, or within a second a documented error, and the next page is read right."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from conftest import LINES, PAGES, TEXT
from threadsafe_ocr import InvalidImageError, OcrResult, ThreadSafeOCR

few = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def outcome(ocr: ThreadSafeOCR, image: object) -> OcrResult | InvalidImageError | TypeError:
    """What came of `image`, without harm to the next one."""
    start = time.perf_counter()
    try:
        answer: OcrResult | InvalidImageError | TypeError = ocr.read(image, det_limit_side_len=320, det_limit_type="max")
    except (InvalidImageError, TypeError) as error:
        answer = error
    assert isinstance(answer, OcrResult) or (str(answer) and time.perf_counter() - start < 1)
    assert ocr.read(LINES[0]).text == TEXT
    return answer


@st.composite
def views(draw: st.DrawFn) -> np.ndarray:
    """An array of any type and shape, looked at in any way."""
    dtype = draw(st.one_of(st.just(np.dtype(np.uint8)), npst.scalar_dtypes(), npst.array_dtypes(), st.just(np.dtype(object))))
    pixels = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4]))
    shape = draw(st.one_of(pixels, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=40)))
    array = np.zeros(shape, dtype)
    if dtype == np.uint8:
        array[...] = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, shape, np.uint8)
    for _ in range(draw(st.integers(0, 2))):
        array = draw(
            st.sampled_from(
                [
                    array,
                    array.T,
                    array[::-1],
                    array[..., ::-1],
                    array[::2],
                    np.asfortranarray(array),
                    np.broadcast_to(array, (3, *array.shape))[0],
                    np.broadcast_to(array, (7, *array.shape)),
                    np.ma.array(array) if array.dtype == np.uint8 else array,
                ]
                if array.ndim and len(array)
                else [array]
            )
        )
    if draw(st.booleans()):
        array.flags.writeable = False
    return array


@given(image=views())
@few
def test_any_array(ocr: ThreadSafeOCR, image: np.ndarray) -> None:
    answer = outcome(ocr, image)
    readable = image.ndim in (2, 3) and image.size > 0 and (image.ndim == 2 or image.shape[2] in (1, 3, 4))
    if image.dtype != np.uint8:
        assert isinstance(answer, TypeError)
    elif readable:
        assert isinstance(answer, OcrResult)
        assert (answer.height, answer.width) == image.shape[:2]
    else:
        assert isinstance(answer, InvalidImageError)


@given(rows=st.slices(37), columns=st.slices(325), rgb=st.booleans(), frozen=st.booleans())
@few
def test_any_view_of_a_page_is_read_as_its_copy(ocr: ThreadSafeOCR, rows: slice, columns: slice, rgb: bool, frozen: bool) -> None:
    pixels = np.asarray(Image.open(LINES[0]).convert("RGB"))[:, :, :: 1 if rgb else -1]
    view = pixels[rows, columns]
    if frozen:
        view.flags.writeable = False
    if view.size == 0:
        assert isinstance(outcome(ocr, view), InvalidImageError)
        return
    color = "rgb" if rgb else "bgr"
    assert ocr.read(view, color=color) == ocr.read(np.ascontiguousarray(view), color=color)


def encoded(form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.open(LINES[0]).convert(str(options.pop("mode", "RGB"))).save(buffer, form, **options)
    return buffer.getvalue()


FILES = {
    "jpeg": encoded("JPEG", quality=98),
    "progressive.jpeg": encoded("JPEG", quality=98, progressive=True),
    "cmyk.jpeg": encoded("JPEG", quality=98, mode="CMYK"),
    "png": encoded("PNG"),
    "palette.png": encoded("PNG", mode="P"),
    "lzw.tiff": encoded("TIFF", compression="tiff_lzw"),
    "deflate.tiff": encoded("TIFF", compression="tiff_adobe_deflate"),
    "packbits.tiff": encoded("TIFF", compression="packbits"),
    "g4.tiff": encoded("TIFF", mode="1", compression="group4"),
    "raw.tiff": encoded("TIFF"),
    "lossless.webp": encoded("WEBP", lossless=True),
    "webp": encoded("WEBP"),
    "gif": encoded("GIF"),
    "bmp": encoded("BMP"),
    "palette.bmp": encoded("BMP", mode="P"),
}
REAL = {path.name: path.read_bytes() for path in sorted((PAGES / "formats").iterdir())}


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """A file with some bytes changed, near its start above all, a piece cut out, said twice or put in, or its end missing."""
    position = st.one_of(st.integers(0, min(100, len(content) - 1)), st.integers(0, len(content) - 1))

    def change(edits: list[tuple[int, int]]) -> bytes:
        changed = bytearray(content)
        for where, byte in edits:
            changed[where] = byte
        return bytes(changed)

    byte = st.one_of(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]), st.integers(0, 255))
    return st.one_of(
        st.lists(st.tuples(position, byte), min_size=1, max_size=8).map(change),
        position.map(lambda where: content[:where]),
        st.tuples(position, st.integers(1, 64)).map(lambda cut: content[: cut[0]] + content[sum(cut) :]),
        st.tuples(position, st.integers(1, 64)).map(lambda cut: content[: sum(cut)] + content[cut[0] :]),
        st.tuples(position, st.binary(max_size=16)).map(lambda put: content[: put[0]] + put[1] + content[put[0] :]),
    )


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_whole_before_it_is_damaged(ocr: ThreadSafeOCR, name: str) -> None:
    assert ocr.read(FILES[name]).text == TEXT


@given(content=st.sampled_from(sorted(FILES)).flatmap(lambda name: damaged(FILES[name])))
@settings(few, max_examples=150)
def test_any_damage_to_any_format(ocr: ThreadSafeOCR, content: bytes) -> None:
    assert not isinstance(outcome(ocr, content), TypeError)


@given(content=st.sampled_from(sorted(REAL)).flatmap(lambda name: damaged(REAL[name])))
@settings(few, max_examples=40)
def test_any_damage_to_real_files(ocr: ThreadSafeOCR, content: bytes) -> None:
    assert not isinstance(outcome(ocr, content), TypeError)


@given(content=st.binary(max_size=300))
@few
def test_any_bytes(ocr: ThreadSafeOCR, content: bytes) -> None:
    assert isinstance(outcome(ocr, content), InvalidImageError)


@pytest.mark.parametrize("name", [*FILES, *REAL])
def test_a_file_cut_short_in_the_middle_is_an_error(ocr: ThreadSafeOCR, name: str) -> None:
    content = FILES.get(name) or REAL[name]
    for part in (0.3, 0.6, 0.9):
        with pytest.raises(InvalidImageError):
            ocr.read(content[: int(len(content) * part)])


@pytest.mark.parametrize(
    "make",
    [lambda b: bytearray(b), memoryview, lambda b: memoryview(bytearray(b))[::1], io.BytesIO],
    ids=["bytearray", "memoryview", "writeable view", "file"],
)
def test_other_holders_of_bytes(ocr: ThreadSafeOCR, make: Callable[[bytes], object]) -> None:
    assert ocr.read(make(FILES["png"])).text == TEXT
    with pytest.raises(InvalidImageError):
        ocr.read(make(b""))
