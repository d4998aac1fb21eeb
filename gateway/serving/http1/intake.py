"""What arrives on a connection, taken in as far as there is room: the rest waits, at first here, then at the client."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.errors import GatewayError
from gateway.serving.http1.reader import SLICE

if TYPE_CHECKING:
    import asyncio
    from collections import deque

    from gateway.serving.http1.exchange import HttpExchange
    from gateway.serving.http1.reader import RequestReader


class Intake:
    """`waiting` are the requests whose turn has not come, `most` is how much of a body may wait to be taken; `reject`
    is called with what is wrong with what arrived last."""

    __slots__ = ("_most", "_reader", "_reject", "_transport", "_waiting", "backlog", "paused")

    def __init__(
        self,
        reader: RequestReader,
        transport: asyncio.Transport,
        waiting: deque[HttpExchange],
        most: int,
        reject: Callable[[GatewayError], None],
    ) -> None:
        self.backlog = b""  # arrived, not read yet
        self.paused = False  # nothing is taken from the client
        self._reader = reader
        self._transport = transport
        self._waiting = waiting
        self._most = most
        self._reject = reject

    def take(self, data: bytes) -> None:
        if len(data) > SLICE or self.backlog:
            self.backlog += data
            self._work_off()
        else:
            try:
                self._reader.feed(data)
            except GatewayError as error:
                self._reject(error)
        if self._waiting or self._reader.reading is not None:
            self.throttle()

    def throttle(self) -> None:
        """Read on, or do not, as there is room."""
        if self.backlog and not self._is_full():
            self._work_off()
        pause = self._is_full() and not self._reader.done
        if pause == self.paused or self._transport.is_closing():
            return
        self.paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def finish(self) -> None:
        """Nothing more comes: a request that has not arrived whole is none."""
        self._reader.done = True
        if self._reader.reading is not None:
            self._reader.reading = None
            self._waiting.pop()

    def stop(self) -> None:
        """Nothing is read any more, not even what is here."""
        self._reader.done = True
        self.backlog = b""

    def dispose(self) -> None:
        """The owner's method is let go."""
        self.stop()
        self._reader.dispose()
        del self._reject

    def _work_off(self) -> None:
        """Read what has arrived, as far as there is room."""
        backlog = self.backlog
        at = 0
        try:
            while at < len(backlog) and not self._is_full() and not self._reader.done:
                self._reader.feed(backlog[at : at + SLICE])
                at += SLICE
        except GatewayError as error:
            self._reject(error)
        self.backlog = b"" if self._reader.done else backlog[at:]

    def _is_full(self) -> bool:
        """Not more than one request waits, and of its body no more than is allowed."""
        reading = self._reader.reading
        return len(self._waiting) > 1 or (reading is not None and reading.buffered > self._most)
