"""SIGTERM and SIGINT: first the requests, then the server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator


@contextlib.contextmanager
def draining(close: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """While it is open, the first signal calls `close` and gives the signal to the server when that is done; a second one is the server's
    at once. Until then the server goes on to answer, so that those who still come are told, instead of finding nobody.

    Does nothing outside of the main thread, or where the server does not handle signals itself.
    """
    loop = asyncio.get_running_loop()
    main = threading.current_thread() is threading.main_thread()
    servers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)} if main else {}
    closing: asyncio.Task[None] | None = None

    async def close_then_tell(number: signal.Signals) -> None:
        try:
            await close()
        finally:
            tell(number)

    def tell(number: signal.Signals) -> None:
        handler = servers[number]
        if callable(handler):
            handler(number, None)

    def came(number: signal.Signals) -> None:
        nonlocal closing
        if closing is None:
            closing = loop.create_task(close_then_tell(number))
        else:
            tell(number)

    for number in servers:
        loop.add_signal_handler(number, came, number)
    try:
        yield
    finally:
        for number, handler in servers.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
