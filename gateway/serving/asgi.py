"""The few ASGI words that the data path uses, and one exchange of a request for an answer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from gateway.errors import BodyTooLarge, ClientGone, RequestError, UnsupportedEncoding
from gateway.serving.wire.forwarding import Peer, Proxies

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

DIRECT = "gateway.direct"  # where a server of ours puts its `Direct` in the scope
CROWDED = "gateway.crowded"  # in the scope of the one request on a connection that is one too many
PEER = "gateway.peer"  # where it puts the `Peer` of the connection
REQUEST_ID = b"x-request-id"
_LONGEST_ID = 128
_BODILESS = (204, 304)


class Direct(Protocol):
    """What our own server offers beside messages: the common case at once, without a message and without waiting."""

    scope: Scope  # which it belongs to; the application may have made another of it
    fields: dict[bytes, bytes]  # its headers by name, of repeated ones the last; not to be changed

    def taken(self) -> bytes | None:
        """The body, or what is left of it; None if not all of it is here, or any other than the common case: `receive`
        tells."""

    def reply(self, status: int, headers: Headers, body: bytes) -> bool:
        """Send a whole answer, its content-length added; False, and nothing sent, if it is not the common case:
        `send` it."""


class Server(Protocol):
    draining: bool  # about to stop: every answer asks its client to open a new connection
    proxies: Proxies


class Exchange:
    """One request being answered: what came in, and the only two ways to read and answer it."""

    __slots__ = (
        "_direct",
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
        direct: Direct | None = scope.get(DIRECT)
        self.scope = scope
        self.headers = dict(fields) if direct is None or direct.scope is not scope else direct.fields
        self.repeated: frozenset[bytes] = _NONE if len(self.headers) == len(fields) else _repeated(fields)
        self.request_id = self._own_id()
        self.started = started  # monotonic seconds
        self.answered = False  # the answer has begun: nothing else can be said any more
        self._direct = direct
        self._server = server
        self._endless = False  # the rest of the body will not be read
        self._receive = receive
        self._send = send

    @property
    def draining(self) -> bool:
        return self._server.draining

    def forwarding(self) -> Headers:
        """The fields that tell an upstream for whom it is asked; not to be changed."""
        peer: Peer | None = self.scope.get(PEER)
        if peer is None:
            client = self.scope.get("client")
            peer = Peer(client[0] if client else None)
        return peer.fields(self.scope["headers"], self.headers, self._server.proxies)

    def once(self, name: bytes) -> bytes | None:
        """A header that decides something; raises RequestError if it comes twice, for which one counts?"""
        if name in self.repeated:
            raise RequestError(f"the header {name.decode()} must not be repeated")
        return self.headers.get(name)

    async def plain_body(self, limit: int) -> bytes:
        """The whole body, of which something is read here; raises UnsupportedEncoding if it is coded."""
        coding = self.headers.get(b"content-encoding", b"").strip().lower()
        if coding not in (b"", b"identity"):
            raise UnsupportedEncoding(
                f"bodies with the content-encoding {coding.decode('latin-1')!r} are not read here"
            )
        return await self.body(limit)

    async def body(self, limit: int) -> bytes:
        """The whole body; raises BodyTooLarge beyond `limit` bytes (before reading, where declared)."""
        if (body := self._arrived(limit)) is not None:
            return body
        self._declared_length(limit)
        return await self._whole(limit)

    def _arrived(self, limit: int) -> bytes | None:
        """The whole body, if our own server has it already; it has also seen to what was declared."""
        body = None if self._direct is None else self._direct.taken()
        if body is not None and len(body) > limit:
            raise BodyTooLarge(f"the body has {len(body)} bytes, the limit is {limit}")
        return body

    async def _whole(self, limit: int) -> bytes:
        body, more = await self._piece()
        if not more and len(body) <= limit:
            return body
        parts = bytearray(body)
        async for piece in self._pieces(len(body), limit, more):
            parts += piece
        return bytes(parts)

    async def upload(self, limit: int, held: int) -> tuple[bytes, AsyncIterator[bytes] | None, int | None]:
        """The body so far, what is still to come (None: nothing), and the length of both where it is known.

        Up to `held` declared bytes are awaited whole. The iterator raises ClientGone and BodyTooLarge.
        """
        if (body := self._arrived(limit)) is not None:
            return body, None, len(body)
        declared = self._declared_length(limit)
        if declared is not None and declared <= held:
            return await self._whole(limit), None, declared
        body, more = await self._piece()
        if not more and len(body) <= limit:
            return body, None, declared
        return body, self._pieces(len(body), limit, more), declared

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer; `content-length` and the request id are added here."""
        headers = self._head(headers)
        if self._direct is not None and self._direct.reply(status, headers, body):
            return
        # The length of an answer to HEAD is what its headers already say, if it has no body to say it.
        if status not in _BODILESS and (body or self.scope["method"] != "HEAD"):
            headers.append((b"content-length", b"%d" % len(body)))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, status: int, headers: Headers, piece: bytes) -> None:
        """Send the head of an answer whose body comes piece by piece, and the first piece; `end` it."""
        await self._send({"type": "http.response.start", "status": status, "headers": self._head(headers)})
        await self.more(piece)

    async def more(self, piece: bytes) -> None:
        """Send a piece of the body; waits while the client is slow to read."""
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    def _head(self, headers: Headers) -> Headers:
        """The answer begins: its fields and ours."""
        self.answered = True
        headers = [*headers, (REQUEST_ID, self.request_id)]
        if self._endless or self._server.draining:
            headers.append((b"connection", b"close"))
        return headers

    async def _pieces(self, size: int, limit: int, more: bool) -> AsyncIterator[bytes]:
        """What comes behind the first `size` bytes of the body."""
        while size <= limit:
            if not more:
                return
            piece, more = await self._piece()
            size += len(piece)
            if size <= limit:
                yield piece
        self._endless = True
        raise BodyTooLarge(f"the body exceeds the limit of {limit} bytes")

    async def _piece(self) -> tuple[bytes, bool]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client left while sending the body")
        return message.get("body", b""), message.get("more_body", False)

    def _declared_length(self, limit: int) -> int | None:
        declared = self.once(b"content-length")
        if declared is None:
            return None
        if not declared.isdigit() or len(declared) > 18:
            raise RequestError("content-length must be a number of bytes")
        length = int(declared)
        if length > limit:
            raise BodyTooLarge(f"the body has {length} bytes, the limit is {limit}")
        return length

    def _own_id(self) -> bytes:
        """The client's own id, so that its retries are recognised, or a fresh one."""
        if REQUEST_ID not in self.headers:
            return fresh_id()
        given = self.once(REQUEST_ID) or b""
        if not 0 < len(given) <= _LONGEST_ID or not given.isascii() or not given.decode().isprintable():
            raise RequestError(f"x-request-id must be 1 to {_LONGEST_ID} printable ASCII characters")
        return given


def fresh_id() -> bytes:
    """A request id. It is no secret, and the kernel's randomness would cost 5 us a request."""
    return b"%032x" % random.getrandbits(128)


_NONE: frozenset[bytes] = frozenset()


def _repeated(fields: Headers) -> frozenset[bytes]:
    return frozenset(name for name, times in Counter(name for name, _ in fields).items() if times > 1)
