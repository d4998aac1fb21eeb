"""Requests that are refused before anybody is asked, and those that look odd and are answered."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys

import pytest

from gateway.errors import RequestError
from gateway.serving.http1.head import Limits
from tests.unit.serving.http1_peer import GET, Peer, Script, answering, settle, status

pytestmark = pytest.mark.anyio
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def head(line: bytes = b"GET / HTTP/1.1", *fields: bytes) -> bytes:
    return b"\r\n".join([line, *fields, b"", b""])


REFUSED = {
    "no host": (head(), 400),
    "two hosts": (head(b"GET / HTTP/1.1", b"Host: x", b"Host: x"), 400),
    "empty host": (head(b"GET / HTTP/1.1", b"Host:"), 400),
    "host with userinfo": (head(b"GET / HTTP/1.1", b"Host: a@x"), 400),
    "host list": (head(b"GET / HTTP/1.1", b"Host: a, b"), 400),
    "host with path": (head(b"GET / HTTP/1.1", b"Host: x/y"), 400),
    "host with letters for a port": (head(b"GET / HTTP/1.1", b"Host: x:http"), 400),
    "invalid host on HTTP/1.0": (head(b"GET / HTTP/1.0", b"Host: a b"), 400),
    "asterisk": (head(b"GET * HTTP/1.1", b"Host: x"), 400),
    "authority": (head(b"CONNECT x:80 HTTP/1.1", b"Host: x:80"), 501),
    "absolute with userinfo": (head(b"GET http://a@x/ HTTP/1.1", b"Host: x"), 400),
    "other scheme": (head(b"GET ftp://x/ HTTP/1.1", b"Host: x"), 400),
    "no slash": (head(b"GET a HTTP/1.1", b"Host: x"), 400),
    "fragment": (head(b"GET /a#b HTTP/1.1", b"Host: x"), 400),
    "bytes beyond ASCII": (head(b"GET /\xc3\xa4 HTTP/1.1", b"Host: x"), 400),
    "no version": (b"GET /\r\n\r\n", 505),
    "HTTP/0.9": (head(b"GET / HTTP/0.9", b"Host: x"), 505),
    "HTTP/2.0": (head(b"GET / HTTP/2.0", b"Host: x"), 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/9.9": (head(b"GET / HTTP/9.9", b"Host: x"), 400),
    "unknown method": (head(b"NONSENSE / HTTP/1.1", b"Host: x"), 400),
    "unknown expectation": (head(b"GET / HTTP/1.1", b"Host: x", b"Expect: 200-ok"), 417),
    "length and chunked": (
        head(b"POST / HTTP/1.1", b"Host: x", b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        400,
    ),
    "two lengths": (head(b"POST / HTTP/1.1", b"Host: x", b"Content-Length: 1", b"Content-Length: 1"), 400),
    "signed length": (head(b"POST / HTTP/1.1", b"Host: x", b"Content-Length: +1"), 400),
    "unknown coding": (head(b"POST / HTTP/1.1", b"Host: x", b"Transfer-Encoding: gzip, chunked"), 501),
    "coding in two fields": (
        head(b"POST / HTTP/1.1", b"Host: x", b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
        400,
    ),
    "chunked not last": (head(b"POST / HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked, gzip"), 400),
    "chunked on HTTP/1.0": (head(b"POST / HTTP/1.0", b"Host: x", b"Transfer-Encoding: chunked"), 400),
    "folded field": (head(b"GET / HTTP/1.1", b"Host: x", b"A: b", b" c"), 400),
    "space before the colon": (head(b"GET / HTTP/1.1", b"Host : x"), 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "NUL": (head(b"GET / HTTP/1.1", b"Host: x", b"A: \0"), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_proper_request_is_refused_and_the_connection_closed(name: str) -> None:
    raw, code = REFUSED[name]
    app = Script()
    refused: list[str] = []
    peer = Peer(app, refused=refused.append)
    answer = await peer.send(raw)
    assert status(answer) == code
    assert not app.scopes
    assert len(refused) == 1
    assert b"\r\nconnection: close\r\n" in answer
    assert peer.wire.eof  # but not closed yet: that would reset it before the client has read it
    assert await peer.send(GET) == b""


async def test_a_refusal_says_why_in_the_form_of_every_error() -> None:
    answer = await Peer(Script()).send(head())
    fields, body = answer.split(b"\r\n\r\n", 1)
    problem = json.loads(body)
    assert b"content-type: application/problem+json\r\n" in fields
    assert b"content-length: %d" % len(body) in fields
    assert problem["detail"] == "the header host is missing"
    assert (problem["status"], problem["type"]) == (400, "urn:gateway:bad_request")
    assert b"x-request-id: " + problem["request_id"].encode() in fields


@pytest.mark.parametrize("host", [b"x", b"x:80", b"x:", b"a.b-c_d", b"127.0.0.1:1", b"[::1]", b"[::1]:80", b"%C3%A4"])
async def test_every_valid_host_is_taken(host: bytes) -> None:
    assert status(await Peer(answering()).send(head(b"GET / HTTP/1.1", b"Host: " + host))) == 200


async def test_http_1_0_needs_no_host() -> None:
    assert status(await Peer(answering()).send(head(b"GET / HTTP/1.0"))) == 200


async def test_a_host_is_checked_anew_when_it_changes() -> None:
    peer = Peer(answering())
    assert status(await peer.send(GET)) == 200
    assert status(await peer.send(head(b"GET / HTTP/1.1", b"Host: a b"))) == 400


async def test_a_changed_target_is_read_anew() -> None:
    app = Script()
    peer = Peer(app)
    for target in (b"/a?1", b"/b?2", b"/b?2"):
        await peer.send(head(b"GET " + target + b" HTTP/1.1", b"Host: x"))
        app.scopes[-1]["path_params"] = "of this request alone"
        await app.answer()
    assert [scope["raw_path"] for scope in app.scopes] == [b"/a", b"/b", b"/b"]
    assert [scope["query_string"] for scope in app.scopes] == [b"1", b"2", b"2"]
    await peer.send(GET)
    assert "path_params" not in app.scopes[-1]


async def test_options_of_the_whole_server_reach_the_application() -> None:
    app = Script()
    await Peer(app).send(head(b"OPTIONS * HTTP/1.1", b"Host: x"))
    assert app.scopes[0]["raw_path"] == b"*"


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
async def test_an_upgrade_is_not_made_and_the_request_answered(protocol: bytes) -> None:
    app = Script()
    peer = Peer(app)
    fields = (b"Host: x", b"Connection: Upgrade", b"Upgrade: " + protocol)
    await peer.send(
        head(b"GET /a HTTP/1.1", *fields) + head(b"POST /b HTTP/1.1", *fields, b"Content-Length: 4") + b"bo"
    )
    await app.answer()
    answers = await peer.read()
    await peer.send(b"dy" + GET)
    assert [scope["raw_path"] for scope in app.scopes] == [b"/a", b"/b"]
    assert await app.receive() == {"type": "http.request", "body": b"body", "more_body": False}
    await app.answer()
    await settle()
    assert [scope["raw_path"] for scope in app.scopes] == [b"/a", b"/b", b"/"]
    await app.answer()
    assert (answers + await peer.read()).count(b"HTTP/1.1 200 OK") == 3


async def test_many_upgrades_at_once_are_read_one_after_the_other() -> None:
    app = Script()
    peer = Peer(app)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 150)  # not one inside the other
    try:
        await peer.send(head(b"GET / HTTP/1.1", b"Host: x", b"Connection: Upgrade", b"Upgrade: h2c") * 200)
    finally:
        sys.setrecursionlimit(limit)
    for _ in range(200):
        await app.answer()
        await settle()
    assert (await peer.read()).count(b"HTTP/1.1 200 OK") == 200


@pytest.mark.parametrize("step", [1, 7])
async def test_a_request_may_come_in_pieces(step: int) -> None:
    peer = Peer(answering())
    raw = CHUNKED + b"4;a=b\r\nbody\r\n0\r\nX: y\r\n\r\n" + head(b"GET http://x/a?b HTTP/1.1", b"Host: x")
    answers = b""
    for at in range(0, len(raw), step):
        answers += await peer.send(raw[at : at + step])
    assert answers.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("chunk", [b"-1\r\n", b"g\r\n", b"fffffffffffffffff\r\n", b"4\r\nbodyX", b"4\nbody\r\n"])
async def test_a_broken_body_is_told_to_who_waits_for_it(chunk: bytes) -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(CHUNKED)
    body = asyncio.ensure_future(app.receive())
    await peer.send(chunk)
    with pytest.raises(RequestError, match="invalid HTTP"):
        await body


async def test_an_application_that_leaves_a_broken_body_alone_is_answered_for() -> None:
    async def reading(scope: object, receive: object, send: object) -> None:
        while True:
            await receive()  # type: ignore[operator]

    peer = Peer(reading)
    await peer.send(CHUNKED)
    answer = await peer.send(b"x\r\n")
    assert status(answer) == 400
    assert peer.wire.eof


async def test_the_bad_one_among_pipelined_requests_is_answered_in_its_turn() -> None:
    app = Script()
    peer = Peer(app)
    assert await peer.send(GET + b"nonsense\r\n\r\n" + GET) == b""
    await app.answer()
    answers = await peer.read()
    assert [status(b"HTTP/1.1" + answer) for answer in answers.split(b"HTTP/1.1")[1:]] == [200, 400]
    assert peer.wire.eof
    assert len(app.scopes) == 1


async def test_what_follows_the_last_request_is_not_read() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(head(b"GET / HTTP/1.1", b"Host: x", b"Connection: close") + GET)
    await app.answer()
    assert (await peer.read()).count(b"HTTP/1.1") == 1
    assert len(app.scopes) == 1


# -- sizes


async def test_a_head_may_be_as_large_as_the_limit_and_no_larger() -> None:
    limits = Limits()
    filler = head(b"GET / HTTP/1.1", b"Host: x", b"A: ")
    for size, code in ((limits.head, 200), (limits.head + 100, 431)):
        raw = filler[:-4] + b"a" * (size - len(filler)) + b"\r\n\r\n"
        peer = Peer(answering())
        assert status(await peer.send(raw)) == code


async def test_a_head_that_never_ends_is_refused_when_it_is_too_large() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(b"GET / HTTP/1.1\r\nHost: x\r\nA: ")
    answer = b""
    sent = 0
    while not answer:
        answer = await peer.send(b"a" * 1000)
        sent += 1000
    assert status(answer) == 431
    assert 32_000 <= sent < 34_000


async def test_a_hundred_fields_are_enough() -> None:
    for count, code in ((99, 200), (100, 431)):
        fields = [b"A%d: b" % number for number in range(count)]
        assert status(await Peer(answering()).send(head(b"GET / HTTP/1.1", b"Host: x", *fields))) == code


async def test_a_target_may_be_as_long_as_the_limit_and_no_longer() -> None:
    for length, code in ((8192, 200), (8193, 414)):
        target = b"/" + b"a" * (length - 1)
        assert status(await Peer(answering()).send(head(b"GET " + target + b" HTTP/1.1", b"Host: x"))) == code


async def test_a_target_that_comes_in_pieces_is_limited_too() -> None:
    peer = Peer(Script())
    await peer.send(b"GET /")
    answers = [await peer.send(b"a" * 1000) for _ in range(9)]
    assert status(b"".join(answers)) == 414


async def test_empty_lines_before_a_request_count_for_its_head() -> None:
    peer = Peer(answering())
    assert status(await peer.send(b"\r\n\r\n" + GET)) == 200
    answers = b"".join([await peer.send(b"\r\n" * 5000) for _ in range(5)])
    assert status(answers) == 431


@pytest.mark.parametrize("waste", [b"X: y\r\n", b"\r\n0;" + b"a" * 1000])
async def test_trailers_and_chunk_extensions_are_bounded(waste: bytes) -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(CHUNKED + (b"0\r\n" if waste.startswith(b"X") else b"1;a=b"))
    body = asyncio.ensure_future(app.receive())
    for _ in range(20_000):
        await peer.send(waste if waste.startswith(b"X") else b"a" * 1000)
        if body.done():
            break
    with pytest.raises(RequestError, match="trailers or chunk extensions"):
        await body
