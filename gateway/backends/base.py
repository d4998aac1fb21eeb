"""What a backend is: one call, one answer, before a deadline.

A backend knows nothing of variants, experiments or retries between them; it makes one attempt and says how
that went. Whatever goes wrong with the attempt is a `BackendError`, whose `kind` is the bounded word that
logs and metrics use: connect, deadline, incomplete, protocol, output.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, TypeAlias

import msgspec

from gateway.errors import BackendError

Headers: TypeAlias = list[tuple[bytes, bytes]]  # names in lower case
Upload: TypeAlias = AsyncIterator[bytes]  # the rest of a request's body, as it comes from the client


class Request(msgspec.Struct, frozen=True, gc=False):
    """What to ask. `target` is the path and query, still percent-encoded; `idempotent` allows a second
    sending where the method alone does not. What follows `body` comes from `upload`: with a declared `length` of both
    together, or in chunks; such a request is sent once. Unless `whole`, the answer is returned with its head."""

    method: bytes
    target: bytes
    headers: Headers
    body: bytes = b""
    idempotent: bool = False
    upload: Upload | None = None
    length: int | None = None
    whole: bool = True


class Body(Protocol):
    """What is still to come of an answer; one reader, once. Its owner closes it, whatever happens."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Pieces as they come; raises a BackendError if the answer ends too early or stalls."""

    async def aclose(self) -> None:
        """Give up the rest: the upstream connection is closed at once. Does nothing after the end."""


class Answer(msgspec.Struct, gc=False):
    """What came back, of whatever status. `headers` are end-to-end only; content-length is among them only
    where the body cannot tell it (HEAD, 304)."""

    status: int
    headers: Headers
    body: bytes
    rest: Body | None = None  # None: `body` is whole


class Backend(Protocol):
    async def call(self, request: Request, deadline: float) -> Answer:
        """Answer before `deadline` (seconds of the loop's clock) or raise a BackendError."""

    async def close(self) -> None:
        """Take no more calls and keep nothing open for later; calls under way may finish."""


class Incomplete(BackendError):
    """The answer ended before it was whole."""

    reason = "backend_incomplete"
    kind = "incomplete"


class Unanswered(Incomplete):
    """The connection ended before a single byte of the answer; the request may or may not have been read."""


class ProtocolFault(BackendError):
    """The bytes that came back are not an HTTP/1 answer."""

    reason = "backend_protocol"
    kind = "protocol"
