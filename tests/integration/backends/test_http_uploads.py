"""Request bodies that are sent as they come: coding, pace, and who may end them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.backends.base import Answer, Request, Timeouts
from gateway.backends.faults import Incomplete, Unanswered
from gateway.errors import BackendTimeout, ClientGone, RequestError, RequestTimeout
from tests.integration.backends.upstream import CHUNKED, GET, Peer, Upstream, answer, playing, silent, soon, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.anyio

PIECE = bytes(range(256)) * 256


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


class Client:
    """A body that comes for as long as it is asked for."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts
        self.sent = 0
        self.ended = asyncio.Event()

    async def body(self) -> AsyncIterator[bytes]:
        try:
            for part in self._parts:
                yield part
            while True:
                self.sent += len(PIECE)
                yield PIECE
        finally:
            self.ended.set()

    async def stalling(self) -> AsyncIterator[bytes]:
        try:
            for part in self._parts:
                yield part
            await asyncio.Event().wait()
        finally:
            self.ended.set()


def post(upload: AsyncIterator[bytes], body: bytes = b"", length: int | None = None, **options: bool) -> Request:
    return Request(b"POST", b"/", [], body, upload=upload, length=length, **options)


async def test_upload_without_a_length_goes_in_chunks() -> None:
    heads: list[bytes] = []
    chunks: list[list[bytes]] = []

    async def script(peer: Peer) -> None:
        for _ in range(2):
            heads.append(await peer.head())
            chunks.append(await peer.chunked())
            await peer.send(answer())

    async with Upstream(script) as upstream:
        backend = upstream.backend()
        for _ in range(2):
            assert (await backend.call(post(pieces(b"two", b"", PIECE), b"one"), soon())).body == b"ok"
        await backend.close()
        assert upstream.accepted == 1
    assert chunks == [[b"one", b"two", PIECE]] * 2
    assert heads[0].endswith(b"\r\ntransfer-encoding: chunked\r\n\r\n")


async def test_upload_with_a_length_goes_as_it_is() -> None:
    async with Upstream(playing(answer(), answer())) as upstream:
        backend = upstream.backend()
        for _ in range(2):
            await backend.call(post(pieces(b"two", PIECE), b"one", 6 + len(PIECE)), soon())
        await backend.close()
        assert upstream.accepted == 1
        assert [request.body for request in upstream.requests] == [b"onetwo" + PIECE] * 2


async def test_pieces_leave_as_they_come() -> None:
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    given: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(peer: Peer) -> None:
        await peer.head()
        for _ in range(3):
            arrived.put_nowait(await peer.read(1))
        await peer.send(answer())

    async def upload() -> AsyncIterator[bytes]:
        for _ in range(2):
            yield await given.get()

    async with Upstream(script) as upstream:
        backend = upstream.backend()
        call = asyncio.create_task(backend.call(post(upload(), b"a", 3), soon()))
        assert await arrived.get() == b"a"
        for piece in (b"b", b"c"):
            given.put_nowait(piece)
            assert await arrived.get() == piece
        assert (await call).status == 200
        await backend.close()


@pytest.mark.parametrize(("length", "problem"), [(2, "longer"), (5, "longer"), (9, "3 bytes shorter")])
async def test_upload_of_another_length_than_declared_is_the_clients_fault(length: int, problem: str) -> None:
    async with Upstream(silent) as upstream:
        backend = upstream.backend()
        with pytest.raises(RequestError, match=problem):
            await backend.call(post(pieces(b"two"), b"one", length), soon())
        assert (backend.pool.busy, backend.pool.idle, upstream.requests) == (0, 0, [])
        await until(lambda: upstream.open == 0)


async def test_client_that_leaves_ends_the_exchange() -> None:
    async def upload() -> AsyncIterator[bytes]:
        yield b"one"
        raise ClientGone("the client closed the connection")

    async with Upstream(silent) as upstream:
        backend = upstream.backend()
        with pytest.raises(ClientGone):
            await backend.call(post(upload()), soon())
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)
        await until(lambda: upstream.open == 0)


async def test_upstream_that_does_not_read_stops_the_client() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await reading.wait()
        await peer.read(wanted)
        await peer.send(answer())

    reading = asyncio.Event()
    wanted = 64 << 20
    client = Client()
    async with Upstream(script) as upstream:
        backend = upstream.backend()
        call = asyncio.create_task(backend.call(post(client.body(), length=1 << 40), soon(30)))
        before = -1
        while before < client.sent:  # until what the sockets hold is full
            before = client.sent
            await asyncio.sleep(0.02)
        assert client.sent < wanted / 2
        reading.set()
        assert (await call).status == 200
        assert client.sent >= wanted


