"""Any number of threads, tasks and options at once: the same answer as alone."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest
from conftest import LINES, PAGES, key

from threadsafe_ocr import EngineClosedError, OcrTimeoutError, OverloadedError, ThreadSafeOCR

BAND = PAGES / "formats" / "rgb.png"


def large() -> np.ndarray:
    """A page whose detection alone takes seconds."""
    return np.full((2800, 4000, 3), 255, np.uint8)


def test_many_threads_on_one_object_get_the_answers_of_a_lone_call(ocr: ThreadSafeOCR) -> None:
    alone = [key(ocr.read(path)) for path in LINES]
    wrong: list[int] = []

    def client(k: int) -> None:
        for i in range(6):
            n = (k + i) % len(LINES)
            if key(ocr.read(LINES[n])) != alone[n]:
                wrong.append(n)

    threads = [threading.Thread(target=client, args=(k,)) for k in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_hundred_tasks_in_flight_get_the_answers_of_a_lone_call(ocr: ThreadSafeOCR) -> None:
    alone = [key(ocr.read(path)) for path in LINES]

    async def main() -> list[object]:
        return await asyncio.gather(*(ocr.aread(LINES[i % len(LINES)]) for i in range(100)))

    pages = asyncio.run(main())
    assert all(key(page) == alone[i % len(LINES)] for i, page in enumerate(pages))


def test_options_never_outlive_their_call(ocr: ThreadSafeOCR) -> None:
    options = [{}, {"rec_score_thresh": 1.0}, {"det_thresh": 0.6}, {"rec_min_width": 640}, {"use_textline_orientation": False}]
    alone = [key(ocr.read(LINES[0], **option)) for option in options]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda i: key(ocr.read(LINES[0], **options[i % 5])), range(60)))
    assert all(answer == alone[i % 5] for i, answer in enumerate(answers))
    assert alone[1] == []


def test_a_full_engine_refuses_at_once_and_answers_what_it_took() -> None:
    with ThreadSafeOCR(max_queue_size=4) as small:
        alone = key(small.read(LINES[0]))
        refused, slow, wrong = [], [], []

        def client() -> None:
            for _ in range(4):
                start = time.perf_counter()
                try:
                    if key(small.read(LINES[0], wait=False)) != alone:
                        wrong.append(1)
                except OverloadedError:
                    refused.append(1)
                    if time.perf_counter() - start > 5:
                        slow.append(1)

        threads = [threading.Thread(target=client) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refused and not slow and not wrong
        assert small.stats()["rejected"] == len(refused)


def test_cancelled_requests_stop_costing(ocr: ThreadSafeOCR) -> None:
    futures = [ocr.submit(large()) for _ in range(6)]
    assert all(future.cancel() for future in futures)
    with pytest.raises(CancelledError):
        futures[0].result()
    start = time.perf_counter()
    ocr.read(LINES[0])
    assert time.perf_counter() - start < 5
    stats = ocr.stats()
    assert (stats["queue_size"], stats["waiting_items"]) == (0, 0)


def test_a_deadline_ends_a_call_and_the_next_one_is_answered(ocr: ThreadSafeOCR) -> None:
    with pytest.raises(OcrTimeoutError):
        ocr.read(large(), timeout=0.3)
    with pytest.raises(OcrTimeoutError):
        ocr.submit(large(), timeout=0.3).result()

    async def behind() -> None:
        with pytest.raises(OcrTimeoutError):
            await ocr.aread(large(), timeout=0.3)

    asyncio.run(behind())
    assert ocr.read(LINES[0], timeout=30).lines


def test_a_receipt_is_not_shut_out_by_large_pages(ocr: ThreadSafeOCR) -> None:
    ocr.read(LINES[0])
    futures = [ocr.submit(large()) for _ in range(6)]
    start = time.perf_counter()
    ocr.read(LINES[0])
    waited = time.perf_counter() - start
    assert sum(future.done() for future in futures) < 6, "the large pages were over before the small one"
    for future in futures:
        future.cancel()
    assert waited < 20


def test_callbacks_may_wait_for_other_futures(ocr: ThreadSafeOCR) -> None:
    answered = threading.Event()
    other = ocr.submit(LINES[1])
    ocr.submit(LINES[0]).add_done_callback(lambda _: (other.result(), answered.set()))
    assert answered.wait(30)


def test_closing_answers_whoever_waits_and_refuses_whoever_comes() -> None:
    engine = ThreadSafeOCR(max_queue_size=1)
    running = engine.submit(BAND)
    errors: list[BaseException] = []

    def waiter() -> None:
        try:
            engine.read(LINES[0])
        except EngineClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=waiter)
    thread.start()
    time.sleep(0.2)
    engine.close()
    engine.close()
    thread.join(20)
    assert len(errors) == 1
    assert running.result().lines, "a request with a permit finishes"
    assert not engine.ready
    with pytest.raises(EngineClosedError):
        engine.read(LINES[0])


def test_closing_from_a_callback_and_with_cancel_does_not_hang() -> None:
    engine = ThreadSafeOCR()
    done = threading.Event()
    engine.submit(LINES[0]).add_done_callback(lambda _: (engine.close(), done.set()))
    assert done.wait(30)
    engine = ThreadSafeOCR()
    future = engine.submit(large())
    engine.close(cancel=True)
    with pytest.raises(EngineClosedError):
        future.result(timeout=20)


def test_the_gil_is_free_while_a_page_is_read(ocr: ThreadSafeOCR) -> None:
    future = ocr.submit(BAND)
    ticks = 0
    waiter = threading.Thread(target=future.result)
    waiter.start()
    while waiter.is_alive():
        ticks += 1
    assert ticks > 1000


def test_further_engines_share_workers_and_models(ocr: ThreadSafeOCR) -> None:
    before = threading.active_count(), len(_native_threads())
    engines = [ThreadSafeOCR() for _ in range(20)]
    for engine in engines:
        engine.read(LINES[0])
    assert len(_native_threads()) <= before[1] + 1
    for engine in engines:
        engine.close()


def _native_threads() -> list[str]:
    from pathlib import Path

    return [p.read_text() for p in Path("/proc/self/task").glob("*/comm")]
