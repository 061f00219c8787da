"""What pytest gets: the fixtures `ocr` and `ocr_server`, and the marker `concurrent`."""

from __future__ import annotations

import functools
import inspect
import subprocess
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_threadsafe_ocr.interleaving import frequent_switches, run_together

if TYPE_CHECKING:
    from threadsafe_ocr import ThreadSafeOCR


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "concurrent(threads=8): runs the test in so many threads at once, an async one as tasks of its loop")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    marker = item.get_closest_marker("concurrent")
    if marker is None or not isinstance(item, pytest.Function):
        return (yield)
    test = item.obj
    # Here, and not in pytest_pyfunc_call: pytest-asyncio makes a plain function of an async one before that.
    item.obj = together(test, *marker.args, **marker.kwargs)
    try:
        return (yield)
    finally:
        item.obj = test


def together(test: Callable[..., Any], threads: int = 8) -> Callable[..., Any]:
    """`test` at once in so many threads, or tasks where it is async; all of them get the same fixtures."""
    if threads < 2:
        raise ValueError(f"@pytest.mark.concurrent(threads={threads}): at least 2")

    @functools.wraps(test)
    def in_threads(**arguments: Any) -> None:
        with frequent_switches():
            raise_worst(run_together([functools.partial(test, **arguments)] * threads))

    @functools.wraps(test)
    async def in_tasks(**arguments: Any) -> None:
        import asyncio

        done = await asyncio.gather(*(test(**arguments) for _ in range(threads)), return_exceptions=True)
        raise_worst([error if isinstance(error, BaseException) else None for error in done])

    return in_tasks if inspect.iscoroutinefunction(test) else in_threads


def raise_worst(errors: list[BaseException | None]) -> None:
    """Raises the first failure, else the first skip, and says how many there were."""
    raised = [error for error in errors if error is not None]
    failed = [error for error in raised if not isinstance(error, pytest.skip.Exception)]
    if not raised:
        return
    worst = (failed or raised)[0]
    if hasattr(worst, "add_note"):  # Python 3.11
        kinds = sorted({type(error).__name__ for error in failed})
        worst.add_note(f"in {len(failed)} of {len(errors)} threads or tasks at once: {', '.join(kinds)}")
    raise worst


@pytest.fixture(scope="session")
def ocr() -> Iterator[ThreadSafeOCR]:
    """One engine with the defaults for the whole test run (with pytest-xdist: for each of its processes).

    A fixture `ocr` in your conftest.py replaces it, with settings of yours.
    """
    from threadsafe_ocr import ThreadSafeOCR

    with ThreadSafeOCR() as engine:
        yield engine


@pytest.fixture(scope="session")
def ocr_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real `threadsafe-ocr serve` on a free port, such as "http://127.0.0.1:40123", ready to read.

    Needs `pip install "threadsafe-ocr[serve]"`. One for the whole test run (with pytest-xdist: for each of its processes).
    """
    from pytest_threadsafe_ocr.server import start

    log = tmp_path_factory.mktemp("ocr_server") / "log"
    process, address = start(log)
    yield address
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
