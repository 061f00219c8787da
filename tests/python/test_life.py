"""The edges of a process's life, each in a process of its own with a time limit."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from conftest import LINES, PAGES

Run = Callable[..., subprocess.CompletedProcess[str]]
LARGE = "import numpy as np\nlarge = np.full((2800, 4000, 3), 255, np.uint8)\n"


def test_exit_with_work_in_flight(run_python: Run) -> None:
    run_python(LARGE + "ocr = ThreadSafeOCR()\nfutures = [ocr.submit(large) for _ in range(4)]\ntime.sleep(0.3)")


def test_exit_with_reading_daemon_threads(run_python: Run) -> None:
    done = run_python(
        """
        ocr = ThreadSafeOCR()
        def forever():
            while True:
                ocr.read(PAGE)
        for _ in range(6):
            threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.5)
        """
    )
    assert not done.stderr, done.stderr


def test_a_users_exit_hook_may_read_before_ours_and_is_told_after(run_python: Run) -> None:
    done = run_python(
        """
        import atexit
        ocr = ThreadSafeOCR()
        atexit.register(lambda: print(len(ocr.read(LINE).lines)))
        """
    )
    assert done.stdout.strip() == "1"


def test_a_callback_that_sleeps_does_not_keep_the_process(run_python: Run) -> None:
    run_python("ocr = ThreadSafeOCR()\nocr.submit(LINE).add_done_callback(lambda _: time.sleep(30))\ntime.sleep(1)", timeout=20)


def test_ctrl_c_works_while_waiting() -> None:
    script = (
        "import numpy as np\nfrom threadsafe_ocr import ThreadSafeOCR\nocr = ThreadSafeOCR()\n"
        "large = np.full((2800, 4000, 3), 255, np.uint8)\nprint('ready', flush=True)\n"
        "try:\n    while True: ocr.read(large)\nexcept KeyboardInterrupt:\n    print('interrupted', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        time.sleep(0.5)
        start = time.perf_counter()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline().strip() == "interrupted"
        assert time.perf_counter() - start < 5
        assert process.wait(20) == 0


CHILD = """
def child(work):
    pid = os.fork()
    if pid == 0:
        import signal
        signal.alarm(25)
        try:
            work()
        except BaseException as error:
            print("child", type(error).__name__, error, flush=True)
            os._exit(7)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
"""


@pytest.mark.parametrize("before", ["pass", "ocr.read(LINE)"])
def test_a_forked_child_builds_its_own_engine(run_python: Run, before: str) -> None:
    run_python(CHILD + f"ocr = ThreadSafeOCR()\n{before}\nchild(lambda: ocr.read(LINE))\nocr.read(LINE)")


def test_fork_while_busy_with_every_permit_out(run_python: Run) -> None:
    run_python(
        CHILD
        + """
ocr = ThreadSafeOCR(max_queue_size=2)
stop = threading.Event()
def client():
    while not stop.is_set():
        ocr.read(LINE)
threads = [threading.Thread(target=client) for _ in range(4)]
[t.start() for t in threads]
for _ in range(5):
    child(lambda: ocr.read(LINE))
stop.set()
[t.join() for t in threads]
"""
    )


def test_fork_while_other_threads_construct_and_close_engines(run_python: Run) -> None:
    run_python(
        CHILD
        + """
ocr = ThreadSafeOCR()
stop = threading.Event()
def maker():
    while not stop.is_set():
        ThreadSafeOCR().close()
threads = [threading.Thread(target=maker) for _ in range(3)]
[t.start() for t in threads]
for _ in range(5):
    child(lambda: ThreadSafeOCR().read(LINE))
stop.set()
[t.join() for t in threads]
"""
    )


def test_a_forked_child_exits_normally(run_python: Run) -> None:
    run_python(
        """
ocr = ThreadSafeOCR()
ocr.read(LINE)
pid = os.fork()
if pid == 0:
    import signal
    signal.alarm(20)
    ocr.read(LINE)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    )


def test_on_fork_error_refuses_in_the_child(run_python: Run) -> None:
    run_python(
        CHILD
        + """
ocr = ThreadSafeOCR(on_fork="error")
def refused():
    try:
        ocr.read(LINE)
    except ForkedProcessError:
        return
    raise SystemExit("not refused")
child(refused)
"""
    )


