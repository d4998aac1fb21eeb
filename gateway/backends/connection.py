"""One keep-alive connection to an upstream: it carries at most one request at a time.

It never decides what happens next: it settles the future of its exchange and says whether it may be used
again. Deadlines are kept by one lazy timer, which is moved only when it fires or when an earlier deadline
comes, not once per request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from gateway.backends.answer import AnswerReader
from gateway.backends.base import Incomplete, Unanswered
from gateway.errors import BackendError, BackendTimeout

if TYPE_CHECKING:
    from gateway.backends.answer import Limits
    from gateway.backends.base import Answer

COALESCED = 65536  # a body up to this size is copied behind its head, to leave in one piece
TICK = 0.001  # the resolution of the loop's timers: nearer than this is now


class Connection(asyncio.Protocol):
    __slots__ = (
        "_closed",
        "_deadline",
        "_future",
        "_loop",
        "_reader",
        "_timer",
        "_timer_at",
        "_transport",
        "idle_since",
        "reusable",
        "served",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        self._loop = loop
        self._reader = AnswerReader(limits)
        self._transport: asyncio.Transport | None = None
        self._future: asyncio.Future[Answer] | None = None  # of the exchange under way
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._deadline = 0.0
        self._closed = False
        self.reusable = False  # only between a cleanly ended exchange and the next
        self.idle_since = 0.0
        self.served = 0

    def __repr__(self) -> str:
        state = "closed" if self.gone else "idle" if self._future is None else "busy"
        return f"<Connection {state}, {self.served} served>"

    @property
    def gone(self) -> bool:
        """Closed, or about to be: a transport reports a reset one tick after it has seen it."""
        return self._closed or self._transport is None or self._transport.is_closing()

    def send(self, head: bytes, body: bytes, deadline: float, *, bodiless: bool) -> asyncio.Future[Answer]:
        """Write a request; the future settles with its answer or a BackendError."""
        self.reusable = False
        future: asyncio.Future[Answer] = self._loop.create_future()
        transport = self._transport
        if transport is None or transport.is_closing():
            future.set_exception(Unanswered("the upstream closed the connection before the request was sent"))
            return future
        self._reader.begin(bodiless=bodiless)
        self._future = future
        if len(body) <= COALESCED:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        self._deadline = deadline
        if self._timer is None or deadline < self._timer_at:
            self._arm(deadline)
        return future

    def abort(self) -> None:
        """Close now, without waiting for what is still to be written; an exchange under way fails."""
        if self._closed:
            return
        self._closed = True
        self.reusable = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        self._settle(Unanswered("the connection was closed"))

    # -- deadlines

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self._future is None:
            return  # idle: the next request sets the timer again
        if self._deadline - self._loop.time() > TICK:
            self._arm(self._deadline)  # it was set for an earlier request, which has been answered
        else:
            self._fail(BackendTimeout(f"no whole answer by the deadline ({self._reader.progress})"))

    # -- ends of an exchange

    def _deliver(self) -> None:
        future, self._future = self._future, None
        transport = self._transport
        if future is None or transport is None or future.done():
            self.abort()  # cancelled in this very tick
            return
        self.served += 1
        future.set_result(self._reader.answer())
        # An answer may overtake its request (a 413, say): it is whole, but the rest of the upload is waste.
        if self._reader.renew() and not transport.get_write_buffer_size():
            self.reusable = True
        else:
            self.abort()

    def _fail(self, error: BackendError) -> None:
        self._settle(error)
        self.abort()

    def _settle(self, error: BackendError) -> None:
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_exception(error)

    def _lost(self, exc: Exception | None) -> None:
        how = f"connection lost: {exc}" if exc else "connection closed"
        error = Incomplete if self._reader.received else Unanswered
        self._fail(error(f"the upstream ended its answer too early ({how}, {self._reader.progress})"))

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._closed:
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self._future is None:
            self.abort()  # nobody asked: such bytes would be taken for the next answer
            return
        try:
            if self._reader.feed(data):
                self._deliver()
        except BackendError as error:
            self._fail(error)

    def eof_received(self) -> None:
        if self._future is not None and self._reader.feed_eof():
            self._deliver()
        else:
            self._lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(exc)
        self._transport = None
        self._reader.dispose()
