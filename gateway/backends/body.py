"""The body of a streamed answer, between a connection that brings pieces and one reader that takes them.

What waits here is bounded: above the high-water mark the connection reads no further until the reader has caught
up. Pieces that came before a fault are handed over before it is raised.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from gateway.backends.faults import GivenUp
from gateway.errors import BackendTimeout, ClientGone

if TYPE_CHECKING:
    from typing import Self

HIGH_WATER = 64 << 10  # bytes; one read of the loop may come on top
LOW_WATER = HIGH_WATER // 4
UNREAD = 300.0  # seconds after which nobody is believed to come for the next piece


class Source(Protocol):
    """The connection, as its reader sees it."""

    def resume(self) -> None:
        """Read on: there is room again."""

    def fail(self, error: Exception) -> None:
        """End the exchange, and with it the connection."""


class StreamedBody:
    """See `base.Body`; `push` and `end` are for the connection."""

    __slots__ = ("_error", "_idle", "_loop", "_paused", "_pieces", "_since", "_size", "_source", "_waiter")

    def __init__(self, source: Source, loop: asyncio.AbstractEventLoop, idle_timeout: float) -> None:
        self._source: Source | None = source  # None once it has ended
        self._loop = loop
        self._idle = idle_timeout
        self._pieces: deque[bytes] = deque()
        self._size = 0  # bytes in them
        self._paused = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._since = loop.time()  # when the reader last asked for a piece

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        self._since = self._loop.time()
        while not self._pieces:
            if self._source is None:
                raise self._error or StopAsyncIteration
            await self._arrival()
        piece = self._pieces.popleft()
        self._size -= len(piece)
        if self._paused and self._size <= LOW_WATER and self._source is not None:
            self._paused = False
            self._source.resume()
        return piece

    async def _arrival(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("a streamed body has one reader")
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._waiter = None

    def close(self) -> None:
        given_up = GivenUp("the rest of the answer was given up")
        if self._source is not None:
            self._source.fail(given_up)
        elif self._pieces:
            self._error = given_up
        self._pieces.clear()

    # -- for the connection

    def push(self, piece: bytes) -> bool:
        """Take a piece; False if there is no room for another until `resume`."""
        if piece:  # not framing alone
            self._pieces.append(piece)
            self._size += len(piece)
            self._wake()
        if self._size > HIGH_WATER:
            self._paused = True
        return not self._paused

    def end(self, error: Exception | None = None) -> None:
        self._source = None
        self._error = error
        self._wake()

    def check(self, now: float) -> float:
        """The time at which to look again; raises once the upstream, or the reader, has been silent for too
        long."""
        if self._waiter is None:
            if now - self._since >= UNREAD:
                raise ClientGone(f"nobody took the rest of the answer for {UNREAD:g} s")
            return now + self._idle  # the upstream owes nothing
        if now - self._since >= self._idle:
            raise BackendTimeout(f"the upstream sent nothing for {self._idle:g} s")
        return self._since + self._idle

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
