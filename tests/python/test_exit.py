"""How a process ends, with work under way: soon, with its own exit code, and without a word on stderr."""

from __future__ import annotations

import pytest

from conftest import Run


def test_exit_with_submitted_pages_in_flight(run_python: Run) -> None:
    run_python("ocr = ThreadSafeOCR()\nfutures = [ocr.submit(large) for _ in range(4)]\ntime.sleep(0.3)")


def test_exit_with_reading_daemon_threads(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR()
        def forever():
            while True:
                ocr.read(LINE)
        for _ in range(6):
            threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.5)
        """
    )


def test_exit_with_daemon_threads_that_wait_in_every_other_way(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR(max_queue_size=2)
        def forever(work):
            while True:
                work()
        for work in (
            lambda: ocr.submit(large).result(),
            lambda: asyncio.run(ocr.aread(large)),
            lambda: list(ocr.read_many([LINE, PAGE])),
            lambda: ThreadSafeOCR().close(),
            lambda: ocr.recognize(np.full((48, 3000, 3), 255, np.uint8)),
        ):
            threading.Thread(target=forever, args=(work,), daemon=True).start()
        time.sleep(1)
        """
    )


def test_exit_with_a_thread_pool_at_work_finishes_its_work(run_python: Run) -> None:
    printed = run_python(
        """
        from concurrent.futures import ThreadPoolExecutor
        ocr = ThreadSafeOCR()
        pool = ThreadPoolExecutor(4)
        for _ in range(8):
            pool.submit(lambda: print(ocr.read(LINE).text))
        """
    )
    # The interpreter joins the pool before any exit hook runs.
    assert len(printed.splitlines()) == 8


def test_exit_after_an_interrupted_loop(run_python: Run) -> None:
    printed = run_python(
        """
        ocr = ThreadSafeOCR()
        async def main():
            await asyncio.gather(*(ocr.aread(large) for _ in range(4)))
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert printed == "interrupted\n"


def test_exit_after_a_loop_that_left_tasks_behind(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR()
        async def main():
            tasks = [asyncio.ensure_future(ocr.aread(large)) for _ in range(4)]
            await asyncio.sleep(0.3)
        asyncio.run(main())
        """
    )


def test_sys_exit_in_a_thread_ends_that_thread_only(run_python: Run) -> None:
    printed = run_python(
        """
        ocr = ThreadSafeOCR()
        future = ocr.submit(LINE)
        thread = threading.Thread(target=lambda: (ocr.submit(large), sys.exit(3)))
        thread.start()
        thread.join()
        print(future.result().text == TEXT)
        """
    )
    assert printed == "True\n"


def test_exit_codes_are_the_users(run_python: Run) -> None:
    start = "ocr = ThreadSafeOCR()\nfutures = [ocr.submit(large) for _ in range(4)]\ntime.sleep(0.3)\n"
    run_python(start + "sys.exit(3)", code=3)
    run_python(start + "os._exit(4)", code=4)


def test_a_callback_that_sleeps_does_not_keep_the_process(run_python: Run) -> None:
    run_python(
        """
        started = threading.Event()
        ocr = ThreadSafeOCR()
        ocr.submit(LINE).add_done_callback(lambda _: (started.set(), time.sleep(300)))
        assert started.wait(30)
        """
    )


# Exit hooks run in the reverse order of their registration: what is registered after the import runs before the package's own hook.
BEFORE_IMPORT = "import atexit\natexit.register(lambda: hook())\n"
AFTER_IMPORT = "atexit.register(lambda: hook())\n"
REFUSED = """
def hook():
    try:
        ocr.read(LINE)
    except EngineClosedError:
        print("refused")
"""
READS = """
def hook():
    reads(ocr)
    print("read")
"""


@pytest.mark.parametrize("use", ["ocr = ThreadSafeOCR()\n", "ocr = ThreadSafeOCR()\nreads(ocr)\n"], ids=["unused", "used"])
def test_an_exit_hook_from_before_the_import_is_refused(run_python: Run, use: str) -> None:
    assert run_python(REFUSED + use, before=BEFORE_IMPORT) == "refused\n"


def test_an_exit_hook_from_after_the_import_reads(run_python: Run) -> None:
    assert run_python(AFTER_IMPORT + READS + "ocr = ThreadSafeOCR()") == "read\n", "registered before the first use"
    assert run_python(READS + "ocr = ThreadSafeOCR()\nreads(ocr)\n" + AFTER_IMPORT) == "read\n", "registered after the first use"


@pytest.mark.parametrize(
    "work", ["ThreadSafeOCR()", "ocr.submit(LINE).result()", "list(ocr.read_many([LINE]))", "asyncio.run(ocr.aread(LINE))"]
)
def test_an_exit_hook_from_before_the_import_is_refused_every_other_way(run_python: Run, work: str) -> None:
    script = REFUSED.replace("ocr.read(LINE)", work) + "ocr = ThreadSafeOCR()"
    assert run_python(script, before=BEFORE_IMPORT, timeout=20) == "refused\n"


def test_an_exit_hook_from_after_the_import_joins_a_reading_daemon_thread(run_python: Run) -> None:
    script = """
ocr = ThreadSafeOCR()
thread = threading.Thread(target=lambda: [reads(ocr) for _ in range(10)], daemon=True)
def hook():
    thread.join()
    print("joined")
atexit.register(hook)
thread.start()
"""
    assert run_python(script) == "joined\n"


def test_an_exit_hook_from_before_the_import_joins_a_daemon_thread_that_reads_for_ever(run_python: Run) -> None:
    script = """
def forever():
    try:
        while True:
            ocr.read(LINE)
    except EngineClosedError:
        print("refused")
def hook():
    thread.join()
    print("joined")
ocr = ThreadSafeOCR()
thread = threading.Thread(target=forever, daemon=True)
thread.start()
time.sleep(0.5)
"""
    assert run_python(script, before=BEFORE_IMPORT) == "refused\njoined\n"


@pytest.mark.parametrize("after", [0.0, 0.05, 0.15])
def test_exit_while_a_daemon_thread_makes_the_first_engine(run_python: Run, after: float) -> None:
    run_python(f"threading.Thread(target=ThreadSafeOCR, daemon=True).start()\ntime.sleep({after})")
