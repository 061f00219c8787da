"""Futures, tasks and callers that leave: what waits holds nothing, what is not wanted stops costing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from conftest import LINES, PAGES, key
from threadsafe_ocr import EngineClosedError, InvalidImageError, OcrTimeoutError, OverloadedError, ThreadSafeOCR
from threadsafe_ocr.waiting import OcrFuture

SMALL_PAGE = np.full((700, 1000, 3), 255, np.uint8)


def large() -> np.ndarray:
    """A page whose detection alone takes seconds."""
    return np.full((2800, 4000, 3), 255, np.uint8)


def becomes(condition: Callable[[], bool], seconds: float = 20) -> bool:
    late = time.perf_counter() + seconds
    while not condition() and time.perf_counter() < late:
        time.sleep(0.005)
    return condition()


def is_idle(ocr: ThreadSafeOCR) -> bool:
    stats = ocr.stats()
    waits = ("queue_size", "queue_bytes", "waiting_for_permit", "waiting_for_room", "waiting_items", "running")
    return not any(stats[name] for name in waits)


@pytest.fixture
def narrow() -> Iterator[ThreadSafeOCR]:
    """One request at a time, and room for three copies of SMALL_PAGE."""
    with ThreadSafeOCR(max_queue_size=1, max_queue_bytes=8 << 20) as engine:
        yield engine


@pytest.fixture
def busy(narrow: ThreadSafeOCR) -> Iterator[OcrFuture]:
    """The request that has the only permit."""
    future = narrow.submit(large())
    yield future
    future.cancel()


async def settled(ocr: ThreadSafeOCR, **expected: int) -> None:
    while any(ocr.stats()[name] != value for name, value in expected.items()):
        await asyncio.sleep(0.005)


def test_tasks_copy_no_more_pixels_than_there_is_room_for_and_all_are_answered(narrow: ThreadSafeOCR, busy: OcrFuture) -> None:
    async def main() -> None:
        tasks = [asyncio.ensure_future(narrow.aread(SMALL_PAGE)) for _ in range(12)]
        await settled(narrow, waiting_for_room=9, waiting_for_permit=3)
        busy.cancel()
        assert all(page.lines == () for page in await asyncio.gather(*tasks))

    asyncio.run(asyncio.wait_for(main(), 50))
    assert becomes(lambda: is_idle(narrow))


def test_tasks_with_paths_queue_at_once_and_small_copies_have_room_of_their_own(narrow: ThreadSafeOCR, busy: OcrFuture) -> None:
    async def main() -> None:
        pages = [asyncio.ensure_future(narrow.aread(SMALL_PAGE)) for _ in range(6)]
        await settled(narrow, waiting_for_room=3)
        lines = [asyncio.ensure_future(narrow.aread(image)) for image in (LINES[0], LINES[0].read_bytes())]
        await settled(narrow, waiting_for_room=3, waiting_for_permit=5)
        busy.cancel()
        assert all(line.lines for line in await asyncio.gather(*lines))
        await asyncio.gather(*pages)

    asyncio.run(asyncio.wait_for(main(), 50))


def test_a_task_that_is_cancelled_while_it_waits_for_room_leaves_nothing(narrow: ThreadSafeOCR, busy: OcrFuture) -> None:
    async def main() -> None:
        tasks = [asyncio.ensure_future(narrow.aread(SMALL_PAGE)) for _ in range(6)]
        await settled(narrow, waiting_for_room=3, waiting_for_permit=3)
        for task in tasks:
            task.cancel()
        assert all(isinstance(error, asyncio.CancelledError) for error in await asyncio.gather(*tasks, return_exceptions=True))
        await settled(narrow, waiting_for_room=0, waiting_for_permit=0, queue_size=1)

    asyncio.run(asyncio.wait_for(main(), 50))


def test_closing_wakes_tasks_that_wait_for_room(narrow: ThreadSafeOCR, busy: OcrFuture) -> None:
    async def main() -> None:
        tasks = [asyncio.ensure_future(narrow.aread(SMALL_PAGE)) for _ in range(6)]
        await settled(narrow, waiting_for_room=3)
        narrow.close()
        errors = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert all(isinstance(error, EngineClosedError) for error in errors), errors

    asyncio.run(main())


def test_the_timeout_of_a_task_counts_from_its_call_while_it_waits_for_room(narrow: ThreadSafeOCR, busy: OcrFuture) -> None:
    async def main() -> None:
        tasks = [asyncio.ensure_future(narrow.aread(SMALL_PAGE)) for _ in range(4)]
        await settled(narrow, waiting_for_room=1)
        start = time.perf_counter()
        with pytest.raises(OcrTimeoutError):
            await narrow.aread(SMALL_PAGE, timeout=0.3)
        assert time.perf_counter() - start < 5
        for task in tasks:
            task.cancel()

    asyncio.run(main())


def test_a_blocked_loop_holds_up_only_its_own_tasks(narrow: ThreadSafeOCR, busy: OcrFuture) -> None:
    blocked, go = threading.Event(), threading.Event()

    async def other() -> None:
        tasks = [asyncio.ensure_future(narrow.aread(SMALL_PAGE)) for _ in range(8)]
        await settled(narrow, waiting_for_room=5)
        blocked.set()
        go.wait(40)
        await asyncio.gather(*tasks)

    thread = threading.Thread(target=lambda: asyncio.run(other()))
    thread.start()
    try:
        assert blocked.wait(20)
        busy.cancel()

        async def main() -> None:
            pages = await asyncio.gather(*(narrow.aread(SMALL_PAGE) for _ in range(4)))
            assert all(page.lines == () for page in pages)

        asyncio.run(asyncio.wait_for(main(), 30))
    finally:
        go.set()
        thread.join(40)
    assert not thread.is_alive()


def test_a_task_that_will_not_wait_is_refused_at_once(narrow: ThreadSafeOCR, busy: OcrFuture) -> None:
    with pytest.raises(OverloadedError):
        asyncio.run(narrow.aread(SMALL_PAGE, wait=False))


def test_five_hundred_tasks_with_arrays_get_the_answer_of_a_lone_call() -> None:
    with ThreadSafeOCR(max_queue_size=8, max_queue_bytes=1 << 20) as small:
        line = np.asarray(Image.open(LINES[0]).convert("RGB"))
        options = {"det_limit_side_len": 128, "det_limit_type": "max", "rec_max_width": 320}
        alone = key(small.read(line, color="rgb", **options))

        async def main() -> list[object]:
            return await asyncio.gather(*(small.aread(line, color="rgb", **options) for _ in range(500)))

        assert all(key(page) == alone for page in asyncio.run(main()))
        assert becomes(lambda: is_idle(small))


def test_a_wait_that_is_over_is_not_the_requests_own_deadline(ocr: ThreadSafeOCR) -> None:
    future = ocr.submit(large(), timeout=1.0)
    with pytest.raises(concurrent.futures.TimeoutError) as over:
        future.result(timeout=0.05)
    assert not isinstance(over.value, OcrTimeoutError)
    assert not future.done(), "the request goes on"
    assert isinstance(future.exception(timeout=20), OcrTimeoutError)


def test_the_standard_library_is_told_of_answers_errors_and_cancelled_futures(ocr: ThreadSafeOCR) -> None:
    futures = [ocr.submit(LINES[0]), ocr.submit(large(), timeout=0.2), ocr.submit(large())]
    assert futures[2].cancel()
    assert futures[2].cancel()
    assert set(concurrent.futures.as_completed(futures, timeout=40)) == set(futures)
    assert futures[0].result().lines
    assert not futures[0].cancel()

    async def main() -> None:
        assert (await asyncio.wrap_future(ocr.submit(LINES[0]))).lines

    asyncio.run(main())


def test_callbacks_run_however_soon_the_answer_comes(ocr: ThreadSafeOCR) -> None:
    done = threading.Semaphore(0)
    content = LINES[0].read_bytes()
    for _ in range(200):
        # Its header is whole: the error comes from the decoder, at once.
        ocr.submit(content[: len(content) // 2]).add_done_callback(lambda _: done.release())
    assert all(done.acquire(timeout=20) for _ in range(200))


# Runs are ended between two kernels of ONNX Runtime: on a page of this size one takes 0.1 s at most. Processor time: the machine may
# be busy.
STOPS = """
import numpy as np
page = np.full((2000, 1414, 3), 255, np.uint8)
def running():
    while not ocr.stats()["running"]:
        time.sleep(0.001)
    time.sleep(0.1)
