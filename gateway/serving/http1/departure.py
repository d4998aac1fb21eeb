"""Whether a client that has closed its sending side has left, or still waits for its answer.

Both look alike until something is written: whoever has left answers with a reset, which a socket at its end of file
keeps to itself until it is asked. So it is asked, after an interim answer that every client of HTTP/1.1 has to skip
(RFC 9110 15.2), and after each piece of an answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from gateway.timer import LazyTimer

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SOON = (0.02, 0.08, 0.4)  # seconds between the first looks: a reset comes after one round trip
LATER = 1.0  # between those after them: what is written later is answered with a reset as well


class Departure:
    """Calls `gone()` once the other end is seen to have left; until then it looks from time to time."""

    __slots__ = ("_gone", "_intervals", "_timer", "_transport")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, gone: Callable[[], None], *, ask: bool
    ) -> None:
        """`ask`: nothing of an answer has left, and the client knows interim ones."""
        self._transport = transport
        self._gone = gone
        self._intervals = iter(SOON)
        self._timer = LazyTimer(loop, self._look)
        if ask:
            transport.write(CONTINUE)
        self._timer.wake(loop.time() + next(self._intervals))

    def close(self) -> None:
        self._timer.close()
        self._gone = _nothing

    def _look(self, now: float) -> float | None:
        if _was_reset(self._transport):
            self._gone()
            return None
        return now + next(self._intervals, LATER)


def _was_reset(transport: asyncio.Transport) -> bool:
    connection = transport.get_extra_info("socket")
    return connection is not None and connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def _nothing() -> None:
    return None
