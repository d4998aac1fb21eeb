"""The data port on a real socket: what only the kernel can show."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from gateway.http_server import Server, configure
from gateway.serving.asgi import Receive, Scope, Send
from gateway.serving.http1.head import Limits
from gateway.serving.http1.protocol import Http1Protocol
from tests.integration.backends.upstream import CHUNKED, Peer, Upstream
from tests.integration.serving.local_worker import LocalWorker, champion, endpoint, http, infer_body, plan, until

pytestmark = pytest.mark.anyio
Connect = Callable[[], Any]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SHORT = Limits(head_timeout=0.05, body_timeout=0.05, send_timeout=0.2, linger=0.05)


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[tuple[Connect, Server]]:
    config = configure(app, keep_alive=75, grace=1, protocol=partial(Http1Protocol, **options))
    server = Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    await until(lambda: server.started)
    try:
        yield partial(asyncio.open_connection, "127.0.0.1", port), server
    finally:
        server.should_exit = True
        await task


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


class Streaming:
    """Answers without end, in pieces of 64 KiB."""

    def __init__(self) -> None:
        self.sent = 0
        self.ended = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
                self.sent += 65_536
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise


async def test_a_worker_answers_through_it(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion())))
    body = infer_body()
    head = b"POST /v2/models/flight/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    app = worker.worker.app
    async with serving(app, refused=app.refused) as (connect, _):
        reader, writer = await connect()
        for _ in range(2):
            writer.write(head + body)
            status, answer = await answer_of(reader)
            assert status == 200
            assert b'"outputs"' in answer
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await answer_of(reader))[0] == 400
        assert await reader.read() == b""
        writer.close()
    assert worker.count("gateway_rejected_requests", "bad_request") == 1


async def test_a_head_without_end_is_refused_so_that_the_client_can_read_it() -> None:
    async with serving(hello) as (connect, _):
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (20 << 20))
        assert (await answer_of(reader))[0] == 431
        assert await reader.read() == b""
        writer.close()


async def test_a_refused_upload_can_be_read_about() -> None:
    async with serving(hello) as (connect, _):
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n" + b"a" * (8 << 20))
        assert await answer_of(reader) == (200, b"hello")
        assert await reader.read() == b""
        writer.close()


async def test_slow_clients_lose_their_connections() -> None:
    async with serving(hello, limits=SHORT) as (connect, server):
        clients = [await connect() for _ in range(20)]
        for _, writer in clients[10:]:
            writer.write(b"GET / HTTP/1.1\r\n")
        said = [await reader.read() for reader, _ in clients]
        assert [answer[:12] for answer in said] == [b""] * 10 + [b"HTTP/1.1 408"] * 10
        for _, writer in clients:
            writer.close()
        await until(lambda: not server.server_state.connections)


async def test_a_client_that_leaves_ends_the_work_for_it() -> None:
    app = Streaming()
    async with serving(app) as (connect, server):
        reader, writer = await connect()
        writer.write(GET)
        await reader.readexactly(100_000)
        writer.close()
        await until(lambda: app.ended == "cancelled")
        await until(lambda: not server.server_state.tasks)


async def test_a_client_that_reads_nothing_costs_no_memory_and_is_cut_off() -> None:
    app = Streaming()
    async with serving(app, limits=SHORT) as (connect, server):
        _, writer = await connect()
        writer.write(GET)  # the stream reader takes 128 KiB and then stops
        await until(lambda: app.ended == "cancelled")
        assert app.sent < 16 << 20  # what the kernel's buffers took
        await until(lambda: not server.server_state.connections)
        writer.close()


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_half_an_answer_is_never_taken_for_a_whole_one(version: bytes) -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await arrived.wait()

    arrived = asyncio.Event()
    async with serving(half) as (connect, _):
        reader, writer = await connect()
        writer.write(b"GET / HTTP/%b\r\nHost: x\r\n\r\n" % version)
        await reader.readuntil(b"half")
        arrived.set()
        if version == b"1.1":
            assert not (await reader.read()).endswith(b"0\r\n\r\n")
        else:  # only the end of the connection ends this body, so it must not be an orderly one
            with pytest.raises(ConnectionResetError):
                await reader.read(-1)
        writer.close()


async def test_an_upstream_that_breaks_off_is_no_failure_of_the_application(
    worker: LocalWorker, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaking(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"4\r\nhalf\r\n")

    async with Upstream(breaking) as upstream, serving(worker.worker.app) as (connect, _):
        variant = http("a", "champion", f"http://{upstream.authority}")
        await worker.publish(plan(endpoint(variant, name="plain", protocol="http")))
        reader, writer = await connect()
        writer.write(GET.replace(b"/", b"/plain", 1))
        assert (await reader.read()).endswith(b"4\r\nhalf\r\n")
        writer.close()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
