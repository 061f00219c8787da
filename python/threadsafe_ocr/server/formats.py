"""Answers: the pages of a document in the format that was asked for."""

from __future__ import annotations

import io
import json
from typing import Any

from starlette.responses import Response

from threadsafe_ocr import OcrResult, export
from threadsafe_ocr.server.fields import Format

# hOCR by its own name: a browser shows no page that a client made up.
MEDIA_TYPES = {"md": "text/markdown", "hocr": "text/vnd.hocr+html", "alto": "application/xml"}


def formatted(pages: list[OcrResult], kind: Format, *, content: bytes, name: str, password: str | None) -> Response:
    """The answer of a whole document, `content`, whose file is called `name`. Takes a while for a PDF: call it in a thread."""
    if kind == "json":
        members = {"pages": [page_object(number, page) for number, page in enumerate(pages, 1)]}
        return Response(dumped(members), media_type="application/json")
    if kind == "pdf":
        from threadsafe_ocr.export import pdf

        file = io.BytesIO()
        pdf.write(file, content, pages, password=password)
        return Response(file.getvalue(), media_type="application/pdf")
    if kind == "text":
        # As pdftotext does it: a form feed between pages.
        return Response("\f".join(f"{page.text}\n" for page in pages), media_type="text/plain")
    return Response(export.TEXTS[kind](pages, name).encode(), headers={"Content-Type": f"{MEDIA_TYPES[kind]}; charset=utf-8"})


def page_object(number: int, page: OcrResult, **more: Any) -> dict[str, Any]:
    """A page as JSON has it: one of `pages`, or a line of a stream."""
    members = page.to_dict()
    members.pop("page_number", None)
    return {"page": number, "text": page.text, **members, **more}


def dumped(members: dict[str, Any]) -> bytes:
    """Compact JSON; scores and corners in full, so that nothing is lost."""
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()
