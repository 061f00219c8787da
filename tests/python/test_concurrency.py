"""Any number of threads, tasks and options at once: the same answer as alone."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import LINES, PAGES, TEXT, ask, key, large
from threadsafe_ocr import EngineClosedError, OcrResult, OverloadedError, ThreadSafeOCR

BAND = PAGES / "formats" / "rgb.png"


def test_many_threads_on_one_object_get_the_answers_of_a_lone_call(ocr: ThreadSafeOCR) -> None:
    alone = [key(ocr.read(path)) for path in LINES]
    turns = [(k + i) % len(LINES) for k in range(32) for i in range(4)]
    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(lambda n: key(ocr.read(LINES[n])), turns))
    assert all(alone)
    assert answers == [alone[n] for n in turns]


def test_a_hundred_tasks_in_flight_get_the_answers_of_a_lone_call(ocr: ThreadSafeOCR) -> None:
    alone = [key(ocr.read(path)) for path in LINES]

    async def main() -> list[OcrResult]:
        return await asyncio.gather(*(ocr.aread(LINES[i % len(LINES)]) for i in range(100)))

    pages = asyncio.run(main())
    assert [key(page) for page in pages] == [alone[i % len(LINES)] for i in range(100)]


OPTIONS = [{}, {"rec_score_thresh": 1.0}, {"rec_min_width": 640}, {"det_unclip_ratio": 2.5}, {"det_box_thresh": 0.99}]


def test_options_never_outlive_their_call(ocr: ThreadSafeOCR) -> None:
    alone = []
    for option in OPTIONS:
        with ThreadSafeOCR() as fresh:
            alone.append(key(fresh.read(LINES[0], **option)))
    assert len({str(answer) for answer in alone}) >= 4, "the options change nothing here"
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda i: key(ocr.read(LINES[0], **OPTIONS[i % 5])), range(60)))
    assert answers == [alone[i % 5] for i in range(60)]


def test_options_do_not_leak_between_calls_of_one_thread_or_task(ocr: ThreadSafeOCR) -> None:
    alone = key(ocr.read(LINES[0]))
    options = {"rec_score_thresh": 1.0}
    for call in (
        lambda: ocr.read(LINES[0], **options).lines,
        lambda: ocr.submit(LINES[0], **options).result().lines,
        lambda: asyncio.run(ocr.aread(LINES[0], **options)).lines,
        lambda: next(ocr.read_many([LINES[0]], **options)).lines,
        lambda: ocr.ocr(LINES[0], **options)[0] or (),
    ):
        assert call() == ()
        assert key(ocr.read(LINES[0])) == alone
    ocr.ocr(LINES[0], cls=False)
    ocr.detect(LINES[0])
    assert key(ocr.read(LINES[0])) == alone
    assert options == {"rec_score_thresh": 1.0}, "the caller's dict is its own"


def test_an_engines_options_are_not_anothers(ocr: ThreadSafeOCR) -> None:
    alone = key(ocr.read(LINES[0]))
    with ThreadSafeOCR(rec_score_thresh=1.0) as strict:
        assert strict.read(LINES[0]).lines == ()
        assert strict.read(LINES[0], rec_score_thresh=0.0).text == TEXT
        assert strict.read(LINES[0]).lines == ()
        assert key(ocr.read(LINES[0])) == alone


def test_a_full_engine_refuses_at_once_and_answers_what_it_took() -> None:
    with ThreadSafeOCR(max_queue_size=4) as small:
        alone = key(small.read(LINES[0]))
        refusals: list[float] = []
        answers = []

        def client() -> None:
            for _ in range(4):
                start = time.perf_counter()
                try:
                    answers.append(key(small.read(LINES[0], wait=False)))
                except OverloadedError:
                    refusals.append(time.perf_counter() - start)

        threads = [threading.Thread(target=client) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [alone] * len(answers)
        assert len(answers) >= 4
        assert small.stats()["rejected"] == len(refusals) > 0
        # At once: a wait for a permit would take seconds. `make soak` holds 50 ms.
        assert max(refusals) < 1


@pytest.mark.parametrize("call", ["read", "submit", "aread", "detect", "recognize", "ocr", "read_many"])
def test_not_waiting_is_refused_by_every_call(call: str) -> None:
    with ThreadSafeOCR(max_queue_size=1) as small:
        running = small.submit(large())
        with pytest.raises(OverloadedError):
            ask(small, call, LINES[0], wait=False)
        assert not running.done()
        running.cancel()


def test_a_receipt_is_not_shut_out_by_large_pages(ocr: ThreadSafeOCR) -> None:
    futures = [ocr.submit(large()) for _ in range(6)]
    assert ocr.read(LINES[0]).text == TEXT
    done = sum(future.done() for future in futures)
    for future in futures:
        future.cancel()
    # It waits for the one detection that runs, and for no other.
    assert done <= 2


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
    while engine.stats()["waiting_for_permit"] == 0:
        time.sleep(0.01)
    engine.close()
    engine.close()
    thread.join(20)
    assert len(errors) == 1
    assert running.result().lines, "a request with a permit finishes"
    assert not engine.ready
    with pytest.raises(EngineClosedError):
        engine.read(LINES[0])


def test_the_gil_is_free_while_a_page_is_read(ocr: ThreadSafeOCR) -> None:
    waiter = threading.Thread(target=ocr.read, args=(BAND,))
    waiter.start()
    ticks = 0
    while waiter.is_alive():
        ticks += 1
    assert ticks > 1000


def test_further_engines_share_workers_and_models(ocr: ThreadSafeOCR) -> None:
    assert ocr.read(LINES[0]).text == TEXT
    before = len(list(Path("/proc/self/task").iterdir()))
    engines = [ThreadSafeOCR() for _ in range(20)]
    for engine in engines:
        assert engine.read(LINES[0]).text == TEXT
    assert len(list(Path("/proc/self/task").iterdir())) <= before + 1
    for engine in engines:
        engine.close()