def test_spawned_processes_read(run_python: Run, tmp_path: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        (tmp_path / "work.py").write_text(  # type: ignore[operator]
            "from threadsafe_ocr import ThreadSafeOCR\ndef go(path):\n    return len(ThreadSafeOCR().read(path).lines)\n"
        )
        run_python(
            "import multiprocessing, work\n"
            "with multiprocessing.get_context('spawn').Pool(2) as pool:\n    assert pool.map(work.go, [LINE] * 3) == [1] * 3\n"
        )


def test_unload_ends_the_workers_and_the_next_engine_starts_anew(run_python: Run) -> None:
    run_python(
        """
        with ThreadSafeOCR(intra_op_num_threads=1) as ocr:
            ocr.read(LINE)
            try:
                threadsafe_ocr.unload()
            except ConfigError:
                pass
            else:
                raise SystemExit("unloaded under an open engine")
            try:
                ThreadSafeOCR(intra_op_num_threads=2)
            except ConfigError as error:
                assert "intra_op_num_threads" in str(error)
            else:
                raise SystemExit("another knob was taken")
        threadsafe_ocr.unload()
        names = [open(f"/proc/self/task/{t}/comm").read().strip() for t in os.listdir("/proc/self/task")]
        assert not [n for n in names if n.startswith(("ocr-cpu", "ocr-page", "ocr-clock"))], names
        with ThreadSafeOCR(intra_op_num_threads=2) as ocr:
            assert ocr.read(LINE).lines
        """
    )


def test_a_loop_closed_with_a_task_waiting(run_python: Run) -> None:
    run_python(
        LARGE
        + """
import asyncio
ocr = ThreadSafeOCR()
async def main():
    task = asyncio.ensure_future(ocr.aread(large))
    await asyncio.sleep(0.1)
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
loop.close()
assert ocr.read(LINE).lines
import gc; gc.collect()
"""
    )


def test_read_and_close_on_the_loops_own_thread(run_python: Run) -> None:
    run_python(
        """
        import asyncio
        ocr = ThreadSafeOCR(max_queue_size=1)
        async def main():
            tasks = [asyncio.ensure_future(ocr.aread(LINE)) for _ in range(3)]
            await asyncio.sleep(0)
            assert ocr.read(LINE).lines
            ocr.close()
            return await asyncio.gather(*tasks, return_exceptions=True)
        for answer in asyncio.run(main()):
            assert isinstance(answer, (OcrResult, EngineClosedError)), answer
        """
    )


def test_import_without_onnxruntime_says_what_to_install(run_python: Run) -> None:
    run_python(
        """
        import importlib.util
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *a: None if name == "onnxruntime" else find(name, *a)
        try:
            ThreadSafeOCR(device="cpu")
        except EngineUnavailableError as error:
            assert "pip install" in str(error)
        else:
            raise SystemExit("it was found")
        """
    )


def test_two_onnxruntimes_in_one_process(run_python: Run) -> None:
    run_python("import onnxruntime\nocr = ThreadSafeOCR()\nassert ocr.read(LINE).lines")
    run_python("ocr = ThreadSafeOCR()\nocr.read(LINE)\nimport onnxruntime\nassert ocr.read(LINE).lines")


def test_telemetry_is_off_unless_the_user_says(run_python: Run) -> None:
    done = run_python("ThreadSafeOCR()\nprint(os.environ['ORT_DISABLE_TELEMETRY'])")
    assert done.stdout.strip() == "1"


def test_cuda_without_the_gpu_build_says_what_to_install(run_python: Run) -> None:
    run_python(
        """
        try:
            ThreadSafeOCR(device="cuda")
        except EngineUnavailableError as error:
            assert "onnxruntime-gpu" in str(error) and "driver" in str(error)
        else:
            raise SystemExit("there is no GPU build here")
        assert ThreadSafeOCR(device="auto").read(LINE).lines
        """
    )


def test_import_is_quick(run_python: Run) -> None:
    done = run_python(
        "import subprocess\n"
        "def t(code):\n"
        "    best = 9\n"
        "    for _ in range(3):\n"
        "        s = time.perf_counter(); subprocess.run([sys.executable, '-c', code], check=True); best = min(best, time.perf_counter() - s)\n"
        "    return best\n"
        "print(t('import threadsafe_ocr') - t('import numpy'))"
    )
    assert float(done.stdout) < 1.0


def test_the_command_reads_files_and_folders_and_counts_failures(tmp_path: object) -> None:
    command = [sys.executable, "-c", "import sys; from threadsafe_ocr.cli import main; sys.exit(main())", "read"]
    good = subprocess.run([*command, str(PAGES / "rec_lines"), "--json"], capture_output=True, text=True, check=True, timeout=50)
    assert len(good.stdout.splitlines()) == len(LINES)
    bad = subprocess.run([*command, "missing.png", str(LINES[0])], capture_output=True, text=True, check=False, timeout=50)
    assert bad.returncode == 1 and "missing.png" in bad.stderr and len(bad.stdout.splitlines()) >= 2
