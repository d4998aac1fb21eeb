"""Bytes of an upstream in, one strictly parsed answer out. No I/O and no clock.

A reader serves one connection: `begin` before each request, then `feed` with what arrives until that returns
True. `answer` is taken then, or, for one that `streams`, as soon as its head is whole; what each further `feed`
brings is taken by `take`. A BackendError from `feed` is final for the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import httptools

from gateway.backends.base import Answer
from gateway.backends.faults import AnswerHeadTooLarge, AnswerTooLarge, ProtocolFault
from gateway.backends.hop import HOP, USUAL, named_by
from gateway.errors import BackendError

if TYPE_CHECKING:
    from gateway.backends.base import Body, Headers

VERSION = b"HTTP/1."  # llhttp would also take HTTP/0.9, HTTP/2.0, RTSP and ICE
FRAMED = HOP | {b"content-length"}  # the caller frames the body anew
HELD = 64 << 10  # an answer that declares no more is never streamed: truncated, it can still be answered anew
MAX_FIELDS = 512
CHUNKING = 8  # a chunk of one byte takes six on the wire; what exceeds this is head, trailers or extensions


class Limits(NamedTuple):
    """What an answer may take, in bytes; a streamed one has any size."""

    head: int
    body: int


class AnswerReader:
    __slots__ = (
        "_bodiless",
        "_complete",
        "_fault",
        "_framing",
        "_headers",
        "_limits",
        "_parser",
        "_parts",
        "_persistent",
        "_size",
        "_stray",
        "_until_eof",
        "_whole",
        "received",
        "status",
        "streams",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parser = httptools.HttpResponseParser(self)
        self.begin(bodiless=False)

    def begin(self, *, bodiless: bool, whole: bool = True) -> None:
        """Expect an answer. A `bodiless` one (to HEAD) ends with its head, whatever length it declares; one that
        need not be collected `whole` may be streamed."""
        self._headers: Headers = []  # of the message being parsed: what travels on
        self._framing: Headers = []  # and what does not
        self._parts: list[bytes] = []
        self._fault: BackendError | None = None
        self._size = 0
        self.status = 0  # 0 until the head of the final answer is whole: 1xx heads do not count
        self._bodiless = bodiless
        self._whole = whole
        self._persistent = False
        self._until_eof = False
        self._complete = False
        self._stray = False
        self.received = 0
        self.streams = False  # its head is here, and the body may be passed on as it comes

    def feed(self, data: bytes) -> bool:
        """Take bytes; True once the answer is whole."""
        received = self.received
        if received < len(VERSION) and not data.startswith(VERSION[received : received + len(data)]):
            raise ProtocolFault("the answer does not start with HTTP/1")
        self.received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                raise self._fault or ProtocolFault(f"invalid HTTP from the upstream: {error}") from None
            self._stray = True
        if self._complete:
            if self._bodiless and not data.endswith(b"\r\n\r\n"):
                self._stray = True
            return True
        if self.received > self._limits.head + CHUNKING * self._size:
            raise AnswerHeadTooLarge(f"more than {self._limits.head} bytes of head, trailers or chunk framing")
        return False

    def feed_eof(self) -> bool:
        """The upstream closed; True if that is how this answer ends."""
        return self._until_eof

    def answer(self, rest: Body | None = None) -> Answer:
        return Answer(self.status, self._headers, self.take(), rest)

    def take(self) -> bytes:
        """What has come of the body since it was last taken."""
        parts = self._parts
        if len(parts) == 1:
            return parts.pop()
        body = b"".join(parts)
        parts.clear()
        return body

    def renew(self) -> bool:
        """After a whole answer: whether another may follow on this connection. Not if bytes came after it:
        they would be taken for the next one."""
        if not self._persistent or self._stray:
            return False
        if self._bodiless:
            self._parser = httptools.HttpResponseParser(self)  # the old one still waits for the body
        return True

    def dispose(self) -> None:
        """The parser holds our bound methods: a cycle that only the collector would free."""
        del self._parser

    @property
    def progress(self) -> str:
        if not self.received:
            return "nothing received"
        return f"{self._size} bytes of the body received" if self.status else "head unfinished"

    # -- callbacks of httptools.HttpResponseParser; an exception in one stops the parser

    def on_message_begin(self) -> None:
        if self._complete:
            self._stray = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # a trailer, or the head of an answer to nothing
        name = name.lower()
        (self._framing if name in FRAMED else self._headers).append((name, value))

    def on_headers_complete(self) -> None:
        if self._complete:
            return  # the head of an answer to nothing
        status = self._parser.get_status_code()
        self._check_head()
        if status < 200:
            if status == 101:
                self._refuse(ProtocolFault("101 Switching Protocols, which nobody asked for"))
            return
        self.status = status
        self._persistent = self._parser.should_keep_alive()
        length = self._delimit(keeps_length=self._bodiless or status == 304)
        if self._bodiless:
            self._complete = True
        elif self._whole:
            if length is not None and length > self._limits.body:
                self._refuse(AnswerTooLarge(f"{length} bytes of body, the limit is {self._limits.body}"))
        else:
            self.streams = length is None or length > HELD
            if length is not None and self.streams:
                self._headers.append((b"content-length", b"%d" % length))

    def _check_head(self) -> None:
        limit = self._limits.head
        headers, framing = self._headers, self._framing
        if self.received > limit and sum(len(name) + len(value) + 4 for name, value in headers + framing) > limit:
            self._refuse(AnswerHeadTooLarge(f"more than {limit} bytes of head"))
        if len(headers) + len(framing) > MAX_FIELDS:
            self._refuse(AnswerHeadTooLarge(f"more than {MAX_FIELDS} header fields"))

    def _delimit(self, *, keeps_length: bool) -> int | None:
        """Where the body ends, by the fields about that; the length if it is declared."""
        length: int | None = None
        codings: list[bytes] = []
        for field in self._framing:
            name, value = field
            if name == b"content-length":
                length = int(value)  # llhttp has refused what is no number, and a second one
                if keeps_length:
                    self._headers.append(field)
            elif name == b"transfer-encoding":
                codings.append(value.strip().lower())
            elif name == b"connection" and value not in USUAL and (named := named_by([field])):
                self._headers = [kept for kept in self._headers if kept[0] not in named]
        if codings:
            self._check_codings(codings)
        self._until_eof = length is None and not codings and not self._persistent
        return length

    def _check_codings(self, codings: list[bytes]) -> None:
        """Chunked alone is understood; any other coding would reach the client undecoded and unnamed, and in
        an HTTP/1.0 answer the field means that the framing cannot be trusted (RFC 9112 6.1)."""
        if codings != [b"chunked"] or self._parser.get_http_version() == "1.0":
            self._refuse(ProtocolFault("a transfer-encoding that cannot be relied on"))

    def on_body(self, body: bytes) -> None:
        if self._complete:
            self._stray = True
            return
        self._size += len(body)
        if self._whole and self._size > self._limits.body:
            self._refuse(AnswerTooLarge(f"more than {self._limits.body} bytes of body"))
        self._parts.append(body)

    def on_message_complete(self) -> None:
        if self.status:
            self._complete = True
        else:
            self._headers, self._framing = [], []

    def _refuse(self, error: BackendError) -> None:
        """httptools puts an error of its own in the place of ours, so ours is kept aside."""
        self._fault = error
        raise error
