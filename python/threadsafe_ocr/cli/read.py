"""`threadsafe-ocr read`: files in, text out."""

from __future__ import annotations

import argparse
import contextlib
import errno
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from threadsafe_ocr import ConfigError, OcrError, OcrResult, ThreadSafeOCR, documents, export
from threadsafe_ocr.cli.common import DRAWN, add_engine, add_paths, count, engine, files
from threadsafe_ocr.options import Options

STDIN = Path("-")
# The errors after which no other page can be written either.
FULL = (errno.ENOSPC, errno.EDQUOT)

FORMATS = ("txt", "json", "tsv", *export.TEXTS, "pdf")

# The per-request options -> what each can be.
OPTIONS: dict[str, Any] = get_type_hints(Options) | {"timeout": float | None}


def add_to(commands: Any) -> None:
    """The arguments."""
    command = commands.add_parser("read", help="read files, folders or stdin", description="Reads text from images.")
    add_paths(command, "; - is one image on stdin")
    add_engine(command)
    shape = command.add_mutually_exclusive_group()
    shape.add_argument("--text", dest="shape", action="store_const", const="txt", help="the text only (default)")
    shape.add_argument("--json", dest="shape", action="store_const", const="json", help="one JSON object a page")
    shape.add_argument("--tsv", dest="shape", action="store_const", const="tsv", help="a row a line: path, number, score, box, text")
    shape.add_argument("--format", dest="shape", choices=FORMATS, help="any of these, Markdown, hOCR, ALTO or a searchable PDF")
    command.set_defaults(shape="txt", run=run, error=command.error)
    command.add_argument("--words", action="store_true", help="with --json: the words of each line too")
    command.add_argument("--out", type=Path, metavar="DIR", help="write one file an input into DIR, under the names of the inputs")
    command.add_argument("--draw", action="store_true", help='with --out: a picture of the lines too (needs "threadsafe-ocr[draw]")')
    command.add_argument("--resume", action="store_true", help="leave out the pages that --out holds already")
    command.add_argument("--jobs", type=count, metavar="N", help="pages in flight at once (default: four a core)")
    several = command.add_argument_group("documents", 'PDFs and TIFFs of several frames; need "threadsafe-ocr[pdf]"')
    several.add_argument("--pages", metavar="1-3,7,10-", help="which pages, from 1 (default: all)")
    several.add_argument("--dpi", type=float, default=200.0, metavar="FLOAT", help="at which a PDF's pages are rendered (default: 200)")
    several.add_argument("--password", metavar="STR", help="of an encrypted PDF")
    options = command.add_argument_group("options of a request", "as the keywords of ThreadSafeOCR.read; see docs/settings.md")
    for name, kind in OPTIONS.items():
        flag, kind = f"--{name.replace('_', '-')}", get_args(kind)[0]
        if kind is bool:
            options.add_argument(flag, action=argparse.BooleanOptionalAction)
        elif get_origin(kind) is Literal:
            options.add_argument(flag, choices=get_args(kind))
        else:
            options.add_argument(flag, type=kind, metavar=kind.__name__.upper())


def run(arguments: argparse.Namespace) -> int:
    """Reads; 1 when a page failed."""
    if arguments.out is None and arguments.shape == "pdf":
        arguments.error("--format pdf needs --out DIR")
    if arguments.out is None and (arguments.draw or arguments.resume):
        arguments.error("--draw and --resume need --out DIR")
    unreadable: list[OSError] = []
    pages = files([path for path in arguments.paths if path != "-"], unreadable.append, arguments.out)
    if "-" in arguments.paths:
        pages[STDIN] = Path("stdin")
    targets = _targets(arguments, pages) if arguments.out else {}
    suffixes = [f".{arguments.shape}", *([DRAWN] if arguments.draw else [])]
    todo = [path for path in pages if not (arguments.resume and all(os.path.exists(_with(targets[path], suffix)) for suffix in suffixes))]
    tally = Tally(total=len(todo) + len(unreadable), skipped=len(pages) - len(todo))
    for error in unreadable:
        tally.failed += 1
        print(f"{error.filename}: {error}", file=sys.stderr)
    try:
        _read_all(arguments, todo, targets, tally)
    except (KeyboardInterrupt, OSError) as stop:
        if not isinstance(stop, OSError) or stop.errno in FULL:
            print(f"interrupted: {tally}", file=sys.stderr)
        raise
    if not pages and not unreadable:
        print("no images found", file=sys.stderr)
    elif len(pages) > 1 or tally.failed:
        print(tally, file=sys.stderr)
    return 1 if tally.failed or not pages else 0


