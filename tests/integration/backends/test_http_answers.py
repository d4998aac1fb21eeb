"""What comes back: delimiting, header fields, and when a connection may be used again."""

from __future__ import annotations

import asyncio

import pytest

from gateway.backends.base import Answer, Request
from tests.integration.backends.upstream import CHUNKED, GET, Peer, Upstream, answer, echoing, playing, soon

pytestmark = pytest.mark.anyio

HEAD = Request(b"HEAD", b"/", [])


async def first(raw: bytes, request: Request = GET) -> tuple[Answer, int]:
    """The answer made of `raw`, and the number of connections that two such calls took."""
    async with Upstream(playing(raw, raw)) as upstream:
        backend = upstream.backend()
        one = await backend.call(request, soon())
        two = await backend.call(request, soon())
        await backend.close()
        assert one == two
        assert backend.pool.busy == 0
        return one, upstream.accepted


async def closing(raw: bytes) -> tuple[Answer, int]:
    """The same for an upstream that closes after each answer."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw)

    async with Upstream(script) as upstream:
        backend = upstream.backend()
        one = await backend.call(GET, soon())
        assert await backend.call(GET, soon()) == one
        await backend.close()
        return one, upstream.accepted


async def test_counted_body() -> None:
    assert await first(answer(b"hello", b"X-A: b")) == (Answer(200, [(b"x-a", b"b")], b"hello"), 1)


async def test_chunked_body_is_decoded_and_trailers_go() -> None:
    raw = CHUNKED + b"5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nX-Trailer: 1\r\n\r\n"
    assert await first(raw) == (Answer(200, [], b"hello!"), 1)


async def test_answer_in_single_bytes() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            for raw in (answer(b"hello", b"X-A: b"), CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"):
                for index in range(len(raw)):
                    await peer.send(raw[index : index + 1])
                await peer.request()

    async with Upstream(script) as upstream:
        backend = upstream.backend()
        assert (await backend.call(GET, soon())).body == b"hello"
        assert (await backend.call(GET, soon())).body == b"hello"
        await backend.close()
        assert upstream.accepted == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_status_without_a_body(status: int) -> None:
    raw = b"HTTP/1.1 %d x\r\nX-A: b\r\n\r\n" % status
    assert await first(raw) == (Answer(status, [(b"x-a", b"b")], b""), 1)


async def test_304_keeps_the_length_it_speaks_of() -> None:
    raw = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"
    assert await first(raw) == (Answer(304, [(b"content-length", b"5")], b""), 1)


async def test_head_ends_with_its_head_and_keeps_the_length() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert await first(raw, HEAD) == (Answer(200, [(b"content-length", b"5")], b""), 1)
    assert await first(CHUNKED, HEAD) == (Answer(200, [], b""), 1)


@pytest.mark.parametrize(
    ("raw", "request_"),
    [
        (answer(b"", status=b"204 x") + b"hello", GET),
        (b"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\nhello", GET),
        (answer(b"hello"), HEAD),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", HEAD),
        (CHUNKED + b"5", HEAD),
        (answer() + answer(b"another"), GET),
        (answer() + b"HTTP/1.1 200 OK\r\nX: ", GET),
        (answer() + b"junk", GET),
        (answer() + b"HTTP/1.1 101 x\r\n\r\n", GET),
    ],
)
async def test_bytes_after_an_answer_never_reach_the_next(raw: bytes, request_: Request) -> None:
    got, connections = await first(raw, request_)
    assert got.body in (b"", b"ok")
    assert connections == 2


async def test_bytes_that_come_while_idle_drop_the_connection() -> None:
    late = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"%d" % peer.number))
        await late.wait()
        await peer.send(answer(b"stray"))
        await peer.gone()
        dropped.set()

    dropped = asyncio.Event()
    async with Upstream(script) as upstream:
        backend = upstream.backend()
        assert (await backend.call(GET, soon())).body == b"1"
        assert backend.pool.idle == 1
        late.set()
        await dropped.wait()
        assert backend.pool.idle == 0
        assert (await backend.call(GET, soon())).body == b"2"
        await backend.close()


async def test_interim_answers_are_skipped() -> None:
    raw = b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer()
    assert await first(raw) == (Answer(200, [], b"ok"), 1)


async def test_interim_answer_alone_is_not_one() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.to_thread(int)  # for long enough that the two leave in packets of their own
        await peer.send(answer(b"", status=b"204 x"))
        await peer.gone()

    async with Upstream(script) as upstream:
        backend = upstream.backend()
        assert (await backend.call(GET, soon())).status == 204
        await backend.close()


@pytest.mark.parametrize(
    "raw",
    [
        answer(b"ok", b"Connection: close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nok",
    ],
)
async def test_last_answer_of_a_connection(raw: bytes) -> None:
    assert await closing(raw) == (Answer(200, [], b"ok"), 2)


async def test_connection_close_is_obeyed_though_the_upstream_stays() -> None:
    assert await first(answer(b"ok", b"Connection: close")) == (Answer(200, [], b"ok"), 2)


async def test_http_1_0_with_keep_alive_is_kept() -> None:
    raw = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
    assert await first(raw) == (Answer(200, [], b"ok"), 1)


async def test_empty_body_until_eof() -> None:
    assert await closing(b"HTTP/1.1 200 OK\r\n\r\n") == (Answer(200, [], b""), 2)


async def test_hop_by_hop_fields_stay_here() -> None:
    raw = answer(
        b"ok",
        b"Connection: X-Private, content-type",
        b"X-Private: 1",
        b"Content-Type: a/b",
        b"Keep-Alive: timeout=5",
        b"Proxy-Authenticate: Basic",
        b"Proxy-Status: inner; error=x",
        b"Set-Cookie: a=b",
        b"Set-Cookie: c=d",
    )
    got, connections = await first(raw)
    assert connections == 1
    assert got.headers == [
        (b"content-type", b"a/b"),
        (b"proxy-status", b"inner; error=x"),
        (b"set-cookie", b"a=b"),
        (b"set-cookie", b"c=d"),
    ]


@pytest.mark.parametrize("status", [b"302 Found", b"404 Not Found", b"503 Service Unavailable"])
async def test_every_status_is_an_answer(status: bytes) -> None:
    raw = answer(b"gone", b"Location: http://other.example/", b"Retry-After: 1", status=status)
    got, connections = await first(raw)
    assert (got.status, connections) == (int(status[:3]), 1)
    assert (b"location", b"http://other.example/") in got.headers


async def test_encoded_body_passes_as_it_is() -> None:
    got, _ = await first(answer(b"\x1f\x8bnot really", b"Content-Encoding: gzip"))
    assert got.body == b"\x1f\x8bnot really"
    assert got.headers == [(b"content-encoding", b"gzip")]


async def test_upgrade_offered_but_not_taken_is_an_answer() -> None:
    raw = answer(b"ok", b"Connection: upgrade", b"Upgrade: h2c", status=b"426 Upgrade Required")
    assert await first(raw) == (Answer(426, [], b"ok"), 1)


async def test_early_answer_ends_the_upload() -> None:
    """A 413 before the body was read: delivered, the upload stopped, the connection not used again."""
    hung_up = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer(b"too large", status=b"413 Content Too Large"))
        await peer.gone()
        hung_up.set()

    async with Upstream(script) as upstream:
        backend = upstream.backend()
        got = await backend.call(Request(b"POST", b"/", [], bytes(32 << 20)), soon())
        assert (got.status, got.body) == (413, b"too large")
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)
        await hung_up.wait()


async def test_large_answer_within_the_limit() -> None:
    async with Upstream(echoing(answer(bytes(8 << 20)))) as upstream:
        backend = upstream.backend(max_body=8 << 20)
        assert len((await backend.call(GET, soon())).body) == 8 << 20
        await backend.close()
