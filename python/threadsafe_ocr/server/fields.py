"""The fields of a request beside its file: the answer's format, and the options of `ThreadSafeOCR.read`."""

from __future__ import annotations

from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from threadsafe_ocr.options import Options

Format = Literal["json", "text", "md"]


class Fields(BaseModel):
    """What every request may say."""

    model_config = ConfigDict(extra="forbid")

    format: Format = "json"

    def options(self) -> dict[str, Any]:
        """Keywords for `aread`; what was not given is the engine's default."""
        return self.model_dump(exclude={"format"}, exclude_none=True)


_options: Any = {name: (kind, None) for name, kind in get_type_hints(Options).items()}
# With every option of a call, of the type that it has there.
ReadFields: type[Fields] = create_model("ReadFields", __base__=Fields, **_options)
