"""Cases U7 to U12 and U17 to U23: answers that stall, break off, are no HTTP, are too large, or are merely unusual."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from gateway.memory import resident
from tests.faults.gateway import Gateway, get, plain, post, request, standing_still
from tests.integration.backends.upstream import CHUNKED, Peer, Script, Upstream, answer, echoing, playing
from tests.integration.serving.local_worker import INFER, endpoint, http, infer_body

pytestmark = pytest.mark.anyio


def saying(*pieces: bytes, then: str = "close") -> Script:
    """These bytes for every request, then the end in one of three ways."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            for piece in pieces:
                await peer.send(piece)
            if then == "reset":
                peer.reset()
            if then == "wait":
                await peer.gone()
            if then != "more":
                return

    return script


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (CHUNKED, b"4\r\nhalf\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n", b"half"),
    ],
    ids=["chunked", "declared"],
)
async def test_u7_a_body_that_stalls_is_cut_and_never_ends_cleanly(gateway: Gateway, head: bytes, piece: bytes) -> None:
    async with Upstream(saying(head, piece, then="wait")) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}", idle_timeout=0.1))
        heard = await gateway.ask(get())
        assert (heard.status, heard.body, heard.whole) == (200, b"half", False)
    kept = await gateway.exposure()
    assert (kept.completed.end, kept.completed.error, kept.completed.status) == ("failed", "deadline", 504)
    assert gateway.counted("a") == (1, 1)


