"""Loops, Ctrl-C, ONNX Runtime and the package itself in a process: each in one of its own, with a time limit."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from conftest import LINES, TEXT, Run


@pytest.mark.parametrize(
    "wait",
    [
        "ocr.read(large)",
        "ocr.submit(large).result()",
        "list(ocr.read_many([large]))",
        "ahead[-1].result()",
        "asyncio.run(ocr.aread(large))",
    ],
)
def test_ctrl_c_works_while_waiting(run_python: Run, wait: str) -> None:
    # Six such pages ahead take at least ten seconds.
    printed = run_python(
        f"""
        ocr = ThreadSafeOCR()
        ahead = [ocr.submit(large) for _ in range(6)]
        sent = []
        threading.Timer(0.5, lambda: (sent.append(time.perf_counter()), os.kill(os.getpid(), signal.SIGINT))).start()
        try:
            {wait}
        except KeyboardInterrupt:
            print(time.perf_counter() - sent[0])
        ocr.close(cancel=True)
        reads(ThreadSafeOCR())
        """
    )
    assert float(printed) < 2


def test_ctrl_c_in_an_iterator_cancels_what_it_had_begun(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR()
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            list(ocr.read_many([large] * 4))
        except KeyboardInterrupt:
            pass
        assert ocr.stats()["cancelled"] == 4, ocr.stats()
        """
    )


def test_ctrl_c_works_while_waiting_for_a_permit(run_python: Run) -> None:
    printed = run_python(
        """
        ocr = ThreadSafeOCR(max_queue_size=1)
        ahead = ocr.submit(large)
        sent = []
        threading.Timer(0.3, lambda: (sent.append(time.perf_counter()), os.kill(os.getpid(), signal.SIGINT))).start()
        try:
            ocr.read(LINE)
        except KeyboardInterrupt:
            print(time.perf_counter() - sent[0])
        assert not ahead.done()
        ahead.cancel()
        reads(ocr)
        """
    )
    assert float(printed) < 2


def test_an_engine_that_could_not_be_made_fixes_no_knob_and_leaves_no_worker(run_python: Run) -> None:
    run_python(
        """
        for knob in (1, 2):
            try:
                ThreadSafeOCR({"det": LINE, "rec": LINE, "dict": threadsafe_ocr.__file__}, intra_op_num_threads=knob)
            except ModelLoadError as error:
                assert "cannot be loaded" in str(error), error
            else:
                raise SystemExit("a picture was taken for a model")
        # What was joined may be listed for a moment more.
        late = time.monotonic() + 10
        while any(name.startswith("ocr-cpu") for name in names_of_threads().values()):
            assert time.monotonic() < late, names_of_threads()
        with ThreadSafeOCR(intra_op_num_threads=1) as ocr:
            reads(ocr)
        """
    )


def test_unload_ends_the_workers_and_the_next_engine_starts_anew(run_python: Run) -> None:
    run_python(
        """
        kinds = ("ocr-cpu", "ocr-page", "ocr-clock")
        with ThreadSafeOCR(intra_op_num_threads=1) as ocr:
            reads(ocr)
            names = " ".join(names_of_threads().values())
            assert all(kind in names for kind in kinds), names
            try:
                unload()
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
        unload()
        left = [name for name in names_of_threads().values() if name.startswith(kinds)]
        assert not left, left
        with ThreadSafeOCR(intra_op_num_threads=2) as ocr:
            reads(ocr)
        """
    )


def test_a_loop_closed_with_tasks_waiting(run_python: Run) -> None:
    # Such tasks are destroyed pending, which asyncio tells by its logger: the user's doing.
    run_python(
        """
        import gc, logging
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        ocr = ThreadSafeOCR(max_queue_size=2)
        async def main():
            global tasks
            tasks = [asyncio.ensure_future(ocr.aread(page)) for page in (LINE, LINE, large[:700, :1000], LINE)]
            await asyncio.sleep(0)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        time.sleep(1)
        del tasks
        gc.collect()
        reads(ocr)
        assert ocr.submit(LINE).result().text == TEXT
        assert asyncio.run(ocr.aread(LINE)).text == TEXT
        """
    )


def test_read_on_the_loops_own_thread_while_tasks_wait_for_the_only_permit(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR(max_queue_size=1)
        async def main():
            tasks = [asyncio.ensure_future(ocr.aread(page)) for page in (LINE, np.full((800, 1200), 255, np.uint8), LINE)]
            await asyncio.sleep(0)
            reads(ocr)
            return [page.text for page in await asyncio.gather(*tasks)]
        assert asyncio.run(main()) == [TEXT, "", TEXT]
        """
    )


def test_close_on_the_loops_own_thread_while_tasks_wait_for_the_only_permit(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR(max_queue_size=1)
        async def main():
            tasks = [asyncio.ensure_future(ocr.aread(page)) for page in (np.full((1400, 2000), 255, np.uint8), LINE, LINE)]
            await asyncio.sleep(0.05)
            ocr.close()
            return await asyncio.gather(*tasks, return_exceptions=True)
        running, *waiting = asyncio.run(main())
        assert running.lines == (), running
        assert all(isinstance(answer, EngineClosedError) for answer in waiting), waiting
        """
    )