def stops():
    before = time.process_time()
    late = time.monotonic() + 10
    while ((stats := ocr.stats())["running"] or stats["queue_size"]) and time.monotonic() < late:
        time.sleep(0.005)
    spent = time.process_time() - before
    assert (stats["queue_size"], stats["waiting_items"], stats["activation_bytes"]) == (0, 0, 0), stats
    before = time.process_time()
    time.sleep(0.3)
    idle = time.process_time() - before
    assert spent < 0.2 and idle < 0.05, (spent, idle)
"""


@pytest.mark.parametrize("threads", [1, None], ids=["one-thread", "a-pool"])
def test_a_page_whose_caller_leaves_during_detection_stops_costing(run_python: Callable[..., object], threads: int | None) -> None:
    run_python(
        STOPS
        + f"""
ocr = ThreadSafeOCR(intra_op_num_threads={threads})
ocr.read(LINE)
future = ocr.submit(page)
running()
assert future.cancel()
stops()
future = ocr.submit(page, timeout=0.2)
running()
assert isinstance(future.exception(), OcrTimeoutError)
stops()
"""
    )


def test_an_interrupted_read_stops_costing(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    run_python(
        STOPS
        + """
import signal
ocr = ThreadSafeOCR(max_queue_size=1)
ocr.read(LINE)
def interrupted(then):
    main = threading.main_thread().ident
    threading.Thread(target=lambda: (running(), signal.pthread_kill(main, signal.SIGINT))).start()
    try:
        while True:
            ocr.read(page)
    except KeyboardInterrupt:
        then()
