"""What an ASGI application may rely on, under our protocol and under uvicorn's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.serving.asgi import Receive, Scope, Send
from tests.unit.serving.http1_peer import BOTH, GET, Peer, Script, answering, settle, status

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("protocol", BOTH)]
POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


async def test_a_request_is_described_as_asgi_has_it(protocol: type[Any]) -> None:
    app = Script()
    await Peer(app, protocol).send(
        b"PUT /a%2Fb%20c?q=%20 HTTP/1.1\r\nHost: x\r\nX-User-ID: Jo\r\nX-User-ID: Al\r\n\r\n"
    )
    (scope,) = app.scopes
    told = {key: scope[key] for key in ("type", "method", "path", "raw_path", "query_string", "http_version", "scheme")}
    assert told == {
        "type": "http",
        "method": "PUT",
        "path": "/a/b c",
        "raw_path": b"/a%2Fb%20c",
        "query_string": b"q=%20",
        "http_version": "1.1",
        "scheme": "http",
    }
    assert scope["headers"] == [(b"host", b"x"), (b"x-user-id", b"Jo"), (b"x-user-id", b"Al")]


async def test_an_absolute_target_is_reduced_to_its_path(protocol: type[Any]) -> None:
    app = Script()
    await Peer(app, protocol).send(b"GET http://x:80/a?b HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (app.scopes[0]["raw_path"], app.scopes[0]["query_string"]) == (b"/a", b"b")


async def test_a_body_that_came_with_its_head_is_one_message(protocol: type[Any]) -> None:
    app = Script()
    await Peer(app, protocol).send(POST + b"body")
    assert await app.receive() == {"type": "http.request", "body": b"body", "more_body": False}


async def test_a_body_comes_as_it_arrives(protocol: type[Any]) -> None:
    app = Script()
    peer = Peer(app, protocol)
    await peer.send(POST)
    first = asyncio.ensure_future(app.receive())
    await peer.send(b"bo")
    assert await first == {"type": "http.request", "body": b"bo", "more_body": True}
    await peer.send(b"dy")
    assert await app.receive() == {"type": "http.request", "body": b"dy", "more_body": False}


async def test_a_chunked_body_comes_without_its_framing(protocol: type[Any]) -> None:
    app = Script()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    await Peer(app, protocol).send(head + b"2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\nTrailer: dropped\r\n\r\n")
    assert await app.receive() == {"type": "http.request", "body": b"body", "more_body": False}


async def test_an_answer_with_a_length(protocol: type[Any]) -> None:
    peer = Peer(answering(b"four", (b"x-a", b"b")), protocol)
    assert await peer.send(GET) == b"HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 4\r\n\r\nfour"
    assert not peer.wire.closed


async def test_an_answer_without_a_length_is_chunked(protocol: type[Any]) -> None:
    app = Script()
    peer = Peer(app, protocol)
    await peer.send(GET)
    await app.start()
    for piece in (b"one", b"", b"three"):
        await app.piece(piece)
    await app.piece(b"", more=False)
    framed = b"3\r\none\r\n5\r\nthree\r\n0\r\n\r\n"
    assert await peer.read() == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + framed


@pytest.mark.parametrize(("method", "code"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
async def test_some_answers_have_no_body(protocol: type[Any], method: bytes, code: int) -> None:
    app = Script()
    peer = Peer(app, protocol)
    await peer.send(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n")
    await app.start((b"etag", b'"1"'), code=code)
    await app.piece(b"", more=False)
    answer = await peer.read()
    assert status(answer) == code
    assert answer.endswith(b'\r\netag: "1"\r\n\r\n')
    app.finish()
    await settle()
    await peer.send(GET)
    assert len(app.scopes) == 2


async def test_requests_in_one_packet_are_answered_in_order(protocol: type[Any]) -> None:
    app = Script()
    peer = Peer(app, protocol)
    await peer.send(POST + b"bodyGET /b HTTP/1.1\r\nHost: x\r\n\r\n")
    assert [scope["path"] for scope in app.scopes] == ["/a"]
    await app.answer(b"first")
    assert (await peer.read()).endswith(b"first")
    assert [scope["path"] for scope in app.scopes] == ["/a", "/b"]
    await app.answer(b"second")
    assert (await peer.read()).endswith(b"second")


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_the_connection_ends_when_the_client_or_its_version_says_so(protocol: type[Any], version: bytes) -> None:
    peer = Peer(answering(), protocol)
    answer = await peer.send(b"GET / HTTP/%b\r\nHost: x\r\nConnection: close\r\n\r\n" % version)
    assert b"\r\nconnection: close\r\n" in answer
    assert peer.wire.closed


async def test_the_application_may_end_the_connection(protocol: type[Any]) -> None:
    peer = Peer(answering(b"ok", (b"connection", b"close")), protocol)
    assert (await peer.send(GET)).count(b"connection: close\r\n") == 1
    assert peer.wire.closed


async def test_the_body_is_asked_for_when_the_application_wants_it(protocol: type[Any]) -> None:
    app = Script()
    peer = Peer(app, protocol)
    assert await peer.send(POST[:-2] + b"Expect: 100-continue\r\n\r\n") == b""
    body = asyncio.ensure_future(app.receive())
    assert await peer.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await peer.send(b"body")
    assert (await body)["body"] == b"body"


async def test_the_body_is_not_asked_for_once_the_answer_is_known(protocol: type[Any]) -> None:
    app = Script()
    peer = Peer(app, protocol)
    await peer.send(POST[:-2] + b"Expect: 100-continue\r\n\r\n")
    await app.answer()
    assert status(await peer.read()) == 200


async def test_an_application_that_fails_before_its_answer_is_answered_for(protocol: type[Any]) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("broken")

    peer = Peer(broken, protocol)
    answer = await peer.send(GET)
    assert status(answer) == 500
    assert b"connection: close\r\n" in answer
    assert b"broken" not in answer
    assert peer.wire.closed


async def test_an_application_that_ends_before_its_answer_does_breaks_the_transfer(protocol: type[Any]) -> None:
    app = Script()
    peer = Peer(app, protocol)
    await peer.send(GET)
    await app.start()
    await app.piece(b"half")
    app.finish()
    assert (await peer.read()).endswith(b"4\r\nhalf\r\n")
    assert peer.wire.closed


@pytest.mark.parametrize("body", [b"much too long", b"few"])
async def test_a_body_that_differs_from_its_length_is_an_error(protocol: type[Any], body: bytes) -> None:
    app = Script()
    peer = Peer(app, protocol)
    await peer.send(GET)
    await app.start((b"content-length", b"5"))
    with pytest.raises(RuntimeError, match=r"(?i)content-length"):
        await app.piece(body, more=False)


async def test_a_second_answer_is_an_error(protocol: type[Any]) -> None:
    app = Script()
    peer = Peer(app, protocol)
    await peer.send(GET)
    await app.answer()
    with pytest.raises(RuntimeError, match=r"http\.response\.start"):
        await app.start()


async def test_after_the_answer_there_is_nothing_more_to_receive(protocol: type[Any]) -> None:
    app = Script()
    await Peer(app, protocol).send(GET)
    await app.answer()
    assert await app.receive() == {"type": "http.disconnect"}


async def test_the_servers_books_are_kept(protocol: type[Any]) -> None:
    app = Script()
    peer = Peer(app, protocol)
    assert peer.state.connections == {peer.protocol}
    await peer.send(GET)
    assert len(peer.state.tasks) == 1
    await app.answer()
    app.finish()
    await settle()
    assert (peer.state.total_requests, peer.state.tasks) == (1, set())
    await peer.vanish()
    assert peer.state.connections == set()


async def test_a_server_that_stops_closes_idle_connections(protocol: type[Any]) -> None:
    peer = Peer(answering(), protocol)
    await peer.send(GET)
    peer.protocol.shutdown()
    assert peer.wire.closed


async def test_a_server_that_stops_lets_the_request_in_flight_end(protocol: type[Any]) -> None:
    app = Script()
    peer = Peer(app, protocol)
    await peer.send(GET)
    peer.protocol.shutdown()
    assert not peer.wire.closed
    await app.answer()
    assert b"connection: close\r\n" in await peer.read()
    assert peer.wire.closed
