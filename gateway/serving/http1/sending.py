"""What leaves a connection, and how it is closed: a client that takes its answer slowly is waited for; one that takes
nothing is not."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from gateway.timer import Deadline

_RESET = struct.pack("ii", 1, 0)


class Sending:
    """Calls `idle()` when the client has taken nothing of what was written for so many seconds."""

    __slots__ = ("_deadline", "_idle", "_last", "_room", "_seconds", "_transport", "_unflushed", "paused")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        seconds: float,
        idle: Callable[[], None],
    ) -> None:
        self.paused = False
        self._transport = transport
        self._seconds = seconds
        self._idle = idle
        self._last = False  # everything is written
        self._room = asyncio.Event()
        self._unflushed = 0  # bytes that it had not taken at the last look
        self._deadline = Deadline(loop, self._expired)

    def pause(self) -> None:
        self.paused = True
        self._room.clear()
        self._watch()

    def resume(self) -> None:
        self.paused = False
        self._room.set()
        if not self._last:
            self._deadline.clear()

    async def wait(self) -> None:
        """Until more may be written, or nobody is there to take it."""
        await self._room.wait()

    def give_up(self) -> None:
        """Nobody waits any more."""
        self._room.set()

    def close(self) -> None:
        """As soon as everything has been taken."""
        self._last = True
        self._transport.close()
        self._watch()

    def cut(self, *, reset: bool) -> None:
        """At once."""
        self._last = True
        if reset and (connection := self._transport.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def dispose(self) -> None:
        """The owner's method is let go."""
        self._deadline.close()
        self._idle = _nothing

    def _watch(self) -> None:
        self._unflushed = self._transport.get_write_buffer_size()
        self._deadline.set(self._seconds)

    def _expired(self) -> None:
        if 0 < self._transport.get_write_buffer_size() < self._unflushed:
            self._watch()  # slow, but not idle
        else:
            self._idle()


def _nothing() -> None:
    return None
