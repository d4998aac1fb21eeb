"""One keep-alive connection to an upstream: it carries at most one exchange at a time.

An exchange lasts from `send` until the whole answer is here, or until it fails; then, in the same tick, the
connection is `ended`, which is told once, and says whether it may be used again. It never decides what happens
next.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from gateway.backends.answer import AnswerReader
from gateway.backends.body import StreamedBody
from gateway.backends.deadlines import Deadlines
from gateway.backends.faults import GivenUp, Incomplete, Unanswered
from gateway.errors import BackendError, ClientGone, GatewayError
from gateway.timer import LazyTimer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.backends.answer import Limits
    from gateway.backends.base import Answer, Body, Request, Timeouts

COALESCED = 65536  # a body up to this size is copied behind its head, to leave in one piece
LAST_CHUNK = b"0\r\n\r\n"


def chunk(piece: bytes) -> tuple[bytes, bytes, bytes]:
    """A piece in chunked coding (RFC 9112 7.1); an empty one would end the body."""
    return b"%x\r\n" % len(piece), piece, b"\r\n"


class Connection(asyncio.Protocol):
    _reader: AnswerReader  # from the moment the connection is made

    __slots__ = (
        "_body",
        "_closed",
        "_deadlines",
        "_drained",
        "_ended",
        "_future",
        "_limits",
        "_loop",
        "_reader",
        "_timeouts",
        "_timer",
        "_transport",
        "address",
        "idle_since",
        "reusable",
        "served",
        "streamed",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        ended: Callable[[Connection], None],
        timeouts: Timeouts,
        address: str = "",
    ) -> None:
        self._loop = loop
        self._limits = limits
        self._ended = ended
        self._timeouts = timeouts
        self._transport: asyncio.Transport | None = None
        self._future: asyncio.Future[Answer] | None = None  # of the exchange under way, until it has an answer
        self._body: StreamedBody | None = None  # then, if that is streamed, until it is whole
        self._timer = LazyTimer(loop, self._due)
        self._deadlines = Deadlines(timeouts)
        self._drained: asyncio.Future[None] | None = None
        self._closed = False
        self.reusable = False  # only between a cleanly ended exchange and the next
        self.idle_since = 0.0
        self.served = 0
        self.address = address
        self.streamed: bool | None = None  # whether the last answer was streamed to a good end; None: nothing to tell

    def __repr__(self) -> str:
        state = "closed" if self.gone else "busy" if self.busy else "idle"
        return f"<Connection {state}, {self.served} served>"

    @property
    def busy(self) -> bool:
        return self._future is not None or self._body is not None

    @property
    def gone(self) -> bool:
        """Closed, or about to be: a transport reports a reset one tick after it has seen it."""
        return self._closed or self._transport is None or self._transport.is_closing()

    # -- the request

    def send(self, head: bytes, request: Request, deadline: float) -> asyncio.Future[Answer]:
        """Write a request, or what is here of one with an upload; the future settles with its answer or an error.
        It is for whoever waits for it to `give_up` if it does not."""
        self.reusable = False
        self.streamed = None
        self._future = future = self._loop.create_future()
        transport = self._transport
        if transport is None or transport.is_closing():
            self.fail(Unanswered("the upstream closed the connection before the request was sent"))
            return future
        self._reader.begin(bodiless=request.method == b"HEAD", whole=request.whole)
        body = request.body
        if body and request.upload is not None and request.length is None:
            body = b"".join(chunk(body))
        if len(body) <= COALESCED:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        at = self._deadlines.begin(self._loop.time(), deadline, uploading=request.upload is not None)
        self._timer.wake(at)
        return future

    async def write(self, parts: Iterable[bytes]) -> None:
        """Write more of the request; returns when there is room for what follows, raises if nobody takes it."""
        if self._transport is None or self.gone:
            raise Unanswered("the upstream closed the connection before the request was whole")
        self._transport.writelines(parts)
        if self._deadlines.full:
            self._drained = self._loop.create_future()
            await self._drained

    def uploaded(self) -> None:
        """The request is whole."""
        self._timer.wake(self._deadlines.uploaded(self._loop.time()))

    def give_up(self, future: asyncio.Future[Answer]) -> None:
        """Nobody waits for this answer any more; nothing happens if its exchange has ended."""
        rest = _rest(future)
        if future is self._future or (rest is not None and rest is self._body):
            self.abort()

    def fail(self, error: Exception) -> None:
        """End the exchange under way, and the connection with it."""
        future, self._future = self._future, None
        body, self._body = self._body, None
        if future is not None and not future.done():
            future.set_exception(error)
        if body is not None:
            body.end(error)
            self.streamed = None if isinstance(error, GivenUp | ClientGone) else False
        self._close()
        if future is not None or body is not None:
            self._ended(self)

    def abort(self) -> None:
        """Close now, without waiting for what is still to be written; an exchange under way fails."""
        self.fail(Unanswered("the connection was closed"))

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.reusable = False
        self._timer.close()
        if self._transport is not None:
            self._transport.abort()

    def _due(self, now: float) -> float | None:
        """When to look next at the exchange under way, which fails if its time is over."""
        if not self.busy:
            return None  # the next request sets the timer
        try:
            if self._body is not None:
                return self._body.check(now)
            reader = self._reader
            return self._deadlines.check(now, begun=reader.received > 0, progress=reader.progress)
        except GatewayError as error:
            self.fail(error)
            return None

    # -- the answer

    def _deliver(self, future: asyncio.Future[Answer]) -> None:
        """The answer is whole."""
        if future.done():
            self.abort()  # cancelled in this very tick
        else:
            future.set_result(self._reader.answer())
            self._finish()

    def _stream(self, future: asyncio.Future[Answer]) -> None:
        """Its head is."""
        if future.done():
            self.abort()
            return
        self._body = StreamedBody(self, self._loop, self._timeouts.idle)
        self._future = None
        future.set_result(self._reader.answer(self._body))
        self._timer.wake(self._loop.time() + self._timeouts.idle)

    def _pass_on(self, body: StreamedBody, *, whole: bool) -> None:
        """Another piece of the answer, or the end, has come."""
        room = body.push(self._reader.take())
        if whole:
            body.end()
            self._finish()
        elif not room and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _finish(self) -> None:
        self.streamed = None if self._body is None or self._reader.status >= 500 else True  # its head has told
        self._future = self._body = None
        self.served += 1
        # An answer may overtake its request (a 413, say): it is whole, but the rest of the upload is waste.
        early = self._deadlines.uploading or self._transport is None or self._transport.get_write_buffer_size()
        self.reusable = self._reader.renew() and not early
        self._ended(self)

    def _lost(self, exc: Exception | None) -> None:
        how = f"connection lost: {exc}" if exc else "connection closed"
        error = Incomplete if self._reader.received else Unanswered
        self.fail(error(f"the upstream ended its answer too early ({how}, {self._reader.progress})"))

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._reader = AnswerReader(self._limits)  # not before: only the end of a connection disposes of it
        if self._closed:
            transport.close()

    def data_received(self, data: bytes) -> None:
        future, body = self._future, self._body
        if future is None and body is None:
            self.abort()  # nobody asked: such bytes would be taken for the next answer
            return
        reader = self._reader
        try:
            whole = reader.feed(data)
        except BackendError as error:
            if body is not None:
                body.push(reader.take())  # what came before the fault
            self.fail(error)
            return
        if future is None:
            assert body is not None
            self._pass_on(body, whole=whole)
        elif whole:
            self._deliver(future)
        elif reader.streams:
            self._stream(future)
        else:
            self._timer.wake(self._deadlines.heard(self._loop.time()))

    def eof_received(self) -> None:
        if not self.busy or not self._reader.feed_eof():
            self._lost(None)
        elif self._future is not None:
            self._deliver(self._future)
        elif self._body is not None:
            self._pass_on(self._body, whole=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(exc)
        self._transport = None
        self._reader.dispose()

    def pause_writing(self) -> None:
        self._deadlines.blocked(self._loop.time())

    def resume_writing(self) -> None:
        self._deadlines.unblocked(self._loop.time())
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)


def _rest(future: asyncio.Future[Answer]) -> Body | None:
    """What is to come of an answer; a fault that nobody waits for is taken note of, or asyncio would log it."""
    if not future.done() or future.cancelled() or future.exception():
        return None
    return future.result().rest