class Tally:
    """How far a run is."""

    def __init__(self, total: int, skipped: int) -> None:
        self.total, self.skipped = total, skipped
        self.read = self.failed = 0
        self.start = time.monotonic()

    @property
    def done(self) -> int:
        """Pages read or failed."""
        return self.read + self.failed

    def rate(self) -> float:
        """Pages a second so far."""
        return self.done / max(time.monotonic() - self.start, 1e-9)

    def __str__(self) -> str:
        skipped = f", {self.skipped} were there already" if self.skipped else ""
        return f"{self.read} of {self.total} pages read, {self.failed} failed{skipped}; {self.rate():.1f} pages/s"


def _read_all(arguments: argparse.Namespace, todo: list[Path], targets: dict[Path, Path], tally: Tally) -> None:
    options = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    # Not among the text that goes to the same terminal.
    shown = sys.stderr.isatty() and len(todo) > 1 and (bool(targets) or not sys.stdout.isatty())
    with engine(arguments, **options) as ocr, _progress(tally, shown=shown) as step:
        stdin = sys.stdin.buffer.read() if STDIN in todo else b""
        if arguments.draw:
            _prepare_to_draw()
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
        elif arguments.shape == "tsv":
            print(TSV_HEAD)
        for path, answers in _answers(arguments, ocr, todo, stdin):
            problems: list[str] = []
            pages = _sound(answers, problems)
            try:
                # Nothing is written of an input that was not read.
                if (first := next(pages, None)) is not None:
                    rest = itertools.chain([first], pages)
                    if targets:
                        _write(arguments, rest, path, stdin if path == STDIN else path, targets[path])
                    else:
                        _print(arguments, rest, path, titled=len(todo) > 1)
            except OcrError as error:
                problems.append(str(error))
            if problems:
                tally.failed += 1
                step("\n".join(message if message.startswith(f"{path}: ") else f"{path}: {message}" for message in problems))
            else:
                tally.read += 1
                step(None)


def _answers(arguments: argparse.Namespace, ocr: ThreadSafeOCR, todo: list[Path], stdin: bytes) -> Iterator[tuple[Path, Iterator[Any]]]:
    """Each input's pages, or their errors: images are read several at once, of a document several pages."""

    def image(path: Path) -> Any:
        return stdin if path == STDIN else str(path)

    def is_document(path: Path) -> bool:
        try:
            return documents.is_pdf(image(path)) or documents.frame_count(image(path)) > 1
        except OcrError:
            return False

    for several, group in itertools.groupby(todo, is_document):
        if several:
            for path in group:
                yield path, _pages(arguments, ocr, image(path))
        else:
            paths = list(group)
            answers = ocr.read_many(map(image, paths), in_flight=arguments.jobs, return_errors=True)
            with contextlib.closing(answers):  # type: ignore[type-var]
                yield from ((path, iter([page])) for path, page in zip(paths, answers, strict=True))


def _pages(arguments: argparse.Namespace, ocr: ThreadSafeOCR, document: Any) -> Iterator[Any]:
    if arguments.draw:
        raise ConfigError("--draw draws images, not documents")
    given = {"dpi": arguments.dpi, "password": arguments.password, "in_flight": arguments.jobs}
    return ocr.read_pages(document, arguments.pages, return_errors=True, **given)


def _sound(answers: Iterator[Any], problems: list[str]) -> Iterator[OcrResult]:
    """The pages that were read; what is to be said of the others goes to `problems`."""
    try:
        for page in answers:
            if isinstance(page, OcrResult):
                yield page
            else:
                problems.append(str(page))
    except OcrError as error:
        problems.append(str(error))


def _prepare_to_draw() -> None:
    """Says before the first page what the last one would find out."""
    from threadsafe_ocr import draw

    if note := draw.note():
        print(note, file=sys.stderr)


TSV_HEAD = "path\tline\tscore\tx0\ty0\tx1\ty1\ttext"


