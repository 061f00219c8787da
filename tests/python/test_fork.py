"""Forked and spawned children: each builds its own engine, whatever the parent's threads were doing when it was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Run


@pytest.mark.parametrize("before", ["pass", "reads(ocr)"], ids=["unused", "used"])
def test_a_forked_child_builds_its_own_engine(run_python: Run, before: str) -> None:
    run_python(f"ocr = ThreadSafeOCR()\n{before}\nchild(lambda: reads(ocr))\nreads(ocr)")


def test_fork_before_any_engine(run_python: Run) -> None:
    run_python("child(lambda: reads(ThreadSafeOCR()))\nreads(ThreadSafeOCR())")


def test_fork_while_busy_with_every_permit_out(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR(max_queue_size=2)
        futures = [ocr.submit(large) for _ in range(2)]
        waiter = threading.Thread(target=reads, args=(ocr,), daemon=True)
        waiter.start()
        while ocr.stats()["waiting_for_permit"] == 0:
            time.sleep(0.01)
        try:
            ocr.read(LINE, wait=False)
        except OverloadedError:
            pass
        else:
            raise SystemExit("a permit was free")
        child(lambda: reads(ocr))
        assert not any(future.done() for future in futures), "the parent was idle before the child had read"
        [future.cancel() for future in futures]
        waiter.join()
        """
    )


def test_a_thousand_forks_under_load(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR(max_queue_size=4)
        stop, failed = threading.Event(), []
        def client(work):
            try:
                while not stop.is_set():
                    work()
                    time.sleep(0.001)
            except BaseException as error:
                failed.append(error)
        works = [lambda: reads(ocr)] * 2 + [lambda: ThreadSafeOCR(max_queue_size=2).close(), lambda: ocr.submit(LINE).cancel()]
        threads = [threading.Thread(target=client, args=(work,), daemon=True) for work in works]
        [thread.start() for thread in threads]
        start = time.monotonic()
        for i in range(1000):
            # A busy machine makes fewer.
            if time.monotonic() > start + 35:
                break
            if i % 100 == 0:
                child(lambda: reads(ocr))
            elif i % 100 == 50:
                child(lambda: reads(ThreadSafeOCR()))
            else:
                child(lambda: None)
        stop.set()
        [thread.join() for thread in threads]
        assert not failed, failed
        assert i >= 200, i
        """,
        timeout=58,
    )


def test_fork_while_another_thread_loads_and_unloads_models(run_python: Run) -> None:
    run_python(
        """
        stop = threading.Event()
        def maker():
            while not stop.is_set():
                with ThreadSafeOCR() as ocr:
                    reads(ocr)
                unload()
        thread = threading.Thread(target=maker, daemon=True)
        thread.start()
        for i in range(60):
            time.sleep(0.01)
            child((lambda: reads(ThreadSafeOCR())) if i % 10 == 0 else (lambda: None))
        stop.set()
        thread.join()
        """
    )


def test_forks_from_many_threads_at_once(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR()
        reads(ocr)
        failed = []
        def forks():
            try:
                for i in range(20):
                    child((lambda: reads(ocr)) if i == 10 else (lambda: None))
                    reads(ocr)
            except BaseException as error:
                failed.append(error)
        threads = [threading.Thread(target=forks, daemon=True) for _ in range(3)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert not failed, failed
        """
    )


def test_a_forked_child_exits_normally(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR()
        reads(ocr)
        for work in (lambda: None, lambda: reads(ocr), lambda: ocr.submit(large)):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                work()
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        """
    )


def test_a_grandchild_reads(run_python: Run) -> None:
    run_python("ocr = ThreadSafeOCR()\nreads(ocr)\nchild(lambda: (reads(ocr), child(lambda: reads(ocr)), reads(ocr)))\nreads(ocr)")


def test_every_way_of_reading_works_in_a_child(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR()
        assert ocr.submit(LINE).result().text == asyncio.run(ocr.aread(LINE)).text == TEXT
        def work():
            answered = threading.Event()
            ocr.submit(LINE).add_done_callback(lambda _: answered.set())
            assert answered.wait(20)
            assert asyncio.run(ocr.aread(LINE)).text == TEXT
            assert [page.text for page in ocr.read_many([LINE] * 3)] == [TEXT] * 3
            ocr.close()
        child(work)
        reads(ocr)
        """
    )


def test_a_closed_engine_is_closed_in_the_child(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR()
        ocr.close()
        def work():
            assert not ocr.ready and ocr.stats()["answered"] == 0
            try:
                ocr.read(LINE)
            except EngineClosedError:
                return
            raise SystemExit("it read")
        child(work)
        """
    )


def test_a_close_while_the_child_builds_its_engine_counts(run_python: Run) -> None:
    run_python(
        """
        ocrs = [ThreadSafeOCR() for _ in range(6)]
        def work():
            for k, ocr in enumerate(ocrs):
                def read():
                    try:
                        ocr.read(LINE)
                    except EngineClosedError:
                        pass
                reader = threading.Thread(target=read)
                reader.start()
                time.sleep(k * 0.05)
                ocr.close()
                reader.join()
                try:
                    ocr.read(LINE)
                except EngineClosedError:
                    unload()
                    continue
                raise SystemExit(f"{k}: it read after close()")
        child(work)
        """
    )


def test_closing_and_collecting_the_parents_objects_in_the_child_is_harmless(run_python: Run) -> None:
    run_python(
        """
        import gc
        ocr = ThreadSafeOCR()
        future = ocr.submit(large[:1400, :2000])
        def work():
            global ocr, future
            future.cancel()
            ocr.close(cancel=True)
            del ocr, future
            gc.collect()
            reads(ThreadSafeOCR())
        child(work)
        assert future.result().lines == ()
        """
    )


def test_on_fork_error_refuses_in_the_child(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR(on_fork="error")
        def refused():
            for work in (lambda: ocr.read(LINE), lambda: ocr.submit(LINE), lambda: asyncio.run(ocr.aread(LINE)), ocr.stats):
                try:
                    work()
                except ForkedProcessError:
                    continue
                raise SystemExit("not refused")
        child(refused)
        reads(ocr)
        """
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_processes_read(run_python: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "work.py").write_text("def go(ocr, path):\n    return ocr.read(path).text\n")
    # The engine travels as its arguments.
    run_python(
        f"""
        import multiprocessing, work
        ocr = ThreadSafeOCR(max_queue_size=8)
        reads(ocr)
        with multiprocessing.get_context({method!r}).Pool(2) as pool:
            assert pool.starmap(work.go, [(ocr, LINE)] * 4) == [TEXT] * 4
        reads(ocr)
        """
    )
