"""The service behind `threadsafe-ocr serve`: FastAPI around one engine. Needs `pip install "threadsafe-ocr[serve]"`.

A request's way: `access.py` (id, log, metrics), `limits.py` (key, shares of clients, what is not read), `reading.py` (the call),
`uploads.py` (its body) and `fetching.py`, `documents.py` (its pages, and the engine), `formats.py` (the answer). `service.py` is what they
share; `app.py` puts them together, `run.py` starts them, `workers.py` is the parent of several. `paddlex.py` and `rapidocr.py` are calls of
other servers. docs/server.md is for users.
"""

from threadsafe_ocr.server.app import create_app
from threadsafe_ocr.server.service import ServerSettings

__all__ = ["ServerSettings", "create_app"]
