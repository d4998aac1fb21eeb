"""A variant served by an HTTP/1.1 upstream.

One attempt per call, and one repetition in a single case: a kept-alive connection that the upstream closed as
the request was written, when repeating is allowed. Redirects, cookies, encodings and proxies are the client's
business: answers pass through as they are, whatever their status.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.backends.answer import Limits
from gateway.backends.base import Unanswered
from gateway.backends.hop import HOP, end_to_end
from gateway.backends.pool import Pool
from gateway.errors import BackendTimeout

if TYPE_CHECKING:
    from gateway.backends.base import Answer, Request
    from gateway.backends.connection import Connection

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"})
WITHOUT_BODY = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS"})  # no length is sent for no body
OURS = HOP | {b"host", b"content-length", b"expect"}  # written, or answered, by this side of the gateway


class HttpBackend:
    def __init__(
        self,
        url: str,
        *,
        connect_timeout: float = 1.0,
        max_connections: int = 256,
        max_waiting: int = 1024,
        max_idle: int = 64,
        keepalive: float = 4.0,  # below the 5 s after which uvicorn, the commonest upstream, closes
        max_head: int = 64 << 10,
        max_body: int = 64 << 20,
    ) -> None:
        """`url` is http://host[:port][/prefix]; the prefix goes before every target."""
        host, port, authority, prefix = _split(url)
        self._start = b" " + prefix
        self._host = b" HTTP/1.1\r\nhost: " + authority
        self.pool = Pool(
            host,
            port,
            Limits(max_head, max_body),
            connect_timeout=connect_timeout,
            max_connections=max_connections,
            max_waiting=max_waiting,
            max_idle=max_idle,
            keepalive=keepalive,
        )

    async def call(self, request: Request, deadline: float) -> Answer:
        head = self._head(request)
        pool = self.pool
        if not pool.claim():
            await pool.wait(deadline)
        try:
            now = asyncio.get_running_loop().time()
            if now >= deadline:
                raise BackendTimeout("the deadline had passed before the request was sent")
            connection = pool.reuse(now)
            if connection is not None:
                try:
                    return await self._exchange(connection, head, request, deadline)
                except Unanswered:
                    # The keep-alive race. The upstream may have acted on what it read, so only a request
                    # that may be repeated is.
                    if not request.idempotent and request.method not in IDEMPOTENT:
                        raise
            connection = await pool.open(deadline)
            return await self._exchange(connection, head, request, deadline)
        finally:
            pool.release()

    async def close(self) -> None:
        self.pool.close()
        await asyncio.sleep(0)  # transports report their end in the next tick

    async def _exchange(self, by: Connection, head: bytes, request: Request, deadline: float) -> Answer:
        try:
            return await by.send(head, request.body, deadline, bodiless=request.method == b"HEAD")
        finally:
            self.pool.put(by, asyncio.get_running_loop().time())

    def _head(self, request: Request) -> bytes:
        lines = [b": ".join(field) for field in end_to_end(request.headers, OURS)]
        if request.body or request.method not in WITHOUT_BODY:
            lines.append(b"content-length: %d" % len(request.body))
        ends = len(lines) + 3
        head = b"\r\n".join([request.method + self._start + request.target + self._host, *lines, b"", b""])
        if head.count(b"\n") != ends or head.count(b"\r") != ends:
            raise ValueError("a line break inside the method, target or headers of a request")
        return head


def _split(url: str) -> tuple[str, int, bytes, bytes]:
    """Host, port, authority and path prefix of an upstream's URL; ValueError says what is wrong with it."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r}: only printable ASCII without spaces")
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise ValueError(f"{url}: only http:// upstreams are supported")
    if not parts.hostname:
        raise ValueError(f"{url}: no host")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"{url}: user, query and fragment have no meaning here")
    port = 80 if parts.port is None else parts.port
    authority = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if port != 80:
        authority += f":{port}"
    return parts.hostname, port, authority.encode(), parts.path.rstrip("/").encode()
