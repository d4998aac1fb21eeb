"""A client that leaves: whatever its request is at, the work for it stops."""

from __future__ import annotations

import asyncio

import pytest

from gateway.serving.asgi import Receive, Scope, Send
from tests.unit.serving.http1_peer import GET, Peer, Script, answering, settle

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
    await getattr(peer, how)()
    assert app.ended == ["cancelled"]
    assert peer.state.tasks == set()
    assert peer.state.connections == set()
    assert len(app.scopes) == 1  # what waited is not begun


async def test_it_is_cancelled_in_the_same_tick() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(GET)
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
    peer.protocol.data_received(GET)
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
