"""`POST /rapidocr/ocr` in the form of rapidocr_api 0.2, for its clients; under a prefix, since `/ocr` is PaddleX's here."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError
from starlette.responses import Response

from threadsafe_ocr.problems import Problem
from threadsafe_ocr.server import uploads
from threadsafe_ocr.server.documents import Reading
from threadsafe_ocr.server.formats import dumped
from threadsafe_ocr.server.reading import deadline, read_all, service_of

router = APIRouter(tags=["RapidOCR-API"])


class OcrForm(BaseModel):
    """The fields that it takes. What is not given is this server's default, not RapidOCR's."""

    image_file: bytes | None = Field(None, description="the image", json_schema_extra={"format": "binary"})
    image_data: str | None = Field(None, description="or the image as base64")
    use_det: bool | None = Field(None, description="without detection there is no answer in this form: not False")
    use_cls: bool | None = Field(None, description="whether upside-down lines are looked for")
    use_rec: bool | None = Field(None, description="as use_det")


_schema = OcrForm.model_json_schema()
_extra = {"requestBody": {"content": {kind: {"schema": _schema} for kind in ("multipart/form-data", "application/x-www-form-urlencoded")}}}
_example = {"0": {"rec_txt": "Hello, world", "dt_boxes": [[20.0, 15.0], [176.0, 15.0], [176.0, 45.0], [20.0, 45.0]], "score": 0.998}}
_answers: dict[int | str, dict[str, Any]] = {200: {"description": "what was read", "content": {"application/json": {"example": _example}}}}


@router.post("/rapidocr/ocr", summary="Read as rapidocr_api does", response_class=Response, openapi_extra=_extra, responses=_answers)
async def infer(request: Request) -> Response:
    """The lines by their number, of all pages; none: `{}`."""
    service = service_of(request)
    settings = service.settings
    end = deadline(request, service)
    with service.room.share() as share:
        # A field may be the image in base64, percent-encoded besides.
        part = 2 * settings.max_upload + uploads.AROUND
        receiving = uploads.form(request, settings, share, fields=len(OcrForm.model_fields), part=part)
        members = await uploads.within_time(receiving, settings, end)
        if isinstance(file := members.get("image_file"), uploads.File):
            members["image_file"] = file.content
        try:
            asked = OcrForm.model_validate(members)
        except ValidationError as error:
            raise Problem(422, "InvalidField", uploads.said(error)) from None
        if asked.use_det is False or asked.use_rec is False:
            raise Problem(422, "InvalidField", "use_det, use_rec: without either there is no answer in this form; leave them out")
        options = {} if asked.use_cls is None else {"use_textline_orientation": asked.use_cls}
        if not asked.image_file and not asked.image_data:
            raise Problem(400, "MissingFile", 'the form has no file in the field "image_file", and no base64 in "image_data"')
        content = asked.image_file or b""
        if not content:
            content = await asyncio.to_thread(uploads.from_base64, asked.image_data, name="image_data")
        pages = await read_all(request, uploads.within_size(content, settings), Reading(options), end)
    lines = [line for page in pages for line in page.result.lines]
    answer = {str(i): {"rec_txt": line.text, "dt_boxes": line.polygon.tolist(), "score": line.score} for i, line in enumerate(lines)}
    return Response(dumped(answer), media_type="application/json")
