"""Pages of a PDF as pixels, from any thread: a helper process renders them, one at a time; its first user starts it.

Nothing is held between two pages, so an iterator over a document that nobody continues keeps no other document waiting. A process that was
ended, by a hostile page, for idleness or from outside, is replaced at the next page.
"""

from __future__ import annotations

import atexit
import importlib.util
import io
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from threadsafe_ocr.exceptions import ConfigError, EngineUnavailableError, InvalidImageError, OcrTimeoutError, PasswordError

# A page that takes longer to render is refused, and its process ended: the slowest honest ones take a few seconds.
MOST_SECONDS = 60.0
MOST_PIXELS = 100_000_000

_numbers = itertools.count(1)


class PdfDocument:
    """A PDF, given as a path or as bytes. Its methods may be called from any thread."""

    def __init__(self, source: str | bytes, password: str | None = None) -> None:
        if importlib.util.find_spec("pypdfium2") is None:
            raise ConfigError('a PDF needs pypdfium2; pip install "threadsafe-ocr[pdf]"')
        self._bytes = source if isinstance(source, bytes) else None
        self.name = "the PDF" if isinstance(source, bytes) else source
        self._number = next(_numbers)
        self._request = {
            "document": self._number,
            "path": None if isinstance(source, bytes) else os.path.abspath(source),
            "size": len(source),
            "password": password,
        }

    def __len__(self) -> int:
        return self.count()

    def count(self, until: float | None = None) -> int:
        """How many pages it has. until: as `render`. Raises PasswordError, InvalidImageError, OcrTimeoutError."""
        answer, _ = self._ask({"page": None}, "it", until)
        pages: int = answer["pages"]
        return pages

    def render(self, index: int, dpi: float, *, max_pixels: int = MOST_PIXELS, until: float | None = None) -> npt.NDArray[np.uint8]:
        """The page of this index, from 0, as uint8 pixels (H, W, 3), BGR. until: `time.monotonic()` at which the time is over.

        Raises PasswordError, InvalidImageError, OcrTimeoutError.
        """
        _, pixels = self._ask({"page": index, "dpi": dpi, "max_pixels": max_pixels}, f"page {index + 1}", until)
        return pixels

    def close(self) -> None:
        """The helper process forgets it, and ends where it is at work on it: the others do not wait for a page that nobody wants."""
        _renderer.forget(self._number)

    def _ask(self, wanted: dict[str, Any], what: str, until: float | None) -> tuple[dict[str, Any], npt.NDArray[np.uint8]]:
        try:
            answer, pixels = _renderer.ask({**self._request, **wanted}, self._bytes, until)
        except TimeoutError:
            raise OcrTimeoutError(f"{self.name}: {what} was not rendered in time") from None
        except _Died as died:
            raise InvalidImageError(f"{self.name}: {what} cannot be rendered: {died}") from None
        error = answer.get("error")
        if error == "password":
            how = "does not open it" if self._request["password"] else "is needed; give password="
            raise PasswordError(f"{self.name} is encrypted, and {'this' if self._request['password'] else 'a'} password {how}")
        if error == "large":
            raise InvalidImageError(f"{self.name}: {what} is too large: {answer['message']}; give a lower dpi=")
        if error:
            raise InvalidImageError(f"{self.name}: {what} cannot be rendered: {answer['message']}")
        return answer, pixels


class _Died(Exception):
    """The helper process ended over a request."""


class _Slow(_Died):
    """It was ended, as another one would have to be."""


