"""Connections that send nothing, or take nothing: uvicorn waits for them for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# For a request's first line and headers, from when the connection is there or the first byte of a later request.
HEAD_SECONDS = 10.0
# For the next bytes of an answer to be taken.
TAKE_SECONDS = 30.0


class Connection(H11Protocol):
    """Closes a connection that has not sent a whole head in time, however slowly it drips, or takes nothing of what is there for it."""

    _patience: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._patience is None and self._awaits_head():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._patience, self._untaken):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._untaken is not None:
            self._untaken.cancel()

    def _wait_for_taking(self) -> None:
        self._untaken = self.loop.call_later(TAKE_SECONDS, self._look_what_was_taken, self.transport.get_write_buffer_size())

    def _look_what_was_taken(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._wait_for_taking()
        else:
            # To close it would wait for the rest.
            self.transport.abort()

    def _awaits_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self._patience = self.loop.call_later(HEAD_SECONDS, self._look)

    def _look(self) -> None:
        self._patience = None
        if self._awaits_head() and self.timeout_keep_alive_task is None:
            self.transport.close()