async def test_upload_is_bounded() -> None:
    client = Client(b"one")
    async with Upstream(silent) as upstream:
        backend = upstream.backend(timeouts=Timeouts(upload=0.1))
        with pytest.raises(RequestTimeout):  # the upstream has taken all there was
            await backend.call(post(client.stalling()), soon(0.05))
        assert (backend.pool.busy, client.ended.is_set()) == (0, True)


async def test_time_of_the_upstream_begins_with_the_whole_request() -> None:
    """A slow client leaves it no less."""
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.chunked()
        await peer.send(answer())

    async def slow() -> AsyncIterator[bytes]:
        for piece in (b"one", b"two", b"three"):
            yield piece
            await asyncio.sleep(0.1)
        read.set()

    async with Upstream(script) as upstream:
        backend = upstream.backend()
        assert (await backend.call(post(slow()), soon(0.2))).status == 200
        assert read.is_set()
        await backend.close()
    async with Upstream(lambda peer: peer.gone()) as upstream:
        backend = upstream.backend()
        with pytest.raises(BackendTimeout, match="no whole answer"):
            await backend.call(post(pieces(b"one")), soon(0.1))
        assert backend.pool.busy == 0


@pytest.mark.parametrize("body", [Client.body, Client.stalling])
async def test_early_answer_ends_the_upload(body: Callable[[Client], AsyncIterator[bytes]]) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer(b"too large", status=b"413 Content Too Large"))
        await peer.gone()

    client = Client(b"one")
    async with Upstream(script) as upstream:
        backend = upstream.backend()
        upload = body(client)
        got = await backend.call(post(upload), soon())
        assert (got.status, got.body) == (413, b"too large")
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)
        sent = client.sent
        await until(lambda: upstream.open == 0)
        assert client.sent == sent
        await upload.aclose()  # type: ignore[attr-defined]


async def test_early_head_ends_the_upload_and_its_body_still_comes() -> None:
    client = Client(b"one")

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED)
        await client.ended.wait()
        await peer.send(b"1\r\na\r\n0\r\n\r\n")
        await peer.gone()

    async with Upstream(script) as upstream:
        backend = upstream.backend()
        got = await backend.call(post(client.stalling(), whole=False), soon())
        assert client.ended.is_set()
        assert got.rest is not None
        assert [piece async for piece in got.rest] == [b"a"]
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)  # half a request was sent on it


async def test_lost_race_of_an_upload_is_never_repeated() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer())
        await peer.head()

    async with Upstream(script) as upstream:
        backend = upstream.backend(idempotent=True)
        await backend.call(GET, soon())
        with pytest.raises(Unanswered):
            await backend.call(Request(b"PUT", b"/", [], upload=pieces(b"a")), soon())
        assert (upstream.accepted, backend.pool.busy) == (1, 0)


@pytest.mark.parametrize("body", [Client.body, Client.stalling])
async def test_upstream_that_ends_during_the_upload(body: Callable[[Client], AsyncIterator[bytes]]) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200")
        await peer.read(1)

    client = Client(b"one")
    async with Upstream(script) as upstream:
        backend = upstream.backend()
        with pytest.raises(Incomplete):
            await backend.call(post(body(client)), soon())
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)


async def test_call_cancelled_at_any_moment_of_an_upload_leaves_nothing() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            await peer.chunked()
            await peer.send(answer())

    async with Upstream(script) as upstream:
        backend = upstream.backend(max_connections=1)
        for ticks in range(40):
            call = asyncio.create_task(backend.call(post(pieces(b"one", b"two")), soon()))
            for _ in range(ticks):
                await asyncio.sleep(0)
            call.cancel()
            (got,) = await asyncio.gather(call, return_exceptions=True)
            assert isinstance(got, Answer | asyncio.CancelledError)
            assert backend.pool.busy == 0
        assert (await backend.call(post(pieces(b"one")), soon())).body == b"ok"
        await backend.close()


async def test_a_first_byte_is_awaited_from_the_end_of_the_upload() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"one"
        await asyncio.sleep(0.2)

    async with Upstream(lambda peer: peer.gone()) as upstream:
        backend = upstream.backend(timeouts=Timeouts(first_byte=0.1))
        start = soon(0)
        with pytest.raises(BackendTimeout, match=r"nothing for 0\.1 s"):
            await backend.call(post(slow()), soon(4))
        assert 0.28 <= soon(0) - start < 2
