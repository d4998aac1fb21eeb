"""One HTTP/1.1 upstream at one address: a replica.

One attempt per call, and one repetition in a single case: a kept-alive connection that the upstream closed as
the request was written, when repeating is allowed and the whole request is at hand. Redirects, cookies, encodings
and proxies are the client's business: answers pass through as they are, whatever their status.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.backends import tls
from gateway.backends.answer import Limits
from gateway.backends.base import Timeouts
from gateway.backends.faults import Unanswered
from gateway.backends.hop import OWN_FIELDS, end_to_end
from gateway.backends.pool import Pool
from gateway.backends.upload import answered
from gateway.errors import BackendError, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gateway.backends.base import Answer, Request

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"})
WITHOUT_BODY = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS"})  # no length is sent for no body
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9110 5.6.2
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
TIMEOUTS = Timeouts()
PORTS = {"http": 80, "https": 443}


class HttpBackend:
    def __init__(
        self,
        url: str,
        *,
        ca: Path | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        idempotent: bool = False,
        timeouts: Timeouts = TIMEOUTS,
        max_connections: int = 1024,  # as many as Envoy allows a cluster
        max_waiting: int = 1024,
        max_idle: int = 256,
        max_head: int = 64 << 10,
        max_body: int = 64 << 20,
    ) -> None:
        """`url` is http[s]://host[:port][/prefix]; the prefix goes before every target. `ca` is a PEM file of
        authorities in the place of the system's. `headers` are set on every request, in the place of the
        client's of the same name; `idempotent` allows a second sending where a request's method alone does not.
        `max_body` is for answers that are collected whole."""
        scheme, host, port, authority, prefix = _split(url)
        if ca is not None and scheme != "https":
            raise ValueError(f"{url}: certificates have no meaning without https://")
        own = [(b"host", authority), *_settable(headers)]
        self._start = b" " + prefix
        self._fixed = b" HTTP/1.1\r\n" + b"\r\n".join(map(b": ".join, own))
        self._dropped = OWN_FIELDS | {name for name, _ in own}
        self._idempotent = idempotent
        self.url = url
        self.pool = Pool(
            host,
            port,
            Limits(max_head, max_body),
            tls=tls.context(ca) if scheme == "https" else None,
            timeouts=timeouts,
            max_connections=max_connections,
            max_waiting=max_waiting,
            max_idle=max_idle,
        )

    async def call(self, request: Request, deadline: float) -> Answer:
        head = self._head(request)
        pool = self.pool
        now = asyncio.get_running_loop().time()
        connection = (pool.take(now) if now < deadline else None) or await pool.acquire(deadline)
        tries = 1
        while True:
            future = connection.send(head, request, deadline)
            try:
                answer = await (future if request.upload is None else answered(connection, future, request))
            except BackendError as failure:
                failure.tries = tries
                connection.give_up(future)
                # The keep-alive race. The upstream may have acted on what it read, so only a request that may be
                # repeated is.
                raced = isinstance(failure, Unanswered) and connection.served
                if not raced or not self.may_repeat(request):
                    raise
            except BaseException:
                connection.give_up(future)
                raise
            else:
                answer.tries = tries
                return answer
            finally:
                del future  # its exception's traceback keeps this frame, which would keep it, and the request with both
            tries += 1
            connection = await pool.acquire(deadline, fresh=True)

    def may_repeat(self, request: Request) -> bool:
        """Whether it may be sent again when nobody knows what became of it; what an upload sent is gone."""
        return request.upload is None and (self._idempotent or request.method in IDEMPOTENT)

    async def close(self) -> None:
        self.pool.close()
        await asyncio.sleep(0)  # transports report their end in the next tick

    def _head(self, request: Request) -> bytes:
        """The head as it is sent; ValueError if it would be more than one, RequestError if the body would be."""
        start = request.method + self._start + request.target
        lines = [start, *map(b": ".join, end_to_end(request.headers, self._dropped)), *_framing(request), b"", b""]
        text = b"".join(lines)
        if 10 in text or 13 in text:  # LF, CR: numbers are looked for three times as fast as bytes
            raise ValueError("a line break inside the method, target or headers of a request")
        lines[0] = start + self._fixed
        return b"\r\n".join(lines)


def _framing(request: Request) -> tuple[bytes, ...]:
    """The field that tells where the body ends, if any is needed."""
    if request.upload is None:
        length = len(request.body)
        return (b"content-length: %d" % length,) if length or request.method not in WITHOUT_BODY else ()
    if request.length is None:
        return (b"transfer-encoding: chunked",)
    if request.length < len(request.body):
        raise RequestError("the body is longer than its content-length")
    return (b"content-length: %d" % request.length,)


def _settable(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    own = [(name.lower(), value) for name, value in headers]
    for name, value in own:
        if name in OWN_FIELDS:
            raise ValueError(f"{name.decode()}: this field is written for each request and cannot be set")
        if not TOKEN.fullmatch(name) or CONTROL.search(value):
            raise ValueError(f"{name!r}: not a header field")  # its value may be a secret
    return own


def is_secure(url: str) -> bool:
    """Whether it is an https:// one."""
    return urlsplit(url).scheme == "https"


def _split(url: str) -> tuple[str, str, int, bytes, bytes]:
    """Scheme, host, port, authority and path prefix of an upstream's URL; ValueError says what is wrong with it."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r}: only printable ASCII without spaces")
    parts = urlsplit(url)
    if parts.scheme not in PORTS:
        raise ValueError(f"{url}: only http:// and https:// upstreams are supported")
    if not parts.hostname:
        raise ValueError(f"{url}: no host")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"{url}: user, query and fragment have no meaning here")
    default = PORTS[parts.scheme]
    port = default if parts.port is None else parts.port
    authority = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if port != default:
        authority += f":{port}"
    return parts.scheme, parts.hostname, port, authority.encode(), parts.path.rstrip("/").encode()
