"""`threadsafe-ocr serve`: the service."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from threadsafe_ocr.cli.common import add_engine, count, seconds

INSTALL = 'pip install "threadsafe-ocr[serve]"'


def add_to(commands: Any) -> None:
    """The arguments; docs/server.md explains them."""
    command = commands.add_parser("serve", help="a service over HTTP", description="Reads images for clients over HTTP; docs at /docs.")
    add_engine(command)
    command.add_argument("--host", default="127.0.0.1", help="where to listen; 0.0.0.0 is everywhere (default: 127.0.0.1)")
    command.add_argument("--port", type=int, default=8000, help="(default: 8000)")
    command.add_argument("--workers", type=count, default=1, metavar="N", help="processes, each with its own models (default: 1)")
    limits = command.add_argument_group("limits")
    limits.add_argument("--timeout", type=seconds, metavar="SECONDS", help="for a request, waiting included (default: 60)")
    limits.add_argument("--upload-timeout", type=seconds, metavar="SECONDS", help="until an upload must be there (default: 60)")
    limits.add_argument("--grace", type=seconds, metavar="SECONDS", help="after SIGTERM, for requests that are inside (default: 30)")
    limits.add_argument("--max-queue-size", type=count, metavar="N", help="pages inside at once, others get 503 (default: 20 a core)")
    limits.add_argument("--max-upload", type=_size, metavar="BYTES", help="of a file; 50M is 50,000,000 (default: 50M)")
    limits.add_argument("--max-pages", type=count, metavar="N", help="of a file (default: 200)")
    limits.add_argument("--max-pixels", type=_size, metavar="N", help="of a page (default: 100M)")
    limits.add_argument("--max-per-client", type=count, metavar="N", help="requests of a client at once, others get 429 (default: any)")
    urls = "take http and https addresses for files, too; never private ones"
    limits.add_argument("--fetch-urls", action="store_true", help=urls)
    who = command.add_argument_group("who may ask")
    who.add_argument("--api-key", dest="api_keys", action="append", metavar="KEY", help="needed in every call; may be repeated")
    who.add_argument("--cors", action="append", metavar="ORIGIN", help="whose pages may call from a browser, or '*'; may be repeated")
    command.set_defaults(run=run, error=command.error)


def run(arguments: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C."""
    try:
        from threadsafe_ocr.server.run import run as serve
        from threadsafe_ocr.server.service import ServerSettings
    except ModuleNotFoundError as error:
        print(f"threadsafe-ocr: {error.name} is not installed; {INSTALL}", file=sys.stderr)
        return 1
    # Not seen by whoever lists processes.
    keys = arguments.api_keys or [key for key in os.environ.get("THREADSAFE_OCR_API_KEYS", "").split(",") if key]
    given = {name: value for name in ServerSettings.__annotations__ if (value := getattr(arguments, name)) is not None}
    settings = ServerSettings(**{**given, "api_keys": tuple(keys), "cors": tuple(arguments.cors or ())})
    return serve(settings, host=arguments.host, port=arguments.port, workers=arguments.workers)


def _size(text: str) -> int:
    units = {"k": 10**3, "m": 10**6, "g": 10**9}
    unit = units.get(text[-1:].lower(), 1)
    return count(text[:-1] if unit > 1 else text) * unit
