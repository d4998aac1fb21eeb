"""One request read and answered by the gateway's own means: directly, by messages, and under another server alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import BodyTooLarge, ClientGone
from gateway.serving.asgi import DIRECT, Exchange, Headers, Receive, Scope, Send
from gateway.serving.http1.protocol import Http1Protocol
from gateway.serving.wire.forwarding import Proxies
from tests.unit.serving.http1_peer import App, Peer, Script, settle

pytestmark = pytest.mark.anyio
HEAD = b"POST /a HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\nContent-Length: 4\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"\r\nx-request-id: r\r\ncontent-length: 2\r\n\r\nok"


class Server:
    draining = False
    proxies = Proxies()


def serving(serve: Callable[[Exchange], Awaitable[None]], server: Server | None = None) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await serve(Exchange(scope, receive, send, 0.0, server or Server()))

    return app


def by_messages(app: App) -> App:
    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        await app({key: value for key, value in scope.items() if key != DIRECT}, receive, send)

    return wrapped


def directly(app: App) -> App:
    return app


@pytest.fixture(params=["directly", "by messages", "under uvicorn"])
def peer_of(request: pytest.FixtureRequest) -> Callable[[App], Peer]:
    around = by_messages if request.param == "by messages" else directly
    protocol: type[Any] = HttpToolsProtocol if request.param == "under uvicorn" else Http1Protocol
    return lambda app: Peer(around(app), protocol)


PeerOf = Callable[[App], Peer]


@pytest.mark.parametrize("arrival", [[HEAD + b"body"], [HEAD, b"body"], [HEAD + b"bo", b"dy"]])
async def test_a_body_is_read_and_an_answer_sent(peer_of: PeerOf, arrival: list[bytes]) -> None:
    bodies: list[bytes] = []

    async def serve(exchange: Exchange) -> None:
        bodies.append(await exchange.body(4))
        await exchange.answer(200, [(b"x-a", b"b")], b"ok")

    peer = peer_of(serving(serve))
    written = b"".join([await peer.send(piece) for piece in arrival])
    assert written == b"HTTP/1.1 200 OK\r\nx-a: b" + LAST
    assert bodies == [b"body"]
    assert (await peer.send(HEAD + b"next")).endswith(LAST)
    assert bodies == [b"body", b"next"]


@pytest.mark.parametrize("request_", [HEAD + b"body", CHUNKED + b"4\r\nbody\r\n0\r\n\r\n"])
async def test_a_body_that_has_arrived_is_not_taken_beyond_its_limit(peer_of: PeerOf, request_: bytes) -> None:
    async def serve(exchange: Exchange) -> None:
        with pytest.raises(BodyTooLarge):
            await exchange.body(3)
        await exchange.answer(413, [], b"ok")

    answer = await peer_of(serving(serve)).send(request_)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"ok")


async def test_an_empty_body_is_read(peer_of: PeerOf) -> None:
    async def serve(exchange: Exchange) -> None:
        await exchange.answer(200, [], b"ok" if await exchange.body(1) == b"" else b"no")

    assert (await peer_of(serving(serve)).send(HEAD.replace(b"4", b"0"))).endswith(LAST)


@pytest.mark.parametrize(
    ("method", "status", "headers", "body", "answer"),
    [
        (b"HEAD", 200, [(b"content-length", b"7")], b"", b"content-length: 7\r\nx-request-id: r\r\n\r\n"),
        (b"GET", 204, [], b"", b"No Content\r\nx-request-id: r\r\n\r\n"),
        (b"GET", 304, [(b"etag", b"1")], b"", b"etag: 1\r\nx-request-id: r\r\n\r\n"),
        (b"GET", 200, [(b"set-cookie", b"1"), (b"set-cookie", b"2")], b"ok", b"set-cookie: 1\r\nset-cookie: 2" + LAST),
        (b"GET", 200, [(b"a", b"%d")], b"", b"a: %d\r\nx-request-id: r\r\ncontent-length: 0\r\n\r\n"),
        (b"GET", 200, [], b"x" * 70_000, b"content-length: 70000\r\n\r\n" + b"x" * 70_000),
    ],
)
async def test_answers_of_every_kind(
    peer_of: PeerOf, method: bytes, status: int, headers: Headers, body: bytes, answer: bytes
) -> None:
    async def serve(exchange: Exchange) -> None:
        await exchange.answer(status, headers, body)

    peer = peer_of(serving(serve))
    written = await peer.send(method + b" / HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\n\r\n")
    assert written.startswith(b"HTTP/1.1 %d " % status)
    assert written.endswith(answer)
    assert not peer.wire.closed


async def test_a_draining_server_says_that_this_was_the_last(peer_of: PeerOf) -> None:
    server = Server()
    server.draining = True

    async def serve(exchange: Exchange) -> None:
        await exchange.body(4)
        await exchange.answer(200, [], b"ok")

    peer = peer_of(serving(serve, server))
    assert (await peer.send(HEAD + b"body")).count(b"connection: close\r\n") == 1
    assert peer.wire.closed


@pytest.mark.parametrize("value", [b"x\r\ny: z", b"x\0"])
async def test_a_field_that_would_be_two_is_not_sent(value: bytes) -> None:
    async def serve(exchange: Exchange) -> None:
        await exchange.answer(200, [(b"a", value)], b"ok")

    answer = await Peer(serving(serve)).send(HEAD + b"body")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"y: z" not in answer


async def test_an_answer_waits_for_a_client_that_does_not_read() -> None:
    sent: list[str] = []

    async def serve(exchange: Exchange) -> None:
        await exchange.answer(200, [], b"ok")
        sent.append("whole")

    peer = Peer(serving(serve))
    peer.protocol.pause_writing()
    assert await peer.send(HEAD + b"body") == b""
    peer.protocol.resume_writing()
    assert (await peer.read()).endswith(LAST)
    assert sent == ["whole"]


async def test_a_request_that_has_ended_leaves_nothing_for_the_collector() -> None:
    app = Script()
    peer = Peer(app)
    await peer.send(HEAD + b"body")
    (scope,) = app.scopes
    assert DIRECT in scope
    await app.answer()
    app.finish()
    await settle()
    assert DIRECT not in scope


async def test_nobody_is_answered_once_the_client_has_left() -> None:
    heard: list[str] = []
    leave = asyncio.Event()

    async def serve(exchange: Exchange) -> None:
        try:
            await exchange.body(4)
        except ClientGone:
            heard.append("gone")
        try:
            await exchange.answer(200, [], b"ok")
        except ConnectionResetError:
            heard.append("reset")
        leave.set()

    peer = Peer(serving(serve))
    await peer.send(HEAD)
    await peer.leave()
    await settle()
    assert heard == ["gone", "reset"]
    assert peer.wire.writes == []
