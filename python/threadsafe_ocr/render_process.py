"""The process that renders PDF pages. PDFium is not thread-safe, and a hostile document can take its process down: it has one of its own.

Run by `rendering.py`, alone, without the package: it needs neither numpy nor the native core. A message is a line of JSON, in on stdin, out
on stdout; pixels and documents follow their line as raw bytes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import sys
from collections import OrderedDict
from typing import Any

import pypdfium2
from pypdfium2.raw import FPDF_ERR_PASSWORD

# Beyond what the process has when it starts: 100 megapixels take 300 MB, and PDFium two or three times that where a page is transparent.
MEMORY = 2 << 30
# Documents kept open: whoever comes back after more than this sends, or opens, his again.
MOST_DOCUMENTS, MOST_BYTES = 16, 256 << 20
# Without a request for so long it ends; the next request starts another.
IDLE_SECONDS = 60


class Refused(Exception):
    """What the caller is told: a kind and a message."""


def limit_memory() -> None:
    """Allocations beyond the limit fail, and PDFium then ends the process."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            present = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (present + MEMORY, resource.RLIM_INFINITY))
    except (ImportError, OSError, ValueError):
        # Not Linux, or a lower limit is set already.
        pass


class Server:
    """Answers requests until there are no more."""

    def __init__(self, requests: Any, answers: Any) -> None:
        self._requests, self._answers = requests, answers
        self._documents: OrderedDict[int, tuple[pypdfium2.PdfDocument, int]] = OrderedDict()

    def serve(self) -> None:
        """Until the other side closes the pipe, or nothing comes for long."""
        while self._comes() and (line := self._requests.readline()):
            request = json.loads(line)
            for key in request["done"]:
                self._close(key)
            pixels = b""
            try:
                answer, pixels = self._answer(request)
            except Refused as refused:
                answer = dict(zip(("error", "message"), refused.args, strict=True))
            except MemoryError:
                answer = {"error": "broken", "message": "it takes too much memory"}
            except (pypdfium2.PdfiumError, ValueError, OSError) as error:
                answer = {"error": "broken", "message": str(error)}
            self._send(answer, pixels)

    def _comes(self) -> bool:
        if os.name == "nt":
            return True
        return bool(select.select([self._requests], [], [], IDLE_SECONDS)[0])

    def _send(self, answer: dict[str, Any], pixels: Any = b"") -> None:
        self._answers.write(json.dumps(answer).encode() + b"\n")
        self._answers.write(pixels)
        self._answers.flush()

    def _answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        document = self._open(request)
        if request["page"] is None:
            return {"pages": len(document)}, b""
        page = document[request["page"]]
        try:
            # A little less, so that a side of 90.000004 pixels, which is 90 in floats, is not made 91.
            scale = request["dpi"] / 72 * (1 - 1e-6)
            width, height = (math.ceil(side * scale) for side in page.get_size())
            if not 0 < width * height <= request["max_pixels"]:
                most = f"more than max_pixels={request['max_pixels']}"
                raise Refused("large", f"it is {width}x{height} pixels at dpi={request['dpi']:g}, {most}")
            bitmap = page.render(scale=scale)
        finally:
            page.close()
        return {"width": bitmap.width, "height": bitmap.height}, bitmap.buffer

    def _open(self, request: dict[str, Any]) -> pypdfium2.PdfDocument:
        key = request["document"]
        if key in self._documents:
            self._documents.move_to_end(key)
            return self._documents[key][0]
        source, size = request["path"], 0
        if source is None:
            size = request["size"]
            self._send({"send": True})
            source = self._requests.read(size)
        try:
            document = pypdfium2.PdfDocument(source, password=request["password"])
        except pypdfium2.PdfiumError as error:
            if error.err_code == FPDF_ERR_PASSWORD:
                raise Refused("password", "") from None
            raise
        # Text that was typed into a form is drawn only so.
        with contextlib.suppress(pypdfium2.PdfiumError):
            document.init_forms()
        self._documents[key] = document, size
        while len(self._documents) > MOST_DOCUMENTS or (len(self._documents) > 1 and self._bytes() > MOST_BYTES):
            self._close(next(iter(self._documents)))
        return document

    def _bytes(self) -> int:
        return sum(size for _, size in self._documents.values())

    def _close(self, key: int) -> None:
        document, _ = self._documents.pop(key, (None, 0))
        if document is not None:
            document.close()


def main() -> None:
    """The process."""
    # Whatever prints does not end up among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    limit_memory()
    with contextlib.suppress(BrokenPipeError):
        Server(sys.stdin.buffer, answers).serve()


if __name__ == "__main__":
    main()
