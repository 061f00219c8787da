"""Futures, tasks and their callbacks: one that blocks, leaves, runs late or fails costs nobody else anything."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import sys
import threading
import time

import pytest

from conftest import LINES, TEXT, Run, large
from threadsafe_ocr import EngineClosedError, InvalidImageError, OcrTimeoutError, ThreadSafeOCR

# Its header is whole, so that it fails on a page thread and not in the call.
CUT_SHORT = LINES[0].read_bytes()[:-1000]


def test_a_callback_that_blocks_keeps_nobody_else_waiting(ocr: ThreadSafeOCR) -> None:
    blocked, release = threading.Event(), threading.Event()
    future = ocr.submit(LINES[0])
    future.add_done_callback(lambda _: (blocked.set(), release.wait(50)))
    assert blocked.wait(30)
    try:

        async def tasks() -> list[str]:
            return [page.text for page in await asyncio.gather(*(ocr.aread(LINES[0]) for _ in range(4)))]

        assert asyncio.run(tasks()) == [TEXT] * 4
        assert [ocr.submit(LINES[0]).result(30).text for _ in range(4)] == [TEXT] * 4
        assert [page.text for page in ocr.read_many([LINES[0]] * 4)] == [TEXT] * 4
        assert isinstance(ocr.submit(CUT_SHORT).exception(30), InvalidImageError)
    finally:
        release.set()


def test_a_callback_may_wait_for_another_future(ocr: ThreadSafeOCR) -> None:
    texts: list[str] = []
    answered = threading.Event()
    other = ocr.submit(LINES[0])

    def callback(_: object) -> None:
        texts.extend([other.result().text, ocr.submit(LINES[0]).result().text, ocr.read(LINES[0]).text])
        answered.set()

    ocr.submit(LINES[0]).add_done_callback(callback)
    assert answered.wait(30)
    assert texts == [TEXT] * 3


def test_a_callback_that_raises_is_logged_and_the_next_one_runs(ocr: ThreadSafeOCR, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        answered = threading.Event()
        future = ocr.submit(LINES[0])
        future.add_done_callback(lambda _: 1 / 0)
        future.add_done_callback(lambda _, answered=answered: answered.set())
        assert answered.wait(30)
    assert "ZeroDivisionError" in caplog.text


def test_closing_from_a_callback_does_not_hang() -> None:
    engine = ThreadSafeOCR()
    closed = threading.Event()
    future = engine.submit(LINES[0])
    other = engine.submit(LINES[0])
    future.add_done_callback(lambda _: (engine.close(), engine.close(cancel=True), closed.set()))
    assert closed.wait(30)
    assert future.result().text == TEXT
    assert other.exception() is None or isinstance(other.exception(), EngineClosedError)
    with pytest.raises(EngineClosedError):
        engine.submit(LINES[0])


def test_closing_with_cancel_answers_every_future_at_once() -> None:
    engine = ThreadSafeOCR()
    futures = [engine.submit(large()) for _ in range(6)]
    start = time.perf_counter()
    engine.close(cancel=True)
    assert all(isinstance(future.exception(), EngineClosedError) for future in futures)
    assert time.perf_counter() - start < 2, "six such pages take longer"


def test_closing_lets_what_was_submitted_finish() -> None:
    engine = ThreadSafeOCR()
    futures = [engine.submit(LINES[0]) for _ in range(8)]
    engine.close()
    assert [future.result().text for future in futures] == [TEXT] * 8


def test_a_future_outlives_its_engines_name() -> None:
    engine = ThreadSafeOCR()
    future = engine.submit(LINES[0])
    del engine
    gc.collect()
    assert future.result().text == TEXT


def test_a_deadline_behind_large_pages_ends_the_wait_and_the_engine_works_on(ocr: ThreadSafeOCR) -> None:
    ahead = [ocr.submit(large()) for _ in range(6)]
    took: list[float] = []

    def late(call: object) -> None:
        start = time.perf_counter()
        with pytest.raises(OcrTimeoutError):
            call()  # type: ignore[operator]
        took.append(time.perf_counter() - start)

    late(lambda: ocr.read(large(), timeout=0.3))
    late(lambda: ocr.submit(large(), timeout=0.3).result())
    late(lambda: asyncio.run(ocr.aread(large(), timeout=0.3)))
    error = ocr.submit(large(), timeout=0.3).exception()
    busy = not all(future.done() for future in ahead)
    for future in ahead:
        future.cancel()
    assert isinstance(error, OcrTimeoutError)
    assert busy, "nothing was ahead of them"
    assert max(took) < 1.5
    assert min(took) >= 0.3
    assert ocr.read(LINES[0], timeout=30).text == TEXT


def test_a_deadline_holds_while_there_is_no_permit() -> None:
    with ThreadSafeOCR(max_queue_size=1) as small:
        ahead = small.submit(large())
        for call in (
            lambda: small.read(LINES[0], timeout=0.3),
            lambda: small.submit(LINES[0], timeout=0.3),
            lambda: asyncio.run(small.aread(LINES[0], timeout=0.3)),
        ):
            start = time.perf_counter()
            with pytest.raises(OcrTimeoutError):
                call()
            assert 0.3 <= time.perf_counter() - start < 1.5
            if ahead.done():
                ahead = small.submit(large())
        ahead.cancel()
        assert small.read(LINES[0]).text == TEXT


def test_the_engines_own_timeout_holds_for_every_call() -> None:
    with ThreadSafeOCR(timeout=0.3) as hasty:
        with pytest.raises(OcrTimeoutError, match=r"0\.3"):
            hasty.read(large())
        with pytest.raises(OcrTimeoutError, match=r"0\.3"):
            hasty.submit(large()).result()
        with pytest.raises(OcrTimeoutError, match=r"0\.3"):
            asyncio.run(hasty.aread(large()))
        assert hasty.read(LINES[0], timeout=30).text == TEXT


def test_not_waiting_any_longer_for_a_result_leaves_the_request_alone(ocr: ThreadSafeOCR) -> None:
    future = ocr.submit(large()[:1400, :2000])
    with pytest.raises(concurrent.futures.TimeoutError) as late:
        future.result(timeout=0.05)
    assert not isinstance(late.value, OcrTimeoutError), "it is the wait that ended, not the request"
    assert future.result().lines == ()


def test_the_standard_librarys_waiting_works(ocr: ThreadSafeOCR) -> None:
    futures = [ocr.submit(line) for line in LINES]
    assert {future.result().width for future in concurrent.futures.as_completed(futures, timeout=30)}
    failed = ocr.submit(CUT_SHORT)
    assert concurrent.futures.wait([failed], timeout=30).done == {failed}
    with pytest.raises(InvalidImageError):
        failed.result()

    async def main() -> str:
        return (await asyncio.wrap_future(ocr.submit(LINES[0]))).text

    assert asyncio.run(main()) == TEXT


def test_a_cancelled_future_is_done_for_whoever_waits_for_it(ocr: ThreadSafeOCR) -> None:
    future = ocr.submit(large())
    called = threading.Event()
    future.add_done_callback(lambda _: called.set())
    assert future.cancel()
    assert called.wait(10)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    assert concurrent.futures.wait([future], timeout=10).done == {future}


def test_a_future_that_is_answered_cannot_be_cancelled(ocr: ThreadSafeOCR) -> None:
    future = ocr.submit(LINES[0])
    assert future.result().text == TEXT
    assert not future.cancel()


def test_a_cancelled_task_cancels_its_request(ocr: ThreadSafeOCR) -> None:
    before = ocr.stats()["cancelled"]

    async def main() -> None:
        tasks = [asyncio.ensure_future(ocr.aread(large())) for _ in range(4)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ocr.aread(large()), 0.1)

    asyncio.run(main())
    assert ocr.stats()["cancelled"] == before + 5


def test_an_abandoned_iterator_cancels_what_it_had_begun(ocr: ThreadSafeOCR) -> None:
    before = ocr.stats()["cancelled"]
    pages = ocr.read_many([LINES[0], *[large()] * 4], in_flight=5)
    assert next(pages).text == TEXT
    pages.close()
    assert ocr.stats()["cancelled"] == before + 4


def test_a_hundred_cancelled_pages_leave_the_process_idle(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR(max_queue_bytes=2 << 30)
        reads(ocr)
        futures = [ocr.submit(PAGE) for _ in range(100)]
        time.sleep(0.2)
        assert ocr.stats()["queue_size"] >= 90, "the pages were read before they were cancelled"
        assert all([future.cancel() for future in futures])
        time.sleep(2)
        stats = ocr.stats()
        names = "queue_size", "queue_bytes", "waiting_for_permit", "waiting_items", "running", "activation_bytes"
        assert not any(stats[name] for name in names), stats
        assert stats["cancelled"] == 100
        cpu = time.process_time()
        time.sleep(1)
        assert time.process_time() - cpu < 0.1
        reads(ocr)
        """
    )


def test_a_callback_that_ends_its_thread_does_not_end_the_others_callbacks(ocr: ThreadSafeOCR, caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()

    def leaves(_: object) -> None:
        ended.set()
        sys.exit()

    ocr.submit(LINES[0]).add_done_callback(leaves)
    assert ended.wait(20)
    called = threading.Event()
    ocr.submit(LINES[0]).add_done_callback(lambda _: called.set())
    assert called.wait(20)
    assert "callback" in caplog.text
