"""Bytes of clients: cut anywhere they are the same requests, and what is no request is refused, never worse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.serving.asgi import PEER, Scope
from gateway.serving.http1.head import DEFAULTS, Limits
from gateway.serving.http1.reader import SLICE, RequestReader
from tests.fuzz.mutations import CUTS, cut, edited
from tests.fuzz.profile import FUZZ, frugal

TIGHT = Limits(head=SLICE + 200, fields=6, target=40)
VALID = [
    b"GET /a/b?q=%20 HTTP/1.1\r\nHost: gateway\r\nX-User-Id: 7\r\n\r\n",
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: gateway:80\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nok",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]\r\n\r\n",
    b"HEAD http://g/x?y HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
]
TOKENS = (
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b"\xff", b":", b",", b"\r\n\r\n", b"0\r\n\r\n", b"5\r\n", b"-1"),
    *(b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"CONNECT", b"TRACE", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"//", b"#"),
    *(b"Content-Length: 3\r\n", b"Content-Length: +3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: x\r\n"),
    *(b"Transfer-Encoding: gzip, chunked\r\n", b"Expect: x\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n"),
    *(b"ffffffffffffffffffff\r\n", b"x" * 50, b"X: y\r\n"),
)
STREAM = st.lists(edited(VALID, TOKENS), min_size=1, max_size=3).map(b"".join)
SOUND = st.lists(st.sampled_from(VALID), min_size=1, max_size=5).map(b"".join)


@dataclass
class Seen:
    """A request as it was handed over: what the reader needs of an exchange, and what can be compared."""

    scope: Scope
    fields: dict[bytes, bytes]
    expects: bool
    persistent: bool
    body: bytes = b""
    whole: bool = False
    size: int = 0

    def add(self, piece: bytes) -> None:
        assert not self.whole
        self.body += piece
        self.size += len(piece)

    def complete(self) -> None:
        assert not self.whole
        self.whole = True


@dataclass
class Heard:
    """What came of a stream of bytes."""

    requests: list[Seen] = field(default_factory=list)
    refused: type[GatewayError] | None = None

    @property
    def whole(self) -> list[Seen]:
        return [request for request in self.requests if request.whole]


def heard(pieces: list[bytes], limits: Limits = DEFAULTS) -> Heard:
    found = Heard()

    def begin(scope: Scope, fields: dict[bytes, bytes], expects: bool, persistent: bool) -> Any:
        del scope[PEER]  # of the connection, and each has its own
        found.requests.append(Seen(scope, fields, expects, persistent))
        return found.requests[-1]

    reader = RequestReader(begin, limits, ("127.0.0.1", 1), ("127.0.0.1", 80))
    with frugal():
        try:
            for piece in pieces:
                for start in range(0, len(piece), SLICE):
                    reader.feed(piece[start : start + SLICE])
        except GatewayError as error:
            found.refused = type(error)
    assert found.refused is None or 400 <= found.refused.status < 500 or found.refused.status in (501, 505)
    reader.dispose()
    return found


@FUZZ
@given(SOUND, CUTS)
def test_requests_are_the_same_however_they_are_cut(stream: bytes, cuts: list[int]) -> None:
    at_once = heard([stream])
    assert at_once.refused is None
    assert at_once.requests
    assert heard(cut(stream, cuts)) == at_once


@FUZZ
@given(STREAM, CUTS)
def test_what_is_no_request_is_refused_however_it_is_cut(stream: bytes, cuts: list[int]) -> None:
    at_once, pieces = heard([stream]), heard(cut(stream, cuts))
    assert pieces.whole == at_once.whole
    assert pieces.refused == at_once.refused


@FUZZ
@given(STREAM)
def test_bytes_one_by_one_are_the_same_requests(stream: bytes) -> None:
    at_once, bytewise = heard([stream]), heard(cut(stream, range(len(stream))))
    assert bytewise.whole == at_once.whole
    assert bytewise.refused == at_once.refused


@FUZZ
@given(STREAM, CUTS)
def test_limits_are_kept_whatever_comes(stream: bytes, cuts: list[int]) -> None:
    for request in heard(cut(stream, cuts), TIGHT).requests:
        assert len(request.fields) <= TIGHT.fields
        assert len(request.scope["raw_path"]) <= TIGHT.target


@FUZZ
@given(st.binary(max_size=200), CUTS)
def test_random_bytes_are_no_requests(data: bytes, cuts: list[int]) -> None:
    assert heard(cut(data, cuts)).whole == []


def test_a_sound_stream_cut_at_every_place() -> None:
    stream = b"".join(VALID)
    at_once = heard([stream])
    for place in range(1, len(stream)):
        assert heard([stream[:place], stream[place:]]) == at_once
