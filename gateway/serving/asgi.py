"""The few ASGI words that the data path uses, and one exchange of a request for an answer."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.errors import BodyTooLarge, ClientGone, RequestError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

REQUEST_ID = b"x-request-id"
_LONGEST_ID = 128


class Exchange:
    """One request being answered: what came in, and the only two ways to read and answer it."""

    __slots__ = ("_receive", "_send", "closing", "headers", "request_id", "scope", "started")

    def __init__(self, scope: Scope, receive: Receive, send: Send, started: float, closing: bool) -> None:
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = _request_id(self.headers.get(REQUEST_ID))
        self.started = started  # monotonic seconds
        self.closing = closing  # the worker drains: ask the client to open a new connection
        self._receive = receive
        self._send = send

    async def body(self, limit: int) -> bytes:
        """The whole body; raises BodyTooLarge beyond `limit` bytes (before reading, where declared)."""
        declared = self.headers.get(b"content-length")
        if declared is not None and int(declared) > limit:
            raise BodyTooLarge(f"the body has {int(declared)} bytes, the limit is {limit}")
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
                raise BodyTooLarge(f"the body exceeds the limit of {limit} bytes")
            if not message.get("more_body"):
                return bytes(parts)
            message = await self._receive()

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer; `content-length` and the request id are added here."""
        headers = [*headers, (b"content-length", b"%d" % len(body)), (REQUEST_ID, self.request_id)]
        if self.closing:
            headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _request_id(given: bytes | None) -> bytes:
    """The client's own id, so that its retries are recognised, or a fresh one."""
    if given is None:
        return secrets.token_hex(16).encode()
    if not 0 < len(given) <= _LONGEST_ID or not given.isascii() or not given.decode().isprintable():
        raise RequestError(f"x-request-id must be 1 to {_LONGEST_ID} printable ASCII characters")
    return given
