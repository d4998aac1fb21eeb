"""What a backend is: one call, one answer, before a deadline.

A backend knows nothing of variants, experiments or retries between them; it makes one attempt and says how
that went. What goes wrong with the attempt is a `BackendError`, whose `kind` is the bounded word that logs and metrics
use: connect, deadline, incomplete, protocol, output (and breaker, where none was made). `OutOfDescriptors` is none: it
says nothing of who would have answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

Headers: TypeAlias = list[tuple[bytes, bytes]]  # names in lower case
Upload: TypeAlias = AsyncIterator[bytes]  # the rest of a request's body, as it comes from the client


class Timeouts(NamedTuple):
    """Of an upstream, in seconds; a call has a deadline of its own beside them."""

    connect: float = 1.0  # name, TCP and TLS together
    first_byte: float = inf  # from the whole request to the first byte of the answer
    idle: float = 30.0  # between two pieces of an answer
    upload: float = 300.0  # for the body of a request that is passed on while it comes
    keepalive: float = 4.0  # of an idle connection; below the 5 s after which uvicorn, the commonest upstream, closes


class Request(msgspec.Struct, frozen=True, gc=False):
    """What to ask. `target` is the path and query, still percent-encoded."""

    method: bytes
    target: bytes
    headers: Headers
    body: bytes = b""
    upload: Upload | None = None  # what follows `body`; None: `body` is whole
    length: int | None = None  # in bytes, of `body` and `upload` together; None with an upload: chunked
    whole: bool = True  # collect the whole answer before returning it


class Body(Protocol):
    """What is still to come of a streamed answer, for one reader and once.

    It holds a connection until it has ended, so whoever has it reads it to its end or closes it. A reader that
    is cancelled while it waits for a piece has closed it.
    """

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Pieces as they come, none of them empty; a BackendError if they end too early or stall."""

    def close(self) -> None:
        """Give up the rest and close its connection at once; nothing happens if it has ended."""


class Answer(msgspec.Struct, gc=False):
    """What came back, of whatever status. `headers` are end-to-end only; content-length is among them only
    where the body cannot tell it (HEAD, 304), or not yet (`rest`)."""

    status: int
    headers: Headers
    body: bytes
    rest: Body | None = None  # what follows `body`; None: `body` is whole
    tries: int = 1  # how often the request was sent, or was tried to


class Backend(Protocol):
    async def call(self, request: Request, deadline: float) -> Answer:
        """Answer before `deadline` (seconds of the loop's clock) or raise a BackendError, or OutOfDescriptors.

        A streamed answer is one once its head is here. With an `upload` the time until the deadline begins when that
        has ended; RequestTimeout if it does not end. What `upload` raises passes through unchanged; it is not read any
        more once this has returned."""

    async def close(self) -> None:
        """Take no more calls and keep nothing open for later; calls under way may finish."""
