"""The fields of a request beside its file: the answer's format, and the options of `ThreadSafeOCR.read`."""

from __future__ import annotations

from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from threadsafe_ocr.options import Options

Format = Literal["json", "text", "md", "hocr", "alto", "pdf"]


class Fields(BaseModel):
    """What every request may say."""

    model_config = ConfigDict(extra="forbid")

    format: Format = "json"
    images: bool = Field(False, description="in a stream: each page's picture too, `image`, JPEG in base64")
    dpi: float = Field(200.0, gt=0, le=2400, description="at which a PDF's pages are rendered")
    password: str | None = Field(None, description="of an encrypted PDF")

    def options(self) -> dict[str, Any]:
        """Keywords for `aread`; what was not given is the engine's default."""
        return self.model_dump(exclude=set(Fields.model_fields), exclude_none=True)


# With more a stranger's page takes the memory and the time of many. Of the first three these are the defaults.
MOST = {
    "det_max_side": 4000,
    "det_max_candidates": 3000,
    "rec_max_width": 3200,
    "det_unclip_ratio": 10,
    "page_min_side": 2000,
    "page_pad_height": 2000,
}
_options: Any = {name: (kind, Field(None, le=MOST.get(name))) for name, kind in get_type_hints(Options).items()}
# With every option of a call, of the type that it has there.
ReadFields: type[Fields] = create_model("ReadFields", __base__=Fields, **_options)