async def test_u7_a_short_body_that_stalls_is_an_error_of_the_usual_form(gateway: Gateway) -> None:
    """Nothing of it has been passed on, so it can still be told."""
    stalling = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", then="wait")
    async with Upstream(stalling) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}", idle_timeout=0.1))
        heard = await gateway.ask(post(b"{}"))
        assert (heard.status, heard.proxy_error) == (504, "http_response_timeout")
    assert (await gateway.exposure()).completed.error == "deadline"


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (CHUNKED, b"4\r\nhalf\r\n"),
        (CHUNKED, b"a\r\nhalf"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n", b"half"),
    ],
)
async def test_u8_a_truncated_stream_is_a_broken_transfer(
    gateway: Gateway, head: bytes, piece: bytes, then: str
) -> None:
    async with Upstream(saying(head, piece, then=then)) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        heard = await gateway.ask(get())
        assert (heard.status, heard.whole) == (200, False)
        assert b"half".startswith(heard.body)
    kept = await gateway.exposure()
    assert (kept.completed.end, kept.completed.error) == ("failed", "incomplete")
    assert gateway.counted("a") == (1, 1)


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_u8_a_truncated_short_answer_is_never_passed_on(gateway: Gateway, then: str) -> None:
    async with Upstream(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", then=then)) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        heard = await gateway.ask(post(b"{}"))
        assert (heard.status, heard.proxy_error) == (502, "http_response_incomplete")
    assert (await gateway.exposure()).completed.error == "incomplete"
    assert gateway.counted("a") == (1, 1)


NO_HTTP = {
    "junk": b"hello\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 0\r\n\r\n",
    "NUL in a name": b"HTTP/1.1 200 OK\r\nA\0b: c\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
    "length and coding": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "obs-fold": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "unasked switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("said", NO_HTTP.values(), ids=NO_HTTP)
async def test_u9_what_is_no_http_reaches_nobody(gateway: Gateway, said: bytes) -> None:
    async with Upstream(saying(said, then="wait")) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        for _ in range(2):
            heard = await gateway.ask(post(b"{}"))
            assert (heard.status, heard.proxy_error) == (502, "http_protocol_error")
            assert heard.problem["type"] == "urn:gateway:backend_protocol"
        assert upstream.accepted == 2  # no connection is used again
    assert {one.completed.error for one in await gateway.exposures(2)} == {"protocol"}
    assert gateway.counted("a") == (2, 2)


async def test_u9_a_bad_chunk_breaks_the_stream_off(gateway: Gateway) -> None:
    seen = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"3\r\none\r\n")
        await seen.wait()
        await peer.send(b"zz\r\ntwo\r\n")
        await peer.gone()

    async with Upstream(script) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(get())
        assert await client.chunk() == b"one"
        seen.set()
        assert await client.closed()
    assert (await gateway.exposure()).completed.error == "protocol"


@pytest.mark.parametrize("stray", [answer(b"stolen"), b"\r\nx"])
async def test_u9_bytes_behind_an_answer_are_nobodys(gateway: Gateway, stray: bytes) -> None:
    async with Upstream(saying(answer(b"mine") + stray, then="more")) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        for _ in range(3):
            heard = await gateway.ask(post(b"{}"))
            assert (heard.status, heard.body) == (200, b"mine")
        assert upstream.accepted == 3


@pytest.mark.parametrize(
    "fields",
    [b"A: " + b"x" * (1 << 20) + b"\r\n", b"A: b\r\n" * 10_000, b"A: %b\r\n" % (b"x" * 1000) * 70],
    ids=["one field of a mebibyte", "ten thousand fields", "seventy of a kilobyte"],
)
async def test_u10_a_head_beyond_the_limit(gateway: Gateway, fields: bytes) -> None:
    async with Upstream(
        saying(b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 0\r\n\r\n", then="wait")
    ) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        heard = await gateway.ask(post(b"{}"))
        assert (heard.status, heard.proxy_error) == (502, "http_response_header_section_size")
    assert (await gateway.exposure()).completed.error == "output"
    assert gateway.counted("a") == (1, 1)


@pytest.mark.parametrize("mebibytes", [64, pytest.param(2048, marks=pytest.mark.slow)])
async def test_u11_a_large_body_waits_for_a_slow_reader_and_not_in_memory(gateway: Gateway, mebibytes: int) -> None:
    mebibyte, sent = bytes(1 << 20), 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (mebibytes << 20))
        for _ in range(mebibytes):
            await peer.send(mebibyte)
            sent += len(mebibyte)
        await peer.gone()

    async with Upstream(script) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        before = resident()
        await client.send(get())
        await standing_still(lambda: sent)
        assert sent <= 32 << 20  # what fits into the kernel's buffers on both sides
        got = 0
        async for size in client.pieces():
            got += size
            assert resident() - before < 64 << 20
        assert got == mebibytes << 20
    kept = await gateway.exposure()
    assert (kept.completed.end, kept.completed.error) == ("answered", "")


@pytest.mark.parametrize("declared", [True, False])
async def test_u12_an_answer_that_must_be_whole_and_is_too_large(gateway: Gateway, declared: bool) -> None:
    size = (64 << 20) + 1
    head = b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: %d\r\n\r\n" % size if declared else b"\r\n")
    async with Upstream(saying(head, bytes(1 if declared else size), then="wait")) as upstream:
        await gateway.publish(endpoint(http("a", "champion", f"http://{upstream.authority}")))
        heard = await gateway.ask(post(infer_body(), INFER))
        assert (heard.status, heard.proxy_error) == (502, "http_response_body_size")
    assert (await gateway.exposure()).completed.error == "output"
    assert gateway.counted("a", name="flight") == (1, 1)


async def test_u17_each_answer_ends_where_it_says_and_the_next_is_right(gateway: Gateway) -> None:
    unusual = [
        (b"GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(b"late"), 200),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"GET", b'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: "a"\r\n\r\n', 304),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
    ]
    script = playing(*[piece for _, said, _ in unusual for piece in (said, answer(b"next"))])
    async with Upstream(script) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        for method, _, status in unusual:
            await client.send(request(method.decode(), "/plain/x"))
            heard = await client.answer(head_only=method == b"HEAD")
            assert heard.status == status
            await client.send(get())
            assert (await client.answer()).body == b"next"
        assert upstream.accepted == 1
    assert gateway.counted("a") == (10, 0)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_u17_a_body_where_there_can_be_none_is_no_answer_to_the_next(gateway: Gateway, status: bytes) -> None:
    bad = b"HTTP/1.1 " + status + b"\r\n\r\n" + answer(b"stolen")
    async with Upstream(saying(bad, then="more")) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        for _ in range(2):
            await client.send(get())
            assert (await client.answer()).status == int(status[:3])
        assert upstream.accepted == 2


async def test_u18_an_answer_that_overtakes_its_upload_is_delivered(gateway: Gateway) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer(b"no", status=b"413 Content Too Large"))
        await peer.gone()

    async with Upstream(script) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"), max_body=1 << 30)
        client = await gateway.connect()
        await client.send(request("POST", "/plain/x", "content-length: 500000000") + b"x" * 100_000)
        heard = await client.answer()
        assert (heard.status, heard.body, heard.proxy_error) == (413, b"no", "")
    kept = await gateway.exposure()
    assert (kept.completed.end, kept.completed.error) == ("answered", "")


async def test_u19_a_bomb_passes_undecoded(gateway: Gateway) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    async with Upstream(echoing(answer(bomb, b"Content-Encoding: gzip"))) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        heard = await gateway.ask(get())
        assert heard.body == bomb
        assert heard.headers["content-encoding"] == "gzip"


async def test_u20_a_redirect_is_the_clients_to_follow(gateway: Gateway) -> None:
    async with Upstream(echoing(answer(b"moved"))) as other:
        moved = answer(b"", b"Location: http://%b/x" % other.authority.encode(), status=b"302 Found")
        async with Upstream(echoing(moved)) as upstream:
            await gateway.publish(plain(f"http://{upstream.authority}"))
            heard = await gateway.ask(get())
        assert (heard.status, heard.headers["location"]) == (302, f"http://{other.authority}/x")
        assert other.accepted == 0
    assert gateway.counted("a") == (1, 0)


async def test_u23_every_chunk_is_passed_on_at_once_and_trailers_are_not_taken_for_more(gateway: Gateway) -> None:
    more = asyncio.Queue[bytes]()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        while piece := await more.get():
            await peer.send(piece)

    async with Upstream(script) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(get())
        for number in range(20):  # the next is sent when this one has arrived
            more.put_nowait(b"2\r\n%02d\r\n" % number)
            assert await client.chunk() == b"%02d" % number
        more.put_nowait(b"0\r\nX-Sum: 1\r\n\r\n")
        assert await client.chunk() == b""
        more.put_nowait(b"")
    kept = await gateway.exposure()
    assert (kept.completed.end, kept.completed.error) == ("answered", "")