interrupted(stops)
# While it waits for its permit.
other = ocr.submit(np.full((2800, 4000, 3), 255, np.uint8))
def has_left():
    stats = ocr.stats()
    assert (stats["queue_size"], stats["waiting_for_permit"]) == (1, 0), stats
interrupted(has_left)
other.cancel()
assert ocr.read(LINE).lines
"""
    )


def test_in_a_forked_child_the_parents_requests_are_refused_and_may_be_cancelled(run_python: Callable[..., object]) -> None:
    run_python(
        """
        import asyncio, numpy as np
        ocr = ThreadSafeOCR()
        large = np.full((2800, 4000, 3), 255, np.uint8)
        future = ocr.submit(large)
        async def main():
            task = asyncio.ensure_future(ocr.aread(large))
            await asyncio.sleep(0.2)
            pid = os.fork()
            if pid == 0:
                import signal
                signal.alarm(20)
                code = 7
                try:
                    future.result()
                except ForkedProcessError:
                    code = 0
                future.cancel()
                task.cancel()
                assert ocr.read(LINE).lines
                os._exit(code)
            assert os.waitpid(pid, 0)[1] == 0
            task.cancel()
        asyncio.run(main())
        future.cancel()
        assert ocr.read(LINE).lines
        """
    )


def test_ctrl_c_works_in_a_child_that_another_thread_forked(run_python: Callable[..., object]) -> None:
    run_python(
        """
        import numpy as np, signal
        ocr = ThreadSafeOCR()
        def fork():
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
                start = time.perf_counter()
                try:
                    while True:
                        ocr.read(np.full((2800, 4000, 3), 255, np.uint8))
                except KeyboardInterrupt:
                    os._exit(0 if time.perf_counter() - start < 4 else 3)
            assert os.waitpid(pid, 0)[1] == 0
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
        """
    )


def test_pil_images_are_judged_by_their_size_before_they_are_loaded() -> None:
    with ThreadSafeOCR(max_pixels=1000) as small, Image.open(LINES[0]) as image:
        image.load = lambda: pytest.fail("it was loaded")  # type: ignore[method-assign]
        with pytest.raises(InvalidImageError, match="max_pixels"):
            small.read(image)


def test_a_broken_pil_image_is_an_invalid_image(ocr: ThreadSafeOCR, tmp_path: object) -> None:
    cut = tmp_path / "cut.png"  # type: ignore[operator]
    cut.write_bytes((PAGES / "formats" / "rgb.png").read_bytes()[:5000])
    with Image.open(cut) as image, pytest.raises(InvalidImageError, match="PIL"):
        ocr.read(image)


def test_each_crop_of_a_list_keeps_its_own_order_of_channels(ocr: ThreadSafeOCR) -> None:
    rgb = np.asarray(Image.open(LINES[0]).convert("RGB")).copy()
    rgb[:, :, 0] //= 3
    image, bgr = Image.fromarray(rgb), np.ascontiguousarray(rgb[:, :, ::-1])
    one, other = ocr.recognize([bgr, image])
    assert (one.text, one.score) == (other.text, other.score)


def test_arrays_of_any_layout_are_copied_alike(ocr: ThreadSafeOCR) -> None:
    rgba = np.asarray(Image.open(LINES[0]).convert("RGBA"))
    for pixels in (rgba[:, :, 0], rgba[:, :, :1], rgba[:, :, :3], rgba):
        whole = np.ascontiguousarray(pixels)
        wide = np.zeros((whole.shape[0], whole.shape[1] * 2, *whole.shape[2:]), np.uint8)
        wide[:, ::2] = whole
        flipped = [np.ascontiguousarray(np.flip(whole, axis)) for axis in range(whole.ndim)]
        layouts = [np.asfortranarray(whole), wide[:, ::2], pixels, *(np.flip(copy, axis) for axis, copy in enumerate(flipped))]
        assert {ocr.recognize(layout).score for layout in layouts} == {ocr.recognize(whole).score}


def test_an_array_that_grows_while_its_request_waits_is_refused(narrow: ThreadSafeOCR, busy: OcrFuture) -> None:
    page = np.zeros((32, 320), np.uint8)

    async def main() -> None:
        tasks = [asyncio.ensure_future(narrow.aread(SMALL_PAGE)) for _ in range(4)]
        changing = np.zeros((700, 1000, 3), np.uint8)
        task = asyncio.ensure_future(narrow.aread(changing))
        await settled(narrow, waiting_for_room=2)
        changing.resize((1400, 1000, 3), refcheck=False)
        busy.cancel()
        with pytest.raises(InvalidImageError, match="changed"):
            await task
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(main(), 50))
    assert narrow.read(page).lines == ()