class _Renderer:
    """The helper process and the pipes to it. One request at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        # Documents that nobody will ask for again, and the one that is being worked on.
        self._done: deque[int] = deque()
        self._current: int | None = None

    def ask(self, request: dict[str, Any], content: bytes | None, until: float | None) -> tuple[dict[str, Any], npt.NDArray[np.uint8]]:
        """The answer and the pixels that come with it. Raises TimeoutError, _Died."""
        left = -1.0 if until is None else max(until - time.monotonic(), 0.0)
        if not self._lock.acquire(timeout=left):
            raise TimeoutError
        try:
            self._current = request["document"]
            used = self._process is not None and self._process.poll() is None
            try:
                return self._exchange(request, content, until)
            except _Died as died:
                # It may have been idle for too long, or full of other documents.
                if not used or isinstance(died, _Slow) or request["document"] in self._done:
                    raise
                return self._exchange(request, content, until)
        finally:
            self._current = None
            self._lock.release()

    def forget(self, document: int) -> None:
        """See PdfDocument.close. From any thread, also while another one waits for the document."""
        self._done.append(document)
        process = self._process
        if self._current == document and process is not None:
            process.kill()

    def _exchange(
        self, request: dict[str, Any], content: bytes | None, until: float | None
    ) -> tuple[dict[str, Any], npt.NDArray[np.uint8]]:
        seconds = MOST_SECONDS if until is None else min(until - time.monotonic(), MOST_SECONDS)
        if seconds <= 0:
            raise TimeoutError
        process = self._running()
        done = list(self._done)
        # Closed before `forget` could find the process at work.
        if request["document"] in done:
            raise TimeoutError
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            answer = _talk(process, {**request, "done": done}, content)
        except (OSError, EOFError):
            self.stop()
            if not late.is_set():
                raise _Died("PDFium crashed or took more than 2 GB of memory over it") from None
            if seconds < MOST_SECONDS:
                raise TimeoutError from None
            raise _Slow(f"it takes more than {MOST_SECONDS:g} s") from None
        except BaseException:
            # Ctrl-C: half a message is in the pipes.
            self.stop()
            raise
        finally:
            timer.cancel()
        for _ in done:
            self._done.popleft()
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            # Not multiprocessing: that runs the caller's __main__ again, or forks. Not `-m`: that imports the whole package, and takes the
            # current folder for a place of modules.
            code = "import sys; sys.path[:] = sys.argv[2:]; import runpy; runpy.run_path(sys.argv[1], run_name='__main__')"
            script = str(Path(__file__).with_name("render_process.py"))
            path = [os.path.abspath(folder) for folder in sys.path if folder]
            pipe = subprocess.PIPE
            # A session of its own: Ctrl-C in a terminal is the caller's.
            command = [sys.executable or "python3", "-c", code, script, *path]
            try:
                self._process = subprocess.Popen(
                    command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0, start_new_session=True
                )
            except OSError as error:
                raise EngineUnavailableError(
                    f"cannot start {command[0]} to render pages: {error}; sys.executable must be a Python"
                ) from error
        return self._process

    def stop(self) -> None:
        """Ends the process; the next request starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            _close_pipes(process)

    def abandon(self) -> None:
        """In a forked child: the process stays the parent's, which ends it by closing its pipe; so this copy of the pipe must go."""
        if self._process is not None:
            _close_pipes(self._process)
            # No child of this process: nothing to wait for.
            self._process.returncode = 0


def _talk(process: subprocess.Popen[bytes], request: dict[str, Any], content: bytes | None) -> tuple[dict[str, Any], npt.NDArray[np.uint8]]:
    requests, answers = _pipes(process)
    _write(requests, json.dumps(request).encode() + b"\n")
    answer = _line(answers)
    if "send" in answer:
        _write(requests, content or b"")
        answer = _line(answers)
    pixels = np.empty((answer.get("height", 0), answer.get("width", 0), 3), np.uint8)
    _fill(answers, pixels.reshape(-1).data)
    return answer, pixels


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in _pipes(process):
        pipe.close()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[io.FileIO, io.FileIO]:
    """To it and from it; unbuffered."""
    return cast(io.FileIO, process.stdin), cast(io.FileIO, process.stdout)


def _write(pipe: io.FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[pipe.write(rest) :]


def _line(pipe: io.FileIO) -> dict[str, Any]:
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    answer: dict[str, Any] = json.loads(line)
    return answer


def _fill(pipe: io.FileIO, target: memoryview) -> None:
    while target:
        count = pipe.readinto(target)
        if not count:
            raise EOFError
        target = target[count:]


_renderer = _Renderer()
_thread: ThreadPoolExecutor | None = None


def thread() -> ThreadPoolExecutor:
    """One thread that asks for pages on behalf of event loops: there is no more than one page at a time anyway."""
    global _thread
    if _thread is None:
        _thread = ThreadPoolExecutor(1, "ocr-render")
    return _thread


def _in_child() -> None:
    global _renderer, _thread
    _renderer.abandon()
    _renderer, _thread = _Renderer(), None


atexit.register(lambda: _renderer.stop())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