def _print(arguments: argparse.Namespace, pages: Iterator[OcrResult], path: Path, *, titled: bool) -> None:
    if arguments.shape in export.TEXTS:
        print(export.TEXTS[arguments.shape](pages, path.name), end="", flush=True)
        return
    for page in pages:
        number = "" if page.page_number is None else f", page {page.page_number}"
        title = f"== {path}{number}\n" if titled and arguments.shape == "txt" else ""
        print(title + _shaped(page, path, arguments), flush=True)


def _shaped(page: OcrResult, path: Path, arguments: argparse.Namespace) -> str:
    """A page as lines of text."""
    if arguments.shape == "json":
        return json.dumps({"path": str(path), **page.to_dict(words=arguments.words)}, ensure_ascii=False)
    if arguments.shape == "tsv":
        return "\n".join(_rows(page, path))
    # As pdftotext, and older than it: a form feed ends a page.
    return page.text if page.page_number is None else f"{page.text}\n\f"


def _rows(page: OcrResult, path: Path) -> Iterator[str]:
    # As a link to a page of a PDF is written.
    place = str(path) if page.page_number is None else f"{path}#page={page.page_number}"
    for number, line in enumerate(page.lines, 1):
        box = (f"{value:.0f}" for value in line.box)
        text = " ".join(line.text.split("\t"))
        yield "\t".join([place, str(number), f"{line.score:.4f}", *box, text])


def _targets(arguments: argparse.Namespace, pages: dict[Path, Path]) -> dict[Path, Path]:
    """File -> where its answer goes, without the answer's suffix."""
    taken: dict[Path, Path] = {}
    for path, below in pages.items():
        if other := taken.get(below):
            arguments.error(f"{other} and {path} would both be written to {arguments.out / below}; read them in two runs")
        taken[below] = path
    return {path: arguments.out / below for path, below in pages.items()}


def _with(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


def _write(arguments: argparse.Namespace, pages: Iterator[OcrResult], path: Path, image: Any, target: Path) -> None:
    file = _with(target, f".{arguments.shape}")
    if arguments.shape == "pdf":
        from threadsafe_ocr.export import pdf

        _whole(file, lambda part: pdf.write(part, image, pages, password=arguments.password))
        return
    if arguments.draw:
        # An image's one page.
        page = next(pages)
        pages = iter([page])
        _whole(_with(target, DRAWN), lambda part: page.draw(image=image).save(part, "PNG"))
    if arguments.shape in export.TEXTS:
        text = export.TEXTS[arguments.shape](pages, path.name)
    else:
        head = f"{TSV_HEAD}\n" if arguments.shape == "tsv" else ""
        text = head + "".join(f"{_shaped(page, path, arguments)}\n" for page in pages)
    _whole(file, lambda part: part.write_bytes(text.encode("utf-8", "backslashreplace")))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file that is there whole or not at all. Raises OcrError, or OSError where the disk is full: there is no use in going on."""
    # Short, for the file's name may be as long as names can be, and no other machine's that writes to the same folder.
    part = path.with_name(f".{os.urandom(8).hex()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        part.replace(path)
    except OSError as error:
        if error.errno in FULL:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise OcrError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def _progress(tally: Tally, *, shown: bool) -> Iterator[Callable[[str | None], None]]:
    """What to call after each page, with a message or None: shows a bar, else a counter; only the messages where nobody would see it."""
    if not shown:
        yield lambda message: print(message, file=sys.stderr) if message else None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield _counter(tally)
        print(file=sys.stderr)
        return
    # A terminal that does not know its width says 0, and a bar of that width is none.
    known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
    with tqdm(total=tally.total, unit=" pages", file=sys.stderr, dynamic_ncols=known, ncols=None if known else 80) as bar:

        def step(message: str | None) -> None:
            if message:
                bar.write(message, file=sys.stderr)
            bar.update()

        yield step


def _counter(tally: Tally) -> Callable[[str | None], None]:
    def step(message: str | None) -> None:
        if message:
            print(f"\r\x1b[K{message}", file=sys.stderr)
        print(f"\r\x1b[K{tally.done}/{tally.total}, {tally.rate():.1f} pages/s", end="", file=sys.stderr, flush=True)

    return step
