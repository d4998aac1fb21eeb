"""The few ASGI words that the data path uses, and one exchange of a request for an answer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from gateway.errors import BodyTooLarge, ClientGone, RequestError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

REQUEST_ID = b"x-request-id"
_LONGEST_ID = 128
_BODILESS = (204, 304)


class Server(Protocol):
    draining: bool  # about to stop: every answer asks its client to open a new connection


class Exchange:
    """One request being answered: what came in, and the only two ways to read and answer it."""

    __slots__ = (
        "_endless",
        "_receive",
        "_send",
        "_server",
        "answered",
        "headers",
        "repeated",
        "request_id",
        "scope",
        "started",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, started: float, server: Server) -> None:
        fields: Headers = scope["headers"]
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(fields)
        self.repeated: frozenset[bytes] = _NONE if len(self.headers) == len(fields) else _repeated(fields)
        self.request_id = self._own_id()
        self.started = started  # monotonic seconds
        self.answered = False  # the answer has begun: nothing else can be said any more
        self._server = server
        self._endless = False  # the rest of the body will not be read
        self._receive = receive
        self._send = send

    @property
    def draining(self) -> bool:
        return self._server.draining

    def once(self, name: bytes) -> bytes | None:
        """A header that decides something; raises RequestError if it comes twice, for which one counts?"""
        if name in self.repeated:
            raise RequestError(f"the header {name.decode()} must not be repeated")
        return self.headers.get(name)

    async def body(self, limit: int) -> bytes:
        """The whole body; raises BodyTooLarge beyond `limit` bytes (before reading, where declared)."""
        declared = self._declared_length()
        if declared > limit:
            raise BodyTooLarge(f"the body has {declared} bytes, the limit is {limit}")
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            body: bytes = message.get("body", b"")
            if len(body) <= limit:
                return body
        parts = bytearray()
        while True:
            if message["type"] == "http.disconnect":
                raise ClientGone("the client left while sending the body")
            parts += message.get("body", b"")
            if len(parts) > limit:
                self._endless = True
                raise BodyTooLarge(f"the body exceeds the limit of {limit} bytes")
            if not message.get("more_body"):
                return bytes(parts)
            message = await self._receive()

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer; `content-length` and the request id are added here."""
        headers = [*headers, (REQUEST_ID, self.request_id)]
        # The length of an answer to HEAD is what its headers already say, if it has no body to say it.
        if status not in _BODILESS and (body or self.scope["method"] != "HEAD"):
            headers.append((b"content-length", b"%d" % len(body)))
        if self._endless or self._server.draining:
            headers.append((b"connection", b"close"))
        self.answered = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _declared_length(self) -> int:
        declared = self.once(b"content-length")
        if declared is None:
            return 0
        if not declared.isdigit() or len(declared) > 18:
            raise RequestError("content-length must be a number of bytes")
        return int(declared)

    def _own_id(self) -> bytes:
        """The client's own id, so that its retries are recognised, or a fresh one."""
        given = self.once(REQUEST_ID)
        if given is None:
            return fresh_id()
        if not 0 < len(given) <= _LONGEST_ID or not given.isascii() or not given.decode().isprintable():
            raise RequestError(f"x-request-id must be 1 to {_LONGEST_ID} printable ASCII characters")
        return given


def fresh_id() -> bytes:
    """A request id. It is no secret, and the kernel's randomness would cost 5 us a request."""
    return b"%032x" % random.getrandbits(128)


_NONE: frozenset[bytes] = frozenset()


def _repeated(fields: Headers) -> frozenset[bytes]:
    return frozenset(name for name, times in Counter(name for name, _ in fields).items() if times > 1)
