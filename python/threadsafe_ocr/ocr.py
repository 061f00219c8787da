"""The class `ThreadSafeOCR`: the native engine, and what is Python by nature."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from threadsafe_ocr import _core, card_models, documents, model_sets, rendering, runtime, waiting
from threadsafe_ocr.exceptions import ConfigError, EngineUnavailableError, OcrError
from threadsafe_ocr.inputs import Source, source
from threadsafe_ocr.options import CallOptions, Color, Options, Settings
from threadsafe_ocr.result import OcrResult, TextLine, from_raw

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ThreadSafeOCR(_core.ThreadSafeOCR):
    """Reads text from images, from any number of threads, tasks and forked processes at once.

    models: the name of a model set, a folder with `det`, `rec` (and `cls`), or {"det":, "rec":, "dict":, "cls":}. device: "auto", "cpu",
    "cuda" or "cuda:1". precision: "f32"; "fast" costs about half and reads nearly as well, "int8" (CPUs) two thirds to four fifths,
    "bf16" is of CPUs with AMX (docs/models.md), "fp16" of GPUs (docs/gpu.md). The other keywords are in docs/settings.md; None means the
    default. Models and worker threads are loaded once a process and shared: a further object is cheap.

    Raises ConfigError, ModelNotFoundError, ModelLoadError, EngineUnavailableError.

    >>> with ThreadSafeOCR(rec_score_thresh=0.5) as ocr:
    ...     page = ocr.read("page.png")
    ...     answered = ocr.stats()["answered"]
    >>> len(page.lines), answered, ocr.closed
    (2, 1, True)
    """

    _arguments: tuple[Any, dict[str, Any]]
    _device: str

    def __new__(
        cls,
        models: str | os.PathLike[str] | dict[str, Any] | None = "v6-small",
        *,
        device: str | None = "auto",
        precision: str | None = "f32",
        **settings: Unpack[Settings],
    ) -> ThreadSafeOCR:
        models = "v6-small" if models is None else models
        device = "auto" if device is None else device
        precision = "f32" if precision is None else precision
        unknown = settings.keys() - Settings.__annotations__.keys()
        if unknown:
            raise TypeError(f"ThreadSafeOCR() has no setting {min(unknown)}; see docs/settings.md")
        given, numbers = model_sets.at_precision(os.fspath(models) if isinstance(models, os.PathLike) else models, precision)
        chosen = os.environ.get("THREADSAFE_OCR_DEVICE") or "auto" if device == "auto" else device
        # Before ONNX Runtime is looked for: "cuda:x" needs no other build of it.
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", str(chosen)):
            raise ConfigError(f'device={chosen!r}; it can be "auto", "cpu", "cuda" or "cuda:1"')
        of_cpus = ("int8", "bf16")
        native = {**settings, "model_folder": str(model_sets.folder())}
        new = functools.partial(super().__new__, cls)

        def make(on: str) -> ThreadSafeOCR:
            if on == "cpu" and numbers == "fp16":
                raise ConfigError('precision="fp16" is of GPUs, device="cuda"; a CPU has "f32", "int8", "fast" and, with AMX, "bf16"')
            if on != "cpu" and numbers in of_cpus:
                raise ConfigError(f'precision="{numbers}" is of CPUs, device="cpu"; a GPU has "f32", "fp16" and "fast"')
            runtime.start(on)
            replaced = {} if on == "cpu" else card_models.on_card(given, numbers)

            is_fast = on == "cpu" and numbers == "fast"
            in_bf16 = numbers == "bf16" or (is_fast and _core.has_matrix_unit())
            made: ThreadSafeOCR = new(
                model_sets.in_integers(given) if is_fast else given,
                {**native, "replaced": replaced, "device": on, "bf16": in_bf16},
            )
            made._device = on
            return made

        if chosen == "auto" and numbers not in of_cpus and runtime.may_use_gpu():
            try:
                self = make("cuda")
            except EngineUnavailableError as error:
                runtime.use_cpu_instead(error)
                self = make("cpu")
        else:
            self = make("cpu" if chosen == "auto" else chosen)
        self._arguments = (models, {"device": device, "precision": precision, **settings})
        return self

    def __init__(self, *_arguments: Any, **_settings: Any) -> None:
        """All is done in `__new__`."""

    def __reduce__(self) -> tuple[Any, ...]:
        models, keywords = self._arguments
        return functools.partial(type(self), **keywords), (models,)

    def __enter__(self) -> ThreadSafeOCR:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        self.close(cancel=kind is not None)

    def _prepare(
        self,
        images: list[Any],
        *,
        detect: bool = True,
        recognize: bool = True,
        timeout: float | None = None,
        color: Color = "bgr",
        options: Options,
    ) -> tuple[_core.Pending, list[Source]]:
        """A request whose time runs, and what is to be loaded once it has its permit."""
        if color not in ("bgr", "rgb"):
            raise ConfigError(f'color={color!r}; it can be "bgr" or "rgb"')
        sources = [source(image, rgb=color == "rgb") for image in images]
        heads = [(one.head, one.rgb) for one in sources]
        return self._open(heads, detect=detect, recognize=recognize, timeout=timeout, options=options), sources

    def _start(self, images: list[Any], *, wait: bool = True, **keywords: Any) -> _core.Pending:
        """Starts a request, once there is a permit for it. Keywords as `_prepare`."""
        pending, sources = self._prepare(images, **keywords)
        try:
            pending.reserve(wait)
            pending.start([(one.load(), one.rgb) for one in sources])
        except BaseException:
            # The traceback keeps `pending` alive.
            pending.cancel()
            raise
        return pending

    def read(
        self, image: Any, *, timeout: float | None = None, wait: bool = True, color: Color = "bgr", **options: Unpack[Options]
    ) -> OcrResult:
        """Reads one page.

        image: a path, bytes or a file object of a JPEG, PNG, WebP, TIFF, BMP, GIF or PNM, a PIL image, or a uint8 array HxW, HxWx1, HxWx3
        or HxWx4 (BGR as in cv2; color="rgb" says otherwise). timeout: seconds for everything. wait=False refuses at once with
        OverloadedError when no permit is free. Any per-request option may be given; it holds for this call only.

        Safe from any thread; the GIL is released from the moment the pixels are borrowed until the answer is there.

        Raises InvalidImageError, ImageNotFoundError, ImageFileError, TypeError, ConfigError, OcrTimeoutError, OverloadedError,
        InferenceError, EngineClosedError.

        >>> ocr = ThreadSafeOCR()
        >>> [line.text for line in ocr.read("page.png", timeout=30).lines]
        ['Hello, world', 'Total: 42.50']
        """
        return from_raw(self._start([image], timeout=timeout, wait=wait, color=color, options=options).wait())

    def detect(
        self, image: Any, *, timeout: float | None = None, wait: bool = True, color: Color = "bgr", **options: Unpack[Options]
    ) -> OcrResult:
        """Finds the lines of a page without reading them: their texts are empty, their scores detection's. Otherwise as `read`.

        >>> [line.text for line in ThreadSafeOCR().detect("page.png").lines]
        ['', '']
        """
        options.setdefault("use_textline_orientation", False)
        return from_raw(self._start([image], recognize=False, timeout=timeout, wait=wait, color=color, options=options).wait())

    def recognize(
        self, crops: Any, *, timeout: float | None = None, wait: bool = True, color: Color = "bgr", **options: Unpack[Options]
    ) -> TextLine | list[TextLine]:
        """Reads a crop of one line, or a list of them: one TextLine a crop, in their order. Otherwise as `read`.

        >>> ThreadSafeOCR().recognize("line.png").text
        'Hello, world'
        >>> [line.text for line in ThreadSafeOCR().recognize(["line.png", "line.png"])]
        ['Hello, world', 'Hello, world']
        """
        several = isinstance(crops, (list, tuple))
        images = list(crops) if several else [crops]
        page = from_raw(self._start(images, detect=False, timeout=timeout, wait=wait, color=color, options=options).wait())
        return list(page.lines) if several else page.lines[0]

    def submit(
        self, image: Any, *, timeout: float | None = None, wait: bool = True, color: Color = "bgr", **options: Unpack[Options]
    ) -> waiting.OcrFuture:
        """Starts a request and returns its `concurrent.futures.Future`; waits for its permit with the GIL released. Otherwise as `read`.

        >>> future = ThreadSafeOCR().submit("page.png")
        >>> future.result().lines[0].text
        'Hello, world'
        """
        pending = self._start([image], timeout=timeout, wait=wait, color=color, options=options)
        return waiting.OcrFuture(self, pending)

    async def aread(
        self, image: Any, *, timeout: float | None = None, wait: bool = True, color: Color = "bgr", **options: Unpack[Options]
    ) -> OcrResult:
        """Reads one page in an event loop without a thread of its own; thousands may be in flight. Cancelling the task cancels the request.

        A path waits in line for its permit. An array, bytes or a PIL image first waits in its loop until there is room for a copy (a second
        `max_queue_bytes`); do not change it before the answer is there. Otherwise as `read`.

        >>> import asyncio
        >>> ocr = ThreadSafeOCR()
        >>> async def main():
        ...     return await asyncio.gather(*(ocr.aread("page.png") for _ in range(3)))
        >>> [len(page.lines) for page in asyncio.run(main())]
        [2, 2, 2]
        """
        pending, sources = self._prepare([image], timeout=timeout, color=color, options=options)
        with waiting.Wakeups(self, pending) as wakeups:
            if not wait:
                pending.reserve(False)
            while wait and not pending.take_room(wakeups.event_loop):
                await wakeups.next()
            pending.start([(one.load(), one.rgb) for one in sources])
            while (raw := pending.poll()) is None:
                await wakeups.next()
            return from_raw(raw)

    def read_many(
        self, images: Iterable[Any], *, in_flight: int | None = None, return_errors: bool = False, **keywords: Unpack[CallOptions]
    ) -> Iterator[Any]:
        """Reads pages and yields their results in order, `in_flight` of them at once (default: four a core).

        return_errors=True yields the error of a page that failed in its place (an OcrError, or a TypeError for what is no image);
        otherwise it is raised. Keywords as `read`.

        >>> for page in ThreadSafeOCR().read_many(["page.png", "missing.png"], return_errors=True):
        ...     print(type(page).__name__)
        OcrResult
        ImageNotFoundError
        """
        unknown = keywords.keys() - CallOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"read_many() has no option {min(unknown)}; see docs/settings.md")
        starts = (functools.partial(self.submit, image, **keywords) for image in images)
        most = 4 * _core.cores() if in_flight is None else _positive("in_flight", in_flight)
        yield from waiting.in_order(starts, most, return_errors=return_errors)

    def read_pages(
        self,
        document: Any,
        pages: str | int | Iterable[int] | None = None,
        *,
        dpi: float = 200.0,
        password: str | None = None,
        in_flight: int | None = None,
        return_errors: bool = False,
        timeout: float | None = None,
        wait: bool = True,
        **options: Unpack[Options],
    ) -> Iterator[Any]:
        """Reads all pages of a document, or those wanted, and yields their results in order, each with its `page_number`.

        document: a PDF or a TIFF with several frames, as a path, bytes or a file object; or an image, which is one page. pages: a text like
        "1-3,7,10-", a number or numbers, from 1. dpi: of a PDF's pages. timeout: seconds for each page, from the beginning of its
        rendering. in_flight: pages being read at once (default: one a core, two at least); no others are rendered, so memory does not grow
        with the document. return_errors: as `read_many`. Otherwise as `read`.

        PDFium is not thread-safe: a helper process renders, a page at a time, for all threads. Nothing is held between two pages.

        Raises what `read` does, PasswordError, and ConfigError for a page that is not there or an extra that is not installed.

        `read_pdf` is the same method under the name that people look for.

        >>> ocr = ThreadSafeOCR()
        >>> [(page.page_number, page.lines[0].text) for page in ocr.read_pdf("document.pdf", "2-")]
        [(2, 'Second page'), (3, 'Third page')]
        >>> [page.width for page in ocr.read_pages("page.png")]
        [400]
        """
        opened, most, timeout = self._document(document, pages, dpi, password, in_flight, timeout)

        def start(load: documents.Load) -> waiting.OcrFuture:
            until = documents.deadline(timeout)
            image = load(until)
            return self.submit(image, timeout=documents.left(until), wait=wait, **options)

        with opened as found:
            starts = (functools.partial(start, load) for _, load in found)
            with contextlib.closing(waiting.in_order(starts, most, return_errors=return_errors)) as answers:
                for (number, _), answer in zip(found, answers, strict=True):
                    yield documents.numbered(answer, number)

    async def aread_pages(
        self,
        document: Any,
        pages: str | int | Iterable[int] | None = None,
        *,
        dpi: float = 200.0,
        password: str | None = None,
        in_flight: int | None = None,
        return_errors: bool = False,
        timeout: float | None = None,
        wait: bool = True,
        **options: Unpack[Options],
    ) -> AsyncIterator[Any]:
        """`read_pages` in an event loop, which never waits for a page. `aread_pdf` is the same method.

        One thread, `ocr-render`, asks for pages on behalf of all loops. Leaving the loop early, or cancelling its task, cancels the pages.

        >>> import asyncio
        >>> ocr = ThreadSafeOCR()
        >>> async def main():
        ...     pages = [page.page_number async for page in ocr.aread_pdf("document.pdf", "1,3")]
        ...     return pages + [page.page_number async for page in ocr.aread_pages("page.png")]
        >>> asyncio.run(main())
        [1, 3, 1]
        """
        import asyncio

        loop, thread = asyncio.get_running_loop(), rendering.thread()
        opened, most, timeout = self._document(document, pages, dpi, password, in_flight, timeout)

        async def read(load: documents.Load) -> OcrResult:
            until = documents.deadline(timeout)
            image = await loop.run_in_executor(thread, load, until)
            return await self.aread(image, timeout=documents.left(until), wait=wait, **options)

        found = await loop.run_in_executor(thread, opened.__enter__)
        running: deque[tuple[int, asyncio.Task[OcrResult]]] = deque()

        async def settle() -> Any:
            number, task = running[0]
            try:
                answer: Any = await task
            except (OcrError, TypeError) as error:
                if not return_errors:
                    raise
                answer = error
            running.popleft()
            return documents.numbered(answer, number)

        try:
            for number, load in found:
                if len(running) >= most:
                    yield await settle()
                running.append((number, asyncio.create_task(read(load))))
            while running:
                yield await settle()
        finally:
            for _, task in running:
                task.cancel()
            await asyncio.gather(*(task for _, task in running), return_exceptions=True)
            await loop.run_in_executor(thread, opened.__exit__, None, None, None)

    def _document(
        self, document: Any, pages: Any, dpi: float, password: str | None, in_flight: int | None, timeout: float | None
    ) -> tuple[contextlib.AbstractContextManager[list[tuple[int, documents.Load]]], int, float | None]:
        """A document that is still to be opened, how many of its pages are read at once, and each one's time."""
        settings = self._arguments[1]
        timeout = settings.get("timeout") if timeout is None else timeout
        most = max(_core.cores(), 2) if in_flight is None else _positive("in_flight", in_flight)
        max_pixels = settings.get("max_pixels")
        return documents.pages_of(document, pages, dpi=dpi, password=password, timeout=timeout, max_pixels=max_pixels), most, timeout

    read_pdf = read_pages
    aread_pdf = aread_pages

    def ocr(self, image: Any, det: bool = True, rec: bool = True, cls: bool | None = None, **keywords: Unpack[CallOptions]) -> list[Any]:
        """PaddleOCR 2.x's list shape: [[[box, (text, score)], ...]]; a page without text is [None].

        det=False: `image` is a crop or a list of crops, the answer [[(text, score), ...]]. rec=False: [[box, ...]]. det=rec=False:
        [[[label, score], ...]] with the labels "0" and "180". cls: whether to look for upside-down lines (None: as constructed).

        >>> for box, (text, score) in ThreadSafeOCR().ocr("page.png")[0]:
        ...     print(len(box), text, score > 0.9)
        4 Hello, world True
        4 Total: 42.50 True
        """
        if cls is not None:
            keywords["use_textline_orientation"] = cls
        if det:
            page = self.read(image, **keywords) if rec else self.detect(image, **keywords)
            boxes = [line.polygon.tolist() for line in page.lines]
            lines = [[box, (line.text, line.score)] for box, line in zip(boxes, page.lines, strict=True)] if rec else boxes
            return [lines or None]
        crops = list(image) if isinstance(image, (list, tuple)) else [image]
        if rec:
            read = self.recognize(crops, **keywords)
            return [[(line.text, line.score) for line in read]]  # type: ignore[union-attr]
        timeout, wait, color = keywords.pop("timeout", None), keywords.pop("wait", True), keywords.pop("color", "bgr")
        keywords["use_textline_orientation"] = True
        pending = self._start(crops, detect=False, recognize=False, timeout=timeout, wait=wait, color=color, options=keywords)
        looked = from_raw(pending.wait())
        scores = [line.upside_down_score for line in looked.lines]
        if None in scores:
            raise ConfigError('det=False, rec=False needs an orientation model, and these models have none; give one as "cls"')
        return [[["180", score] if score > 0.5 else ["0", 1.0 - score] for score in scores if score is not None]]

    def warmup(self) -> None:
        """Reads a blank page, so that the first request finds everything loaded.

        On a GPU it plans what is usual, which takes half a minute: every width of a line, and A4 pages. Pages of another shape than any
        before take half a second more (docs/gpu.md).

        >>> ThreadSafeOCR().warmup()
        """
        blank = np.full((64, 320, 3), 255, np.uint8)
        self.read(blank)
        self.recognize(blank)
        if self._device != "cpu":
            card_models.plan(self)

    @property
    def ready(self) -> bool:
        """Whether requests are taken.

        >>> ocr = ThreadSafeOCR()
        >>> ocr.ready
        True
        >>> ocr.close()
        >>> ocr.ready
        False
        """
        return not self.closed


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"{name}={value!r}; it must be 1 or more")
    return value
