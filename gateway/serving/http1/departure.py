"""Whether a client that has closed its sending side has left, or still waits for its answer.

Both look alike until something is written: whoever has left answers with a reset, which a socket at its end of file
keeps to itself until it is asked. So something is written that says nothing, and it is asked; then from time to time.
What forwards TCP takes the first thing written to a client that has left, and often the second, before it leaves as
well: hence three of them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from gateway.timer import LazyTimer

SOON = (0.02, 0.08, 0.4, 0.05, 0.45, 1.0, 0.05)  # seconds between the first looks: a reset takes one round trip
AGAIN = (3, 6)  # looks after which something is written again
LATER = 1.0  # seconds between later looks: what is written of an answer is answered with a reset as well


class Departure:
    """Calls `gone()` once the other end is seen to have left. `interjection` tells what may be written now and says
    nothing, b"" if there is no such thing."""

    __slots__ = ("_gone", "_interjection", "_looks", "_timer", "_transport")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        gone: Callable[[], None],
        interjection: Callable[[], bytes],
    ) -> None:
        self._transport = transport
        self._gone = gone
        self._interjection = interjection
        self._looks = 0
        self._timer = LazyTimer(loop, self._look)
        self._ask()
        self._timer.wake(loop.time() + SOON[0])

    def close(self) -> None:
        """For good; the owner's methods are let go."""
        self._timer.close()
        self._gone, self._interjection = _nothing, bytes

    def _ask(self) -> None:
        if words := self._interjection():
            self._transport.write(words)

    def _look(self, now: float) -> float | None:
        if _was_reset(self._transport):
            self._gone()
            return None
        self._looks += 1
        if self._looks in AGAIN:
            self._ask()
        return now + (SOON[self._looks] if self._looks < len(SOON) else LATER)


def _was_reset(transport: asyncio.Transport) -> bool:
    connection = transport.get_extra_info("socket")
    return connection is not None and connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def _nothing() -> None:
    return None
