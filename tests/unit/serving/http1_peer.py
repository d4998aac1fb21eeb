"""A client's end of a connection without a socket: bytes in, bytes out, and time that only a test moves."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.serving.asgi import Receive, Scope, Send
from gateway.serving.http1.head import Limits
from gateway.serving.http1.protocol import Http1Protocol

App = Callable[[Scope, Receive, Send], Awaitable[None]]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class TimedLoop(asyncio.SelectorEventLoop):
    """Its time stands still until it is told."""

    now = 1000.0

    def time(self) -> float:
        return self.now


async def settle() -> None:
    """Let everything happen that is due now."""
    for _ in range(8):
        await asyncio.sleep(0)


async def advance(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, TimedLoop)
    loop.now += seconds
    await settle()


class Wire(asyncio.Transport):
    """What a protocol does to its transport. With `stuck`, nothing that is written leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: Any = None
        self.writes: list[bytes] = []
        self.closed = False  # by us: in order, or not
        self.aborted = False
        self.eof = False
        self.reading = True
        self.stuck = 0
        self.left = False  # the other end has closed both ways: it answers what is written with a reset
        self.looks = 0  # at the socket's error

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        self.looks += 1
        return errno.EPIPE if self.left and self.writes else 0

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        pass

    def getsockname(self) -> None:
        return None

    def getpeername(self) -> None:
        return None

    def write(self, data: Any) -> None:
        assert not self.eof
        if not self.closed:
            self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.stuck

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if not self.stuck:
                asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading


class Peer:
    """A connected client. `protocol` may be uvicorn's own: what both must do is tested on both."""

    def __init__(
        self, app: App, protocol: type[Any] = Http1Protocol, limits: Limits | None = None, **more: Any
    ) -> None:
        config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None, timeout_keep_alive=75)
        self.state = ServerState()
        arguments = more if limits is None else {"limits": limits, **more}
        self.wire = Wire()
        self.protocol = protocol(config=config, server_state=self.state, app_state={}, **arguments)
        self.wire.protocol = self.protocol
        self.protocol.connection_made(self.wire)

    async def send(self, data: bytes) -> bytes:
        """Everything written since the last call."""
        assert self.wire.reading or not data
        self.protocol.data_received(data)
        return await self.read()

    async def read(self) -> bytes:
        await settle()
        written = b"".join(self.wire.writes)
        self.wire.writes.clear()
        return written

    async def leave(self) -> None:
        """The end of file, then the transport's own reaction, and that of the other end to what is written now."""
        self.wire.left = True
        await self.half_close()
        await advance(0.02)

    async def half_close(self) -> None:
        """The end of file, and the transport's own reaction."""
        if not self.protocol.eof_received():
            self.wire.close()
        await settle()

    async def vanish(self) -> None:
        """A reset."""
        self.wire.closed = True
        self.protocol.connection_lost(ConnectionResetError())
        await settle()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def answering(body: bytes = b"ok", *headers: tuple[bytes, bytes], code: int = 200) -> App:
    """An application that reads the request and answers all alike, with a content-length."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        fields = [*headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": code, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    return app


class Script:
    """An application that a test steers: requests as they come, answers when told."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.receive: Receive
        self.send: Send
        self.ended: list[str] = []
        self._over: list[asyncio.Event] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.receive, self.send = receive, send
        over = asyncio.Event()
        self._over.append(over)
        try:
            await over.wait()
            self.ended.append("returned")
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise

    def finish(self, index: int = -1) -> None:
        self._over[index].set()

    async def answer(self, body: bytes = b"ok") -> None:
        await self.start((b"content-length", b"%d" % len(body)))
        await self.send({"type": "http.response.body", "body": body})

    async def start(self, *headers: tuple[bytes, bytes], code: int = 200) -> None:
        await self.send({"type": "http.response.start", "status": code, "headers": list(headers)})

    async def piece(self, body: bytes, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": more})


BOTH = (Http1Protocol, HttpToolsProtocol)