def test_many_loops_in_many_threads(run_python: Run) -> None:
    run_python(
        """
        ocr = ThreadSafeOCR()
        async def main():
            return [page.text for page in await asyncio.gather(*(ocr.aread(LINE) for _ in range(5)))]
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(asyncio.run(main()))) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert answers == [[TEXT] * 5] * 4
        """
    )


SUBINTERPRETER = """
import importlib
try:
    interpreters = importlib.import_module("_interpreters")
except ImportError:
    interpreters = importlib.import_module("_xxsubinterpreters")

def run_in_another(*lines):
    number = interpreters.create()
    try:
        failed = interpreters.run_string(number, "\\n".join(lines))
    except interpreters.RunFailedError as error:
        failed = error
    assert not failed, failed
    return number

REFUSED = (
    "import warnings",
    "warnings.simplefilter('ignore')",
    "try:",
    "    import threadsafe_ocr",
    "except ImportError as error:",
    "    assert 'interpreter' in str(error), error",
    "else:",
    "    raise SystemExit('it was imported')",
)
"""


def test_a_subinterpreter_is_refused_and_the_main_one_goes_on(run_python: Run) -> None:
    run_python(
        "interpreters.destroy(run_in_another(*REFUSED))\nocr = ThreadSafeOCR()\nreads(ocr)\nrun_in_another(*REFUSED)\nreads(ocr)",
        before=SUBINTERPRETER,
    )


def test_a_subinterpreter_that_imports_first_takes_nothing_from_the_main_one(run_python: Run) -> None:
    run_python("reads(ThreadSafeOCR())", before=SUBINTERPRETER + "another = run_in_another(*REFUSED)\n")


def test_without_onnxruntime_the_import_works_and_the_engine_says_what_to_install(run_python: Run) -> None:
    run_python(
        """
        import importlib.util
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *a: None if name == "onnxruntime" else find(name, *a)
        for device in ("auto", "cpu"):
            try:
                ThreadSafeOCR(device=device)
            except EngineUnavailableError as error:
                assert "pip install" in str(error)
            else:
                raise SystemExit("it was found")
        importlib.util.find_spec = find
        reads(ThreadSafeOCR())
        """
    )


OTHER_RUNTIME = """
import onnxruntime
from pathlib import Path
model = next((Path(threadsafe_ocr.__file__).parent / "models").glob("*/det/inference.onnx"))
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
def runs():
    session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3, 64, 64), np.float32)})
"""


@pytest.mark.parametrize("order", ["ours", "theirs"])
def test_two_onnxruntimes_in_one_process(run_python: Run, order: str) -> None:
    ours = "ocr = ThreadSafeOCR()\nreads(ocr)\n"
    both = """
threads = [threading.Thread(target=lambda work=work: [work() for _ in range(5)]) for work in (runs, lambda: reads(ocr))]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
child(lambda: reads(ocr))
"""
    # The host's own import of onnxruntime needs the variable earlier, as the README says.
    quiet = "import os\nos.environ['ORT_DISABLE_TELEMETRY'] = '1'\n"
    run_python((ours + OTHER_RUNTIME if order == "ours" else OTHER_RUNTIME + ours) + both, before=quiet)


@pytest.mark.parametrize(("given", "kept"), [(None, "1"), ("0", "0"), ("", "")], ids=["unset", "off", "empty"])
def test_telemetry_is_off_unless_the_user_says_otherwise(
    run_python: Run, monkeypatch: pytest.MonkeyPatch, given: str | None, kept: str
) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    if given is not None:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", given)
    assert run_python("ThreadSafeOCR()\nprint(os.environ['ORT_DISABLE_TELEMETRY'])") == kept + "\n"


def test_cuda_without_the_gpu_build_says_what_to_install(run_python: Run) -> None:
    run_python(
        """
        try:
            ThreadSafeOCR(device="cuda")
        except EngineUnavailableError as error:
            assert "onnxruntime-gpu" in str(error) and "driver" in str(error)
        else:
            raise SystemExit("there is no GPU build here")
        reads(ThreadSafeOCR(device="auto"))
        """
    )


def test_the_device_may_come_from_the_environment(run_python: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREADSAFE_OCR_DEVICE", "tpu")
    run_python(
        "try:\n    ThreadSafeOCR()\nexcept ConfigError as error:\n    assert 'tpu' in str(error)\nreads(ThreadSafeOCR(device='cpu'))"
    )


def test_import_is_quick() -> None:
    def best(code: str) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
            times.append(time.perf_counter() - start)
        return min(times)

    assert best("import threadsafe_ocr") - best("import numpy") < 0.5


def test_import_starts_no_thread_and_loads_no_library(run_python: Run) -> None:
    printed = run_python(
        "print(len(os.listdir('/proc/self/task')), 'libonnxruntime' in open('/proc/self/maps').read())",
        before="import numpy, os\nprint(len(os.listdir('/proc/self/task')), False)\n",
    )
    before, after = printed.splitlines()
    assert after == before


COMMAND = [sys.executable, "-c", "import sys; from threadsafe_ocr.cli import main; sys.exit(main())"]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=50)


def test_the_command_counts_failures_and_does_the_rest() -> None:
    done = command("read", "missing.png", LINES[0])
    assert done.returncode == 1
    assert "missing.png" in done.stderr
    assert TEXT in done.stdout.splitlines()
    assert command("read", "missing.png").returncode == 1
    assert command("read", LINES[0], "--device", "tpu").returncode == 2
    assert command("read").returncode == 2
