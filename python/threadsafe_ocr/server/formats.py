"""Answers: the pages of a document in the format that was asked for."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from threadsafe_ocr import OcrResult
from threadsafe_ocr.server.fields import Format


def formatted(pages: list[OcrResult], kind: Format) -> Response:
    """The answer of a whole document."""
    if kind == "json":
        members = {"pages": [page_object(number, page) for number, page in enumerate(pages, 1)]}
        return Response(dumped(members), media_type="application/json")
    if kind == "md":
        return Response("\n\n---\n\n".join(page.text.replace("\n", "  \n") for page in pages) + "\n", media_type="text/markdown")
    # As pdftotext does it: a form feed between pages.
    return Response("\f".join(f"{page.text}\n" for page in pages), media_type="text/plain")


def page_object(number: int, page: OcrResult) -> dict[str, Any]:
    """A page as JSON has it: one of `pages`, or a line of a stream."""
    return {"page": number, "text": page.text, **page.to_dict()}


def dumped(members: dict[str, Any]) -> bytes:
    """Compact JSON; scores and corners in full, so that nothing is lost."""
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()
