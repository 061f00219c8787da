"""What all requests of a server share: its settings, the engine, who is being served, and whether it is closing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from threadsafe_ocr import EngineClosedError, OcrError, ThreadSafeOCR, _core
from threadsafe_ocr.problems import Problem

# Pages inside at once, for each core: a dense page takes up to 2.7 s of a core, so the last of them still has its answer within the default
# timeout, where a longer queue would take in what it cannot answer.
QUEUE_PER_CORE = 20
# Latencies that /v1/stats tells the quantiles of.
REMEMBERED = 1000
# Seconds without a request, at the end, and for how long they are waited for at most.
QUIET, FAREWELL = 0.3, 2.0


@dataclass(frozen=True)
class ServerSettings:
    """The flags of `threadsafe-ocr serve`; docs/server.md explains them."""

    models: str = "v6-small"
    device: str = "auto"
    precision: str = "f32"
    timeout: float = 60.0
    max_queue_size: int | None = None
    max_pixels: int | None = None
    max_upload: int = 50_000_000
    max_pages: int = 200
    max_per_client: int | None = None
    upload_timeout: float = 60.0
    fetch_urls: bool = False
    grace: float = 30.0
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    cors: tuple[str, ...] = ()

    def engine(self) -> ThreadSafeOCR:
        """The engine of a process."""
        return ThreadSafeOCR(
            self.models,
            device=self.device,
            precision=self.precision,
            max_queue_size=self.queue_size,
            max_pixels=self.max_pixels,
        )

    @property
    def queue_size(self) -> int:
        """Pages inside at once."""
        return self.max_queue_size or QUEUE_PER_CORE * _core.cores()


class Room:
    """The bytes of all uploads that are held at once, so that many large ones do not take the machine's memory."""

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0

    @contextlib.contextmanager
    def share(self) -> Iterator[Share]:
        """One request's share; empty again at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            share.resize(0)


class Share:
    """See Room."""

    def __init__(self, room: Room) -> None:
        self._room, self._size = room, 0

    def resize(self, size: int) -> None:
        """Raises Problem (503) where there is no room for more."""
        more = size - self._size
        if more > 0 and self._room.used + more > self._room.most:
            raise Problem(503, "OverloadedError", f"uploads of {self._room.used} bytes are being held; try again later")
        self._size = size
        self._room.used += more


class Service:
    """The state of a running server; everything here happens on its event loop."""

    def __init__(self, settings: ServerSettings, ocr: ThreadSafeOCR | None) -> None:
        self.settings = settings
        self._ocr = ocr
        # Uploads as received, beside the engine's own copies, which `max_queue_bytes` bounds.
        self.room = Room(8 * settings.max_upload)
        # PDFs inside: their pages wait to be rendered before the engine's queue is asked.
        self.pdfs = asyncio.Semaphore(settings.queue_size)
        # Pages of PDFs and TIFFs in memory, of all documents together: up to 300 MB each.
        self.rendered = asyncio.Semaphore(max(_core.cores(), 2))
        # Pages whose pictures are made, decoded once more. Apart from the rendered ones: an image does not wait for somebody's PDF.
        self.drawn = asyncio.Semaphore(max(_core.cores(), 2))
        self.warm = False
        self.closing = False
        # The loop's time at which a request came that was too late.
        self.came = 0.0
        # The requests that read, each with its client.
        self.active: dict[asyncio.Task[Any], str] = {}
        self.latencies: deque[float] = deque(maxlen=REMEMBERED)
        self.errors: Counter[str] = Counter()

    @property
    def ocr(self) -> ThreadSafeOCR:
        """The engine, there since the start."""
        if self._ocr is None:
            raise Problem(503, "EngineClosedError", "the engine is not there yet")
        return self._ocr

    def start(self) -> None:
        """Makes the engine; raises what it raises. It is warmed up beside the first requests."""
        if self._ocr is None:
            self._ocr = self.settings.engine()

    async def warm_up(self) -> None:
        """Reads a blank page; then the server is ready."""
        try:
            await asyncio.to_thread(self.ocr.warmup)
        except EngineClosedError:
            return  # it ends before it was ready
        except OcrError as error:
            logging.getLogger("threadsafe_ocr").error("a blank page cannot be read, so /readyz stays 503: %s", error)
            return
        self.warm = True

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.warm and not self.closing and self.ocr.ready

    async def close(self) -> None:
        """Lets those who are inside finish within the grace, then ends them: they are answered 503."""
        self.closing = True
        await self._empty(self.settings.grace)
        self.ocr.close(cancel=True)
        await self._empty(1.0)
        # Those who still send their upload, or do not take their answer.
        for task in list(self.active):
            task.cancel()
        await self._empty(1.0)
        await self._nobody_comes()

    async def _nobody_comes(self) -> None:
        """Whoever comes in the last moment is told, too: where the process ended over his request, it would be cut off."""
        now = asyncio.get_running_loop().time
        self.came, end = now(), now() + FAREWELL
        while now() < min(self.came + QUIET, end):
            await asyncio.sleep(QUIET / 10)

    async def _empty(self, seconds: float) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while self.active and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)
