"""A client that leaves: whatever its request is at, the work for it stops."""

from __future__ import annotations

import asyncio

import pytest

from gateway.serving.asgi import Receive, Scope, Send
from tests.unit.serving.http1_peer import GET, Peer, Script, advance, answering, settle, status

pytestmark = pytest.mark.anyio
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


@pytest.mark.parametrize("how", ["leave", "vanish"])
@pytest.mark.parametrize("phase", ["body missing", "working", "answering", "pipelining"])
async def test_the_request_in_flight_is_cancelled(phase: str, how: str) -> None:
    app = Script()
    peer = Peer(app)
    await peer.send({"body missing": POST, "pipelining": GET + GET}.get(phase, GET))
    if phase == "answering":
        await app.start()
        await app.piece(b"half")
    if how == "leave" and phase == "answering":
        peer.wire.left = True
        await peer.half_close()
        await app.piece(b"more")  # only what is written from now on is answered with a reset
        await advance(0.02)
    else:
        await getattr(peer, how)()
    assert app.ended == ["cancelled"]
    assert peer.state.tasks == set()
    assert peer.state.connections == set()
    assert len(app.scopes) == 1  # what waited is not begun


async def test_it_is_cancelled_in_the_same_tick() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(POST)
    peer.protocol.eof_received()
    await asyncio.sleep(0)
    assert app.ended == ["cancelled"]


async def test_who_waits_to_send_is_cancelled() -> None:
    ended: list[str] = []

    async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    peer = Peer(streaming)
    await peer.send(GET)
    peer.protocol.pause_writing()
    await peer.read()
    assert await peer.read() == b""
    await peer.vanish()
    assert ended == ["cancelled"]


async def test_who_waits_in_receive_hears_it_and_may_end_by_itself() -> None:
    heard: list[str] = []

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        heard.append((await receive())["type"])

    peer = Peer(listening)
    await peer.send(GET)
    await peer.leave()
    assert heard == ["http.disconnect"]
    assert peer.state.tasks == set()


async def test_who_hears_it_and_goes_on_is_cancelled_at_the_next_wait() -> None:
    ended: list[str] = []

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    peer = Peer(deaf)
    await peer.send(GET)
    await peer.leave()
    assert ended == ["cancelled"]


async def test_to_send_to_nobody_is_an_error_and_to_receive_tells_so() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
    await peer.leave()
    assert await app.receive() == {"type": "http.disconnect"}
    with pytest.raises(ConnectionResetError):
        await app.start()


async def test_a_request_whose_client_left_before_it_began_is_not_begun() -> None:
    app = Script()
    peer = Peer(app)
    peer.protocol.data_received(POST)
    peer.protocol.eof_received()
    await settle()
    assert app.scopes == []
    assert peer.state.tasks == set()


async def test_what_is_left_to_do_after_the_answer_is_done() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
    await app.answer()
    await peer.vanish()
    app.finish()
    await settle()
    assert app.ended == ["returned"]


async def test_an_idle_client_that_leaves_is_let_go() -> None:
    peer = Peer(answering())
    await peer.send(GET)
    await peer.leave()
    assert not peer.wire.aborted
    assert peer.state.connections == set()


async def test_a_server_that_is_done_waiting_cuts_what_is_left() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
    for task in peer.state.tasks:
        task.cancel()
    await settle()
    assert app.ended == ["cancelled"]
    assert peer.wire.aborted


async def test_who_only_closes_its_sending_side_is_answered() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
    await peer.half_close()
    assert await peer.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await advance(0.3)
    assert await peer.read() == b""
    for _ in range(10):
        await advance(1)
    assert await peer.read() == b"HTTP/1.1 100 Continue\r\n\r\n" * 2  # for those behind something that forwards TCP
    await app.answer()
    answer = await peer.read()
    assert status(answer) == 200
    assert b"connection: close" in answer.lower()
    assert peer.wire.closed
    assert not peer.wire.aborted
    assert app.ended == []


async def test_it_is_looked_for_soon_and_then_every_second() -> None:
    peer = Peer(Script())
    await peer.send(GET)
    await peer.half_close()
    looks = []
    for seconds in (0.03, 0.09, 0.41, 0.06, 0.46, 1.01, 0.06, 1.01, 1.01):
        await advance(seconds)
        looks.append(peer.wire.looks)
    assert looks == [1, 2, 3, 4, 5, 6, 7, 8, 9]


async def test_whoever_left_later_is_found_by_what_is_written_later() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
    await peer.half_close()
    await app.start()
    await advance(10)
    peer.wire.left = True
    await peer.read()
    await app.piece(b"x")
    await advance(1)
    assert app.ended == ["cancelled"]


async def test_all_requests_before_the_end_of_file_are_answered() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET + GET + POST)  # the last is not whole
    await peer.half_close()
    await app.answer(b"one")
    await settle()
    await app.answer(b"two")
    heard = await peer.read()
    assert heard.count(b"HTTP/1.1 200") == 2
    assert heard.endswith(b"two")
    assert heard.lower().count(b"connection: close") == 1
    assert len(app.scopes) == 2
    assert peer.wire.closed


async def test_what_is_no_request_is_told_before_the_end() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
    await peer.send(b"nonsense\r\n\r\n")
    await peer.half_close()
    await app.answer()
    heard = await peer.read()
    assert (heard.count(b"HTTP/1.1 200"), heard.count(b"HTTP/1.1 400")) == (1, 1)
    assert peer.wire.closed


async def test_a_client_of_http_1_0_hears_no_interim_answer() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(b"GET / HTTP/1.0\r\n\r\n")
    await peer.half_close()
    assert await peer.read() == b""
    await app.answer()
    assert status(await peer.read()) == 200
    assert peer.wire.closed


async def test_who_is_in_the_midst_of_an_answer_hears_a_digit_that_counts_for_nothing() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
    await app.start()
    await app.piece(b"half")
    assert (await peer.read()).endswith(b"half\r\n")
    await peer.half_close()
    await app.piece(b"", more=False)
    assert await peer.read() == b"00\r\n\r\n"  # 1*("0"), RFC 9112 7.1


async def test_a_half_closed_connection_leaves_no_timer_behind() -> None:
    peer = Peer(Script())
    await peer.send(GET)
    await peer.half_close()
    await peer.vanish()
    await advance(1000)
    assert peer.wire.looks == 0
