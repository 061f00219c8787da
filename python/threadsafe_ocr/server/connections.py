"""Connections that send nothing: uvicorn waits for their first request for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# For a request's first line and headers, from when the connection is there or the first byte of a later request.
HEAD_SECONDS = 10.0


class Connection(H11Protocol):
    """Closes a connection that has not sent a whole head in time, however slowly it drips."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._patience is None and self._awaits_head():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._patience is not None:
            self._patience.cancel()

    def _awaits_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self._patience = self.loop.call_later(HEAD_SECONDS, self._look)

    def _look(self) -> None:
        self._patience = None
        if self._awaits_head() and self.timeout_keep_alive_task is None:
            self.transport.close()
