"""`--workers N`: a parent that replaces a worker as soon as it dies.

uvicorn's own parent asks each worker in turn whether it lives, over a pipe that does not tell of its death: a worker that is killed
meanwhile is replaced when the question's time is over, and one whose thread waits that long for a core is killed with all its requests.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

# uvicorn's exit code when an application cannot start: the next one could not either.
CANNOT_START = 3
# Seconds: a worker that dies younger is not replaced before, so that one that always dies does not keep the machine busy.
LIFE = 1.0


def supervise(work: Callable[[], None], count: int) -> int:
    """Runs `work` in `count` processes until SIGTERM or SIGINT, which ends them with SIGTERM; the exit code."""
    # Spawned: no worker inherits a lock or a thread's half-done work.
    spawn = multiprocessing.get_context("spawn")
    workers: dict[Any, float] = {}
    ending, code = False, 0

    def start() -> None:
        worker = spawn.Process(target=live, args=(work,))
        worker.start()
        workers[worker] = time.monotonic()
        if ending:
            worker.terminate()

    def end(*_: object) -> None:
        nonlocal ending
        ending = True
        for worker in list(workers):
            worker.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    for _ in range(count):
        start()
    while workers:
        multiprocessing.connection.wait([worker.sentinel for worker in workers])
        for worker in [worker for worker in workers if worker.exitcode is not None]:
            age = time.monotonic() - workers.pop(worker)
            if worker.exitcode == CANNOT_START and not ending:
                code = CANNOT_START
                end()
            if not ending:
                time.sleep(max(LIFE - age, 0))
            if not ending:
                start()
    return code


def live(work: Callable[[], None]) -> None:
    """A worker's life: it ends with its parent, whatever ended that. Ctrl-C in a terminal is the parent's alone."""
    os.setpgid(0, 0)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, name="parent", daemon=True).start()
    work()
