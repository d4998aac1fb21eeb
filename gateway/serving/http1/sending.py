"""A client that takes its answer slowly is waited for; one that takes nothing is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.timer import Deadline


class SendWatch:
    """Calls `idle()` when the client has taken nothing of what was written for so many seconds."""

    __slots__ = ("_deadline", "_idle", "_seconds", "_transport", "_unflushed")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        seconds: float,
        idle: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._seconds = seconds
        self._idle = idle
        self._unflushed = 0  # bytes that it had not taken at the last look
        self._deadline = Deadline(loop, self._expired)

    def begin(self) -> None:
        self._unflushed = self._transport.get_write_buffer_size()
        self._deadline.set(self._seconds)

    def end(self) -> None:
        self._deadline.clear()

    def close(self) -> None:
        """For good."""
        self._deadline.close()
        self._idle = _nothing

    def _expired(self) -> None:
        if 0 < self._transport.get_write_buffer_size() < self._unflushed:
            self.begin()  # slow, but not idle
        else:
            self._idle()


def _nothing() -> None:
    return None
