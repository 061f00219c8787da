"""`POST /ocr` in the form of PaddleX's basic serving (PaddleX 3.7.2, "General OCR pipeline": service API), for its clients."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError
from starlette.responses import Response

from threadsafe_ocr import OcrResult, TextLine
from threadsafe_ocr.compat import paddle3_words
from threadsafe_ocr.problems import Problem
from threadsafe_ocr.server import documents, pictures, uploads
from threadsafe_ocr.server.documents import Reading
from threadsafe_ocr.server.formats import dumped
from threadsafe_ocr.server.reading import deadline, read_all, service_of

router = APIRouter(tags=["PaddleX"])


class InferRequest(BaseModel):
    """The members that PaddleX documents. What is not given is this server's default, not PaddleX's."""

    file: str = Field(description="the image or PDF as base64; its address where the server runs with --fetch-urls")
    fileType: Literal[0, 1] | None = Field(None, description="found out from the file")
    useDocOrientationClassify: bool | None = Field(None, description="turned pages are always read upright")
    useDocUnwarping: bool | None = None
    useTextlineOrientation: bool | None = None
    textDetLimitSideLen: int | None = None
    textDetLimitType: Literal["min", "max"] | None = None
    textDetThresh: float | None = None
    textDetBoxThresh: float | None = None
    textDetUnclipRatio: float | None = None
    textRecScoreThresh: float | None = None
    returnWordBox: bool | None = None
    visualize: bool | None = None
    logId: str | None = Field(None, description="taken over into the answer")

    def options(self) -> dict[str, Any]:
        """Keywords for `aread`."""
        options = {
            "use_textline_orientation": self.useTextlineOrientation,
            "det_limit_side_len": self.textDetLimitSideLen,
            "det_limit_type": self.textDetLimitType,
            "det_thresh": self.textDetThresh,
            "det_box_thresh": self.textDetBoxThresh,
            "det_unclip_ratio": self.textDetUnclipRatio,
            "rec_score_thresh": self.textRecScoreThresh,
        }
        return {name: value for name, value in options.items() if value is not None}


def _pruned(page: OcrResult, asked: InferRequest) -> dict[str, Any]:
    """PaddleOCR 3.7's `OCRResult.json["res"]` without `input_path` and `page_index`. Only lines that were read are there, so `dt_polys` are
    `rec_polys`; of the detection's parameters only those that were given.
    """
    corners = [np.rint(line.polygon).astype(int) for line in page.lines]
    polygons = [each.tolist() for each in corners]
    parameters = {
        "limit_side_len": asked.textDetLimitSideLen,
        "limit_type": asked.textDetLimitType,
        "thresh": asked.textDetThresh,
        "box_thresh": asked.textDetBoxThresh,
        "unclip_ratio": asked.textDetUnclipRatio,
    }
    pruned = {
        "model_settings": {"use_doc_preprocessor": False, "use_textline_orientation": asked.useTextlineOrientation is not False},
        "dt_polys": polygons,
        "text_det_params": {name: value for name, value in parameters.items() if value is not None},
        "text_type": "general",
        "textline_orientation_angles": [-1 if line.upside_down is None else int(line.upside_down) for line in page.lines],
        "text_rec_score_thresh": asked.textRecScoreThresh,
        "return_word_box": bool(asked.returnWordBox),
        "rec_texts": [line.text for line in page.lines],
        "rec_scores": [line.score for line in page.lines],
        "rec_polys": polygons,
        "rec_boxes": [_box(each) for each in corners],
    }
    if asked.returnWordBox:
        words = [paddle3_words.of(line, each) for line, each in zip(page.lines, corners, strict=True)]
        pruned["text_word_boxes"] = [[_box(region) for region in regions] for _, regions in words]
        pruned["text_word"] = [texts for texts, _ in words]
    return pruned


def _box(corners: Any) -> list[int]:
    """left, top, right, bottom"""
    return [*np.min(corners, axis=0).tolist(), *np.max(corners, axis=0).tolist()]


def _answer(log_id: str, pages: list[dict[str, Any]], about: dict[str, Any]) -> dict[str, Any]:
    return {"logId": log_id, "result": {"ocrResults": pages, "dataInfo": about}, "errorCode": 0, "errorMsg": "Success"}


_asked = {"file": "iVBORw0KGgo...", "fileType": 1, "visualize": False, "logId": "3f2a9c1e"}
_body = {"schema": InferRequest.model_json_schema(), "example": _asked}
_extra = {"requestBody": {"required": True, "content": {"application/json": _body}}}
_line = TextLine("Hello, world", 0.998, np.array([[20, 15], [176, 15], [176, 45], [20, 45]], np.float32))
_page = {"prunedResult": _pruned(OcrResult((_line,), 400, 120), InferRequest.model_validate(_asked))}
_example = _answer("3f2a9c1e", [_page], {"width": 400, "height": 120, "type": "image"})
_answers: dict[int | str, dict[str, Any]] = {200: {"description": "what was read", "content": {"application/json": {"example": _example}}}}


@router.get("/health", summary="What clients of PaddleX ask whether it is there")
async def health(request: Request) -> dict[str, Any]:
    """As PaddleX's basic serving answers."""
    return {"logId": request.scope["state"]["request_id"], "errorCode": 0, "errorMsg": "Healthy"}


@router.post("/ocr", summary="Read as PaddleX's basic serving does", response_class=Response, openapi_extra=_extra, responses=_answers)
async def infer(request: Request) -> Response:
    """A client of PaddleX works with its address changed. `visualize: false` leaves the pictures out, which cost more than the rest."""
    service = service_of(request)
    end = deadline(request, service)
    with service.room.share() as share:
        members = await uploads.within_time(uploads.json_object(request, service.settings, share), service.settings, end)
        try:
            asked = InferRequest.model_validate(members)
        except ValidationError as error:
            raise Problem(422, "InvalidField", uploads.said(error)) from None
        if asked.useDocUnwarping:
            raise Problem(422, "InvalidField", "useDocUnwarping: there is no unwarping model here; leave it out")
        reading = Reading(asked.options(), picture=None if asked.visualize is False else _pictures)
        naming = uploads.named_or_encoded(asked.file, service.settings, share)
        content = await uploads.within_time(naming, service.settings, end)
        pages = await read_all(request, content, reading, end)
    results = [{"prunedResult": _pruned(page.result, asked), **(page.picture or {})} for page in pages]
    sizes = [{"width": page.result.width, "height": page.result.height} for page in pages]
    kind = "pdf" if documents.is_pdf(content) else "tiff" if len(pages) > 1 else "image"
    about = {**sizes[0], "type": kind} if kind == "image" else {"numPages": len(pages), "pages": sizes, "type": kind}
    # With pictures it has many megabytes.
    body = await asyncio.to_thread(dumped, _answer(asked.logId or request.scope["state"]["request_id"], results, about))
    return Response(body, media_type="application/json")


def _pictures(image: Any, page: OcrResult) -> dict[str, str]:
    """The page with its boxes beside the text, and the page."""
    picture = pictures.of(image)
    return {"ocrImage": pictures.jpeg(page.draw(image=picture)), "inputImage": pictures.jpeg(picture)}
