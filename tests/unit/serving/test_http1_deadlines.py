"""Nobody is waited for without end: by the clock, on both directions, and each end in the form that fits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import RequestTimeout
from tests.unit.serving.http1_peer import GET, Peer, Script, advance, answering, settle, status

pytestmark = pytest.mark.anyio
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


async def test_a_silent_connection_is_closed_without_a_word() -> None:
    peer = Peer(Script())
    await advance(9.9)
    assert not peer.wire.closed
    await advance(0.1)
    assert peer.wire.closed
    assert await peer.read() == b""


async def test_half_a_head_is_answered_with_408() -> None:
    peer = Peer(Script())
    await peer.send(b"GET / HTTP/1.1\r\n")
    await advance(9.9)
    await peer.send(b"Host: x\r\n")  # does not put the deadline off
    await advance(0.1)
    assert status(await peer.read()) == 408
    assert peer.wire.eof


async def test_the_head_of_a_later_request_has_its_time_from_its_first_byte() -> None:
    peer = Peer(answering())
    await peer.send(GET)
    await advance(60)
    await peer.send(b"GET")
    await advance(9.9)
    assert await peer.read() == b""
    await advance(0.1)
    assert status(await peer.read()) == 408


async def test_the_beginning_of_a_pipelined_head_has_its_time_from_the_answer_before() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
    await peer.send(b"GET")
    await advance(1000)  # the client waits for us
    await app.answer()
    assert status(await peer.read()) == 200
    await advance(9.9)
    assert await peer.read() == b""
    await advance(0.1)
    assert status(await peer.read()) == 408


async def test_an_idle_connection_is_kept_for_the_keep_alive_time() -> None:
    peer = Peer(answering())
    for _ in range(3):
        assert status(await peer.send(GET)) == 200
        await advance(74.9)
        assert not peer.wire.closed
    await advance(0.1)
    assert peer.wire.closed
    assert await peer.read() == b""


async def test_an_empty_line_behind_a_request_is_no_beginning_of_another() -> None:
    for first in (GET, GET + b"\r\n"):
        peer = Peer(answering())
        assert status(await peer.send(first)) == 200
        assert await peer.send(b"\r\n") == b""
        await advance(60)
        assert await peer.send(b"\r\n\n") == b""  # nor does it put the end off
        await advance(14.9)
        assert not peer.wire.closed
        await advance(0.1)
        assert peer.wire.closed
        assert await peer.read() == b""


async def test_an_empty_line_while_the_answer_is_made_is_no_beginning_either() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
    await peer.send(b"\r\n")
    await app.answer()
    assert status(await peer.read()) == 200
    await advance(74.9)
    assert not peer.wire.closed
    assert await peer.send(b"\r\nG") == b""
    await advance(10)
    assert status(await peer.read()) == 408


async def test_half_a_head_that_came_with_a_whole_request_has_its_time_from_the_answer() -> None:
    peer = Peer(answering())
    assert status(await peer.send(GET + b"GET")) == 200
    await advance(9.9)
    assert await peer.read() == b""
    await advance(0.1)
    assert status(await peer.read()) == 408


async def test_a_new_connection_with_nothing_but_empty_lines_is_closed_without_a_word() -> None:
    peer = Peer(Script())
    assert await peer.send(b"\r\n") == b""
    await advance(10)
    assert peer.wire.closed
    assert await peer.read() == b""


async def test_an_application_may_take_its_time() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(POST + b"body")
    await advance(10_000)
    await app.answer()
    assert status(await peer.read()) == 200
    assert not peer.wire.closed


def upload(size: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size


async def receiving(app: Script) -> asyncio.Future[Any]:
    waiting = asyncio.ensure_future(app.receive())
    await settle()
    return waiting


async def test_a_body_that_somebody_waits_for_must_come_in_time() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(upload(1 << 20))
    for _ in range(2):
        waiting = await receiving(app)
        await advance(29.9)  # each piece has its own
        await peer.send(b"x" * 32_768)
        assert len((await waiting)["body"]) == 32_768
    waiting = await receiving(app)
    await advance(30)
    with pytest.raises(RequestTimeout):
        await waiting


async def test_a_body_at_half_the_least_rate_has_the_idle_limit_and_what_it_has_earned() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(upload(1 << 20))
    for _ in range(58):
        waiting = await receiving(app)
        await advance(1)
        await peer.send(b"x" * 512)
        assert len((await waiting)["body"]) == 512
    waiting = await receiving(app)
    await advance(1.5)
    with pytest.raises(RequestTimeout):
        await waiting


async def test_only_time_in_which_the_client_is_waited_for_counts() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(upload(64))
    for _ in range(63):
        await advance(100)  # the application is at something else
        waiting = await receiving(app)
        await peer.send(b"x")
        assert (await waiting)["body"] == b"x"


async def test_an_application_that_leaves_a_late_body_alone_is_answered_for_with_408() -> None:
    peer = Peer(answering())
    await peer.send(POST)
    await advance(30)
    assert status(await peer.read()) == 408
    assert peer.wire.eof


async def test_a_body_that_nobody_waits_for_has_no_deadline() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(POST)
    await advance(1000)
    await peer.send(b"body")
    assert (await app.receive())["body"] == b"body"


async def test_the_last_answer_may_be_read_for_a_moment() -> None:
    peer = Peer(answering())
    await peer.send(GET)
    await peer.send(b"nonsense\r\n\r\n")
    assert peer.wire.eof
    await peer.send(b"what else the client had to say")
    await advance(1.9)
    assert not peer.wire.closed
    await advance(0.1)
    assert peer.wire.closed


async def test_the_moment_ends_when_the_client_has_closed() -> None:
    peer = Peer(Script())
    await peer.send(b"nonsense\r\n\r\n")
    await peer.leave()
    assert peer.wire.closed
    assert not peer.wire.aborted


async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
    await app.start()
    await app.piece(b"x" * 100_000)
    peer.wire.stuck = 100_000
    peer.protocol.pause_writing()
    await advance(29.9)
    assert not peer.wire.closed
    await advance(0.1)
    assert peer.wire.aborted
    assert app.ended == ["cancelled"]


async def test_a_client_that_takes_little_is_not() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
    await app.start()
    await app.piece(b"x" * 100_000)
    peer.wire.stuck = 100_000
    peer.protocol.pause_writing()
    for left in range(99_000, 90_000, -1000):
        peer.wire.stuck = left
        await advance(29.9)
    peer.wire.stuck = 0
    peer.protocol.resume_writing()
    await advance(1000)
    assert not peer.wire.closed


async def test_an_answer_that_is_never_taken_does_not_outlive_the_connection() -> None:
    peer = Peer(answering())
    peer.wire.stuck = 100  # below the mark at which writing pauses
    await peer.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert peer.wire.closed
    await advance(30)
    assert peer.wire.aborted


async def test_a_connection_that_is_gone_leaves_no_timer_behind() -> None:
    peer = Peer(answering())
    await peer.send(GET)
    await peer.vanish()
    await advance(1000)
    assert not peer.wire.aborted
