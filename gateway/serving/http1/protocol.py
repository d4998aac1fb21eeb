"""One client connection of the data port: HTTP/1.1 in, ASGI calls out, in the place of uvicorn's own protocol.

uvicorn still accepts, counts and drains; this speaks. Why not its httptools protocol: it costs half as much again as
all that the gateway does with a request, has no deadlines while it receives, and lets a request run on whose client
is gone. Requests are answered in order, each by one task.

A client that closes its sending side after its requests still gets their answers; `departure` finds out whether it
has left altogether, for work for clients that left is what hurts under load. While reading is paused (a body that
nobody takes, more than one request waiting) a departure is seen only once there is room again.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from gateway.errors import GatewayError, RequestTimeout
from gateway.serving.asgi import CROWDED, Scope
from gateway.serving.http1 import refusal
from gateway.serving.http1.answer import Defaults
from gateway.serving.http1.departure import Departure
from gateway.serving.http1.exchange import HttpExchange
from gateway.serving.http1.head import DEFAULTS, Limits
from gateway.serving.http1.reader import SLICE, RequestReader
from gateway.serving.http1.sending import SendWatch
from gateway.timer import Deadline

if TYPE_CHECKING:
    import uvicorn
    from uvicorn.server import ServerState

    from gateway.serving.http1.body import RequestBody

Idle = dict["Http1Protocol", None]  # connections between two requests, the one that has waited longest first

_RESET = struct.pack("ii", 1, 0)


class Http1Protocol(asyncio.Protocol):
    """The first four arguments are uvicorn's. `refused` is called with the reason of every refusal before the app;
    of a `crowded` connection, one request is read, and the application is told. It is in `idle` while it is."""

    __slots__ = (
        "_app",
        "_backlog",
        "_closing",
        "_crowded",
        "_current",
        "_defaults",
        "_departure",
        "_fault",
        "_idle",
        "_in_head",
        "_keep_alive",
        "_limits",
        "_loop",
        "_reader",
        "_receiving",
        "_refused",
        "_sending",
        "_state",
        "_waiting",
        "ending",
        "read_paused",
        "tasks",
        "transport",
        "writable",
        "write_paused",
    )

    transport: asyncio.Transport  # all three from the moment the connection is made
    _reader: RequestReader
    _sending: SendWatch

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits = DEFAULTS,
        refused: Callable[[str], None] | None = None,
        crowded: bool = False,
        idle: Idle | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._app = config.loaded_app
        self._keep_alive = float(config.timeout_keep_alive)
        self._state = server_state
        self._limits = limits
        self._refused = refused
        self._crowded = crowded
        self._idle: Idle = {} if idle is None else idle
        self._loop = _loop or asyncio.get_running_loop()
        self._backlog = b""  # arrived, not read yet
        self._current: HttpExchange | None = None  # being answered
        self._waiting: deque[HttpExchange] = deque()
        self._fault: GatewayError | None = None  # what came last is no request: told after all before it is answered
        self._in_head = True  # the deadline of a head runs; a new connection owes one
        self._closing = False
        self._departure: Departure | None = None  # watched for since the client has closed its sending side
        self._receiving = Deadline(self._loop, self._receive_expired)
        self._defaults = Defaults([])
        self.tasks = server_state.tasks
        self.ending = False
        self.read_paused = False
        self.write_paused = False
        self.writable = asyncio.Event()

    def __repr__(self) -> str:
        state = "closing" if self._closing else "idle" if self._current is None else "busy"
        return f"<Http1Protocol {state}, {len(self._waiting)} waiting>"

    @property
    def defaults(self) -> Defaults:
        """Fields for every answer: uvicorn makes a new list of them every second."""
        if self._defaults.of is not self._state.default_headers:
            self._defaults = Defaults(self._state.default_headers)
        return self._defaults

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        peers = [_address(transport.get_extra_info(name)) for name in ("peername", "sockname")]
        limits = self._limits
        self._reader = RequestReader(self._take, limits, *peers)
        # With a reset, for the kernel would keep what the client does not read until it has read all of it.
        self._sending = SendWatch(self._loop, self.transport, limits.send_timeout, partial(self.cut, reset=True))
        self._state.connections.add(self)  # type: ignore[arg-type]
        self._receiving.set(limits.head_timeout)

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader.done:
            return
        if len(data) <= SLICE and not self._backlog:
            self._feed(data)
        else:
            self._backlog += data
            self._work_off()
        if self._waiting or reader.reading is not None:
            self.throttle()

    def eof_received(self) -> bool:
        """Whether the connection stays open: for answers to what has arrived whole."""
        current = self._current
        if current is None or self._closing:
            return False  # the transport closes itself
        if not current.body.whole:
            self.cut(reset=False)
            return False
        self._take_no_more(current)
        self._departure = Departure(self._loop, self.transport, partial(self.cut, reset=False), self._may_interject)
        return True

    def _may_interject(self) -> bool:
        """Whether an interim answer is in place now, and is understood."""
        current = self._current
        return current is not None and current.silent and current.scope["http_version"] == "1.1"

    def _take_no_more(self, current: HttpExchange) -> None:
        """The last request that has arrived whole gets the last answer."""
        reader, waiting = self._reader, self._waiting
        reader.done = True
        if reader.reading is not None:
            reader.reading = None
            waiting.pop()
        if self._fault is None:
            (waiting[-1] if waiting else current).persistent = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._abandon()
        self._reader.dispose()
        self._receiving.close()
        self._sending.close()
        if self._departure is not None:
            self._departure.close()

    def pause_writing(self) -> None:
        self.write_paused = True
        self.writable.clear()
        self._sending.begin()

    def resume_writing(self) -> None:
        self.write_paused = False
        self.writable.set()
        if not self._closing:
            self._sending.end()

    def shutdown(self) -> None:
        """uvicorn stops: nothing is begun any more. What is being answered is answered."""
        self.ending = True
        if self._current is None and not self._closing:
            self._close()

    # -- what arrives

    def _feed(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
        except GatewayError as error:
            self._reject(error)
            return
        if self._current is None and not self._in_head and reader.begun:
            self._await_head()

    def _work_off(self) -> None:
        """Read what has arrived, as far as there is room."""
        backlog = self._backlog
        at = 0
        while at < len(backlog) and not self._full() and not self._reader.done:
            self._feed(backlog[at : at + SLICE])
            at += SLICE
        self._backlog = b"" if self._reader.done else backlog[at:]

    def _reject(self, error: GatewayError) -> None:
        """What has arrived last is no request. Whoever waits for its body is told; else it is answered in turn."""
        self._reader.done = True
        if self._reader.reading is not None:
            self._reader.reading.body.fail(error)
        elif self._current is None:
            self._refuse(error)
        else:
            self._fault = error

    def _full(self) -> bool:
        """Not more than one request waits, and of its body no more than is allowed."""
        reading = self._reader.reading
        return len(self._waiting) > 1 or (reading is not None and reading.body.buffered > self._limits.buffer)

    def throttle(self) -> None:
        if self._backlog and not self._full():
            self._work_off()
        pause = self._full() and not self._reader.done
        if pause == self.read_paused or self.transport.is_closing():
            return
        self.read_paused = pause
        if pause:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def await_body(self, body: RequestBody) -> None:
        self._receiving.set(body.patience(self._limits.body_timeout, self._limits.body_rate))

    # -- who is answered

    def _take(self, scope: Scope, fields: dict[bytes, bytes], expects: bool, persistent: bool) -> HttpExchange:
        if self._crowded:
            scope[CROWDED] = True
            persistent = False
        exchange = HttpExchange(self, scope, fields, expects, persistent)
        if self._current is None:
            self._begin(exchange)
        else:
            self._waiting.append(exchange)
        return exchange

    def _begin(self, exchange: HttpExchange) -> None:
        self._current = exchange
        self._in_head = False
        self._idle.pop(self, None)
        self._receiving.clear()
        # Not by the loop's own method, which would number it: formatting the name costs more than it says. A
        # runner of our own that begins at once would save a tenth of 2.4 us at most: asyncio's is in C.
        exchange.task = task = asyncio.Task(exchange.run(self._app), loop=self._loop, name="request")
        self.tasks.add(task)

    def answered(self, exchange: HttpExchange) -> None:
        self._state.total_requests += 1
        self._current = None
        if not exchange.persistent or self.ending:
            self._end(exchange)
        elif self._waiting:
            self._begin(self._waiting.popleft())
            self.throttle()
        elif self._fault is not None:
            self._refuse(self._fault)
        elif self._reader.begun:
            self._await_head()
        else:
            self._idle[self] = None
            self._receiving.set(self._keep_alive)

    def _await_head(self) -> None:
        """It has begun to arrive."""
        self._in_head = True
        self._idle.pop(self, None)
        self._receiving.set(self._limits.head_timeout)

    def refuse(self, error: GatewayError, exchange: HttpExchange) -> None:
        self._state.total_requests += 1
        self._current = None
        scope = exchange.scope
        self.transport.write(refusal.render(error, scope["path"], self.defaults, head_only=scope["method"] == "HEAD"))
        self._end(exchange)

    def _refuse(self, error: GatewayError) -> None:
        """Answer what no application is asked for."""
        self._reader.done = True
        if self._refused is not None:
            self._refused(error.reason)
        self.transport.write(refusal.render(error, "", self.defaults, head_only=False))
        self._end(None)

    def _abandon(self) -> None:
        """Nobody is left to be answered."""
        self._reader.done = True
        self._idle.pop(self, None)
        self._backlog = b""
        self._waiting.clear()
        exchange, self._current = self._current, None
        if exchange is not None:
            exchange.disconnect(self._loop)
        self.writable.set()

    # -- how it ends

    def _end(self, exchange: HttpExchange | None) -> None:
        """After the last answer. Where more may come, closing would reset the connection before the client could
        read it: only our side is closed, and what comes is thrown away for a moment."""
        all_read = exchange is not None and exchange.body.whole and not (self._waiting or self._backlog)
        self._abandon()
        if all_read or self._departure is not None or not self.transport.can_write_eof():
            self._close()
        elif not self.transport.is_closing():
            self._closing = True
            self._reader.reading = None
            self.throttle()
            self.transport.write_eof()
            self._receiving.set(self._limits.linger)

    def give_way(self) -> bool:
        """Close an idle connection for the sake of a new one, unless its client has just been answered: that may be
        sending the next request."""
        if self._keep_alive - self._receiving.left() < self._limits.spared:
            return False
        self._close()
        return True

    def _close(self) -> None:
        self._closing = True
        self._idle.pop(self, None)
        self._reader.done = True
        self.transport.close()
        self._receiving.clear()
        self._sending.begin()

    def cut(self, *, reset: bool) -> None:
        self._closing = True
        self._abandon()
        if reset and (connection := self.transport.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    # -- deadlines

    def _receive_expired(self) -> None:
        current = self._current
        if self._closing:
            self.cut(reset=False)  # the client has had the time to read its last answer
        elif current is not None:
            if current.body.is_awaited:
                self._reader.done = True
                current.body.fail(RequestTimeout("the body did not come in time"))
        elif self._reader.begun:
            self._refuse(RequestTimeout("the head of the request did not come in time"))
        else:
            self._close()


def _address(name: Any) -> tuple[str, int] | None:
    return (name[0], name[1]) if isinstance(name, tuple) else None
