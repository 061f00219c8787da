"""What /docs and /openapi.json say of the calls whose bodies are read by hand."""

from __future__ import annotations

from typing import Any

from threadsafe_ocr.problems import MEDIA_TYPE, Problem
from threadsafe_ocr.server.fields import ReadFields

_line = {
    "text": "Hello, world",
    "score": 0.998,
    "polygon": [[20.0, 15.0], [176.0, 15.0], [176.0, 45.0], [20.0, 45.0]],
    "box": [20.0, 15.0, 176.0, 45.0],
}
_page = {"page": 1, "text": "Hello, world", "width": 400, "height": 120, "lines": [_line]}


def _body() -> dict[str, Any]:
    fields = ReadFields.model_json_schema()["properties"]

    def schema(file: dict[str, str]) -> dict[str, Any]:
        return {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", **file}, **fields}}

    encoded = {"contentEncoding": "base64", "description": "the file's bytes as base64"}
    content = {
        "multipart/form-data": {"schema": schema({"format": "binary", "description": "JPEG, PNG, WebP, TIFF, BMP, GIF or PDF"})},
        "application/json": {"schema": schema(encoded), "example": {"file": "iVBORw0KGgo...", "format": "json", "rec_score_thresh": 0.5}},
    }
    return {"requestBody": {"required": True, "content": content}}


def _problem(status: int, kind: str, detail: str) -> dict[str, Any]:
    example = Problem(status, kind, detail).body(request_id="3f2a9c1e")
    return {"description": detail, "content": {MEDIA_TYPE: {"schema": {"type": "object"}, "example": example}}}


_problems: dict[int | str, dict[str, Any]] = {
    400: _problem(400, "InvalidImageError", "the image is cut short, or a field cannot be what it is"),
    401: _problem(401, "Unauthorized", "the key is missing or wrong"),
    408: _problem(408, "UploadTimeout", "the upload was not there in time"),
    413: _problem(413, "UploadTooLarge", "the file is larger, or has more pixels or pages, than this server takes"),
    415: _problem(415, "UnsupportedMediaType", "this is neither an image that can be read nor a PDF"),
    429: _problem(429, "TooManyRequests", "this client has as many requests inside as it may"),
    503: _problem(503, "OverloadedError", "the queue is full; Retry-After says when to try again"),
    504: _problem(504, "OcrTimeoutError", "no answer within the timeout"),
}
_timeout = {
    "name": "X-Request-Timeout",
    "in": "header",
    "schema": {"type": "number", "exclusiveMinimum": 0},
    "description": "seconds for everything; the server's own limit holds besides",
}
_extra = {**_body(), "parameters": [_timeout]}


def _call(content: dict[str, Any]) -> dict[str, Any]:
    return {"openapi_extra": _extra, "responses": {200: {"description": "what was read", "content": content}, **_problems}}


_text = {"schema": {"type": "string"}, "example": "Hello, world\n"}
READ = _call(
    {
        "application/json": {"schema": {"type": "object"}, "example": {"pages": [_page]}},
        "text/plain": _text,
        "text/markdown": _text,
        "text/vnd.hocr+html": {
            "schema": {"type": "string"},
            "example": "<span class='ocr_line' title='bbox 20 15 176 45'>Hello, world</span>",
        },
        "application/xml": {"schema": {"type": "string"}, "example": '<TextLine HPOS="20" VPOS="15"><String CONTENT="Hello,"/></TextLine>'},
        "application/pdf": {"schema": {"type": "string", "format": "binary"}},
    }
)
STREAM = _call({"application/x-ndjson": {"schema": {"type": "object"}, "example": _page}})
