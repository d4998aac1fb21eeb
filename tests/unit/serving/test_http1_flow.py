"""Nothing piles up: bodies, answers and pipelined requests wait outside until there is room."""

from __future__ import annotations

import asyncio

import pytest

from gateway.serving.http1.head import Limits
from tests.unit.serving.http1_peer import GET, Peer, Script, settle

pytestmark = pytest.mark.anyio


def post(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length


async def test_a_body_that_nobody_takes_stops_the_reading() -> None:
    app = Script()
    peer = Peer(app, limits=Limits(buffer=1000))
    await peer.send(post(3000))
    await peer.send(b"a" * 1000)
    assert peer.wire.reading
    await peer.send(b"b" * 1000)
    assert not peer.wire.reading
    assert await app.receive() == {"type": "http.request", "body": b"a" * 1000 + b"b" * 1000, "more_body": True}
    assert peer.wire.reading
    await peer.send(b"c" * 1000)
    assert await app.receive() == {"type": "http.request", "body": b"c" * 1000, "more_body": False}


async def test_a_large_packet_is_taken_in_a_piece_at_a_time() -> None:
    app = Script()
    peer = Peer(app, limits=Limits(buffer=20_000))
    await peer.send(post(200_000) + b"a" * 200_000 + GET)
    assert not peer.wire.reading
    sizes = []
    while True:
        message = await app.receive()
        sizes.append(len(message["body"]))
        if not message["more_body"]:
            break
    assert sum(sizes) == 200_000
    assert max(sizes) < 40_000
    assert peer.wire.reading
    await app.answer()
    await settle()
    assert len(app.scopes) == 2


async def test_an_answer_waits_while_the_client_does_not_take_it() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
    await app.start()
    await app.piece(b"first")
    peer.protocol.pause_writing()
    await peer.read()
    second = asyncio.ensure_future(app.piece(b"second"))
    assert await peer.read() == b""
    assert not second.done()
    peer.protocol.resume_writing()
    assert await peer.read() == b"6\r\nsecond\r\n"
    await second


async def test_a_whole_answer_leaves_in_one_piece() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
    await app.answer(b"x" * 1000)
    assert len(peer.wire.writes) == 1


async def test_a_large_body_is_not_copied_behind_its_head() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
    await app.answer(b"x" * 100_000)
    assert [len(write) > 1000 for write in peer.wire.writes] == [False, True]


async def test_reading_stops_when_more_than_one_request_waits() -> None:
    app = Script()
    peer = Peer(app)
    for _ in range(2):
        await peer.send(GET)
        assert peer.wire.reading
    await peer.send(GET)
    assert not peer.wire.reading
    await app.answer()
    await settle()
    assert peer.wire.reading


async def test_thousands_of_requests_in_one_packet_are_taken_in_as_they_are_answered() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET * 5000)
    assert "busy" in repr(peer.protocol)
    waiting = int(repr(peer.protocol).split(", ")[1].split()[0])
    assert waiting < 700
    assert not peer.wire.reading
    for number in range(5000):
        assert len(app.scopes) == number + 1
        await app.answer(b"%d" % number)
        app.finish()
        assert (await peer.read()).endswith(b"\r\n\r\n%d" % number)
    assert peer.wire.reading


async def test_an_answer_that_overtakes_its_request_ends_the_connection() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(post(3000))
    await app.answer()
    assert b"\r\nconnection: close\r\n" in await peer.read()
    assert peer.wire.eof  # what still comes is thrown away, so that the answer can be read
    await peer.send(b"a" * 3000 + GET)
    assert len(app.scopes) == 1


async def test_an_answer_to_http_1_0_without_a_length_ends_with_the_connection() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(b"GET / HTTP/1.0\r\n\r\n")
    await app.start()
    await app.piece(b"all")
    assert not peer.wire.closed
    await app.piece(b" of it", more=False)
    assert await peer.read() == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it"
    assert peer.wire.closed
    assert not peer.wire.aborted
