"""One client connection of the data port: HTTP/1.1 in, ASGI calls out, in the place of uvicorn's own protocol.

uvicorn still accepts, counts and drains; this speaks. Requests are answered in order, each by one task.

A client that closes its sending side after its requests still gets their answers; `departure` finds out whether it
has left altogether, for work for clients that left is what hurts under load. While reading is paused (a body that
nobody takes, more than one request waiting) a departure is seen only once there is room again.
"""

from __future__ import annotations

import asyncio
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
from gateway.serving.http1.intake import Intake
from gateway.serving.http1.patience import Idle, Patience
from gateway.serving.http1.reader import RequestReader
from gateway.serving.http1.sending import Sending

if TYPE_CHECKING:
    import uvicorn
    from uvicorn.server import ServerState


class Http1Protocol(asyncio.Protocol):
    """The first four arguments are uvicorn's. `refused` is called with the reason of every refusal before the app;
    of a `crowded` connection, one request is read, and the application is told."""

    __slots__ = (
        "_app",
        "_closing",
        "_crowded",
        "_current",
        "_defaults",
        "_departure",
        "_fault",
        "_limits",
        "_loop",
        "_reader",
        "_refused",
        "_state",
        "_waiting",
        "ending",
        "intake",
        "patience",
        "sending",
        "tasks",
        "transport",
    )

    transport: asyncio.Transport  # all four from the moment the connection is made
    intake: Intake
    sending: Sending
    _reader: RequestReader

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
        self._state = server_state
        self._limits = limits
        self._refused = refused
        self._crowded = crowded
        self._loop = _loop or asyncio.get_running_loop()
        self._current: HttpExchange | None = None  # being answered
        self._waiting: deque[HttpExchange] = deque()
        self._fault: GatewayError | None = None  # what came last is no request: told after all before it is answered
        self._closing = False
        self._departure: Departure | None = None  # watched for since the client has closed its sending side
        self._defaults = Defaults([])
        keep_alive = float(config.timeout_keep_alive)
        self.patience = Patience(self._loop, self._lost_patience, limits, keep_alive, {} if idle is None else idle)
        self.tasks = server_state.tasks
        self.ending = False

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
        self.intake = Intake(self._reader, self.transport, self._waiting, limits.buffer, self._reject)
        # With a reset, for the kernel would keep what the client does not read until it has read all of it.
        self.sending = Sending(self._loop, self.transport, limits.send_timeout, partial(self.cut, reset=True))
        self._state.connections.add(self)  # type: ignore[arg-type]
        self.patience.await_head()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader.done:
            return
        self.intake.take(data)
        if self._current is None and reader.begun and not reader.done:
            self.patience.await_head()

    def eof_received(self) -> bool:
        """Whether the connection stays open: for answers to what has arrived whole."""
        current = self._current
        if current is None or self._closing:
            return False  # the transport closes itself
        if not current.whole:
            self.cut(reset=False)
            return False
        self.intake.finish()
        if self._fault is None:
            (self._waiting[-1] if self._waiting else current).persistent = False
        self._departure = Departure(self._loop, self.transport, partial(self.cut, reset=False), self._interjection)
        return True

    def _interjection(self) -> bytes:
        return b"" if self._current is None else self._current.interjection

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._abandon()
        self.intake.dispose()
        self.patience.close()
        self.sending.dispose()
        if self._departure is not None:
            self._departure.close()

    def pause_writing(self) -> None:
        self.sending.pause()

    def resume_writing(self) -> None:
        self.sending.resume()

    def shutdown(self) -> None:
        """uvicorn stops: nothing is begun any more. What is being answered is answered."""
        self.ending = True
        if self._current is None and not self._closing:
            self._close()

    def _reject(self, error: GatewayError) -> None:
        """What has arrived last is no request. Whoever waits for its body is told; else it is answered in turn."""
        self._reader.done = True
        if self._reader.reading is not None:
            self._reader.reading.fail(error)
        elif self._current is None:
            self._refuse(error)
        else:
            self._fault = error

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
        self.patience.clear()
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
            self.intake.throttle()
        elif self._fault is not None:
            self._refuse(self._fault)
        elif self._reader.begun:
            self.patience.await_head()
        else:
            self.patience.await_next()

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
        self.intake.stop()
        self.patience.clear()
        self._waiting.clear()
        exchange, self._current = self._current, None
        if exchange is not None:
            exchange.disconnect(self._loop)
        self.sending.give_up()

    # -- how it ends

    def _end(self, exchange: HttpExchange | None) -> None:
        """After the last answer. Where more may come, closing would reset the connection before the client could
        read it: only our side is closed, and what comes is thrown away for a moment."""
        all_read = exchange is not None and exchange.whole and not (self._waiting or self.intake.backlog)
        self._abandon()
        if all_read or self._departure is not None or not self.transport.can_write_eof():
            self._close()
        elif not self.transport.is_closing():
            self._closing = True
            self._reader.reading = None
            self.intake.throttle()
            self.transport.write_eof()
            self.patience.linger()

    def _close(self) -> None:
        self._closing = True
        self._reader.done = True
        self.patience.clear()
        self.sending.close()

    def cut(self, *, reset: bool) -> None:
        self._closing = True
        self._abandon()
        self.sending.cut(reset=reset)

    def _lost_patience(self) -> None:
        current = self._current
        if self._closing:
            self.cut(reset=False)  # the client has had the time to read its last answer
        elif current is not None:
            if current.is_awaited:
                self._reader.done = True
                current.fail(RequestTimeout("the body did not come in time"))
        elif self._reader.begun:
            self._refuse(RequestTimeout("the head of the request did not come in time"))
        else:
            self._close()


def _address(name: Any) -> tuple[str, int] | None:
    return (name[0], name[1]) if isinstance(name, tuple) else None
