"""The page at `/`: files beside this one, which need no building and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException
from starlette.responses import FileResponse

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).with_name("static")
# Only what is listed here, whatever a client asks for.
FILES = {path.name: path for path in _FOLDER.iterdir() if path.suffix in (".html", ".css", ".js", ".svg")}
# The image that `threadsafe-ocr doctor` reads, too.
FILES["sample.png"] = Path(__file__).parents[1] / "cli" / "page.png"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked for again each time, so that the files of two versions do not meet.
    "Cache-Control": "no-cache",
}


@router.get("/")
async def page() -> FileResponse:
    """For people."""
    return FileResponse(FILES["index.html"], headers=HEADERS)


@router.get("/static/{name}")
async def file(name: str) -> FileResponse:
    """What the page is made of."""
    if name not in FILES:
        raise HTTPException(404)
    return FileResponse(FILES[name], headers=HEADERS)
