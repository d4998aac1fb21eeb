"""A scripted upstream on a real socket: it plays the bytes a test tells it to, right or wrong.

    async with Upstream(script) as upstream: ...

`script` is called once per accepted connection with a `Peer`; when it returns, the connection is closed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio.lowlevel

from gateway.backends.base import Request
from gateway.backends.http import HttpBackend

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

Script: TypeAlias = Callable[["Peer"], Awaitable[None]]

LONG = 5.0  # what only a hanging test waits for
GET = Request(b"GET", b"/", [])
POST = Request(b"POST", b"/", [], b"{}")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def answer(body: bytes = b"ok", *fields: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, *fields, b"Content-Length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)


class Received:
    """One request as it came off the wire."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.raw = head + body
        self.body = body
        self.line, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        self.headers = [(name, value) for name, value in (field.split(b": ", 1) for field in fields)]

    def names(self) -> list[bytes]:
        return [name for name, _ in self.headers]


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST in place of FIN."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


class Peer:
    """The upstream's end of one connection."""

    def __init__(self, upstream: Upstream, ends: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.number = upstream.accepted
        self._upstream = upstream
        self._reader, self._writer = ends

    async def request(self) -> Received:
        """The next request; IncompleteReadError once the gateway has closed."""
        return self.took(*await self._message())

    def took(self, head: bytes, body: bytes) -> Received:
        """Take down a request that the script has read by itself."""
        received = Received(head, body)
        self._upstream.requests.append(received)
        return received

    async def _message(self) -> tuple[bytes, bytes]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        _, found, length = head.lower().partition(b"content-length: ")
        return head, await self._reader.readexactly(int(length.split(b"\r\n")[0])) if found else b""

    async def head(self) -> bytes:
        """Only the head of a request; its body stays unread."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def read(self, size: int) -> bytes:
        """Exactly so much of what follows."""
        return await self._reader.readexactly(size)

    async def chunked(self) -> list[bytes]:
        """The chunks of a request's body, up to and without the last."""
        chunks = []
        while size := int((await self._reader.readuntil(b"\r\n")).removesuffix(b"\r\n"), 16):
            chunks.append(await self.read(size))
            assert await self.read(2) == b"\r\n"
        assert await self.read(2) == b"\r\n"
        return chunks

    async def send(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError
        self._writer.write(data)
        await self._writer.drain()

    async def gone(self) -> None:
        """Wait until the gateway closes."""
        try:
            while await self._reader.read(65536):
                pass
        except ConnectionError:
            pass

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """End with RST in place of FIN."""
        reset(self._writer)


class Upstream:
    def __init__(self, script: Script, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._host = host
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self.open = 0
        self.requests: list[Received] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self._host, 0, limit=1 << 20, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.host = f"[{self._host}]" if ":" in self._host else self._host
        self.authority = f"{self.host}:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def backend(self, **options: Any) -> HttpBackend:
        scheme = "https" if self._tls else "http"
        return HttpBackend(f"{scheme}://{self.authority}", **options)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._script(Peer(self, (reader, writer)))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the gateway hung up, or the test is over
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()


def playing(*answers: bytes) -> Script:
    """The same answers on every connection, one a request; after the last the connection is left open."""

    async def script(peer: Peer) -> None:
        for data in answers:
            await peer.request()
            await peer.send(data)
        await peer.gone()

    return script


def echoing(data: bytes) -> Script:
    """The same answer for ever."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(data)

    return script


async def silent(peer: Peer) -> None:
    """Read everything, never answer."""
    while True:
        await peer.request()


def soon(seconds: float = LONG) -> float:
    """A deadline."""
    return asyncio.get_running_loop().time() + seconds


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG):
        while not condition():
            await anyio.lowlevel.checkpoint()
