"""Cases C4 and C16 to C18: clients that leave, that seem to leave, and that do not read."""

from __future__ import annotations

import asyncio
import http.client
import socket
from pathlib import Path

import pytest

from gateway.serving.http1.head import Limits
from tests.faults.gateway import Gateway, RawClient, get, open_gateway, plain, post, recording, request, settled
from tests.integration.backends.upstream import CHUNKED, Peer, Script, Upstream, answer, silent

pytestmark = pytest.mark.anyio
SOON = 1.0  # seconds in which the upstream of a client that has left is let go
LARGE = 200_000  # bytes: passed on while they come


class Held:
    """An upstream that takes a request and answers when it is told; `left` once the gateway has let go of it."""

    def __init__(self, first: bytes = b"") -> None:
        self.asked, self.go, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._first = first

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        if self._first:
            await peer.send(self._first)
        self.asked.set()
        told, gone = asyncio.ensure_future(self.go.wait()), asyncio.ensure_future(peer.gone())
        await asyncio.wait((told, gone), return_when=asyncio.FIRST_COMPLETED)
        if not told.done():
            told.cancel()
            self.left.set()
            return
        await peer.send(answer(b"late"))
        await gone


def leave(client: RawClient, how: str) -> None:
    client.close() if how == "close" else client.reset()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_c17_who_leaves_before_the_answer_ends_the_work_for_it(gateway: Gateway, how: str) -> None:
    held = Held()
    async with Upstream(held) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(get())
        await held.asked.wait()
        leave(client, how)
        async with asyncio.timeout(SOON):
            await held.left.wait()
        kept = await gateway.exposure()
        assert (kept.completed.end, kept.completed.status, kept.completed.error) == ("client_closed", 499, "")
        assert gateway.counted("a") == (1, 0)
        assert gateway.rejected("client_closed") == 0


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_c17_who_leaves_in_the_midst_of_a_stream_ends_it(gateway: Gateway, how: str) -> None:
    left = asyncio.Event()

    async def streaming(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        try:
            while True:
                await peer.send(b"5\r\npiece\r\n")
                await asyncio.sleep(0.02)
        except ConnectionError:
            left.set()

    async with Upstream(streaming) as upstream:
        await gateway.publish(plain("http://127.0.0.1:1", f"http://{upstream.authority}", share=0.5))
        client = await gateway.connect()
        await client.send(get("/plain/x", f"x-user-id: {gateway.user_of('b').decode()}"))
        await client.until(b"piece")
        leave(client, how)
        async with asyncio.timeout(SOON):
            await left.wait()
        kept = await gateway.exposure()
        assert (kept.completed.end, kept.completed.status, kept.completed.error) == ("client_closed", 200, "")
        assert gateway.counted("b") == (1, 0)
        assert gateway.counted("a") == (0, 0)


async def test_c17_who_leaves_behind_what_forwards_tcp_is_found_as_well(gateway: Gateway) -> None:
    """As a balancer of layer 4 does it: the end of file is passed on, and the rest of the connection stays open."""
    held = Held()
    async with Upstream(held) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(get())
        await held.asked.wait()
        client.half_close()
        assert await client.interim() == 100
        client.close()  # what a forwarder does when it has passed on the interim answer, and heard a reset
        async with asyncio.timeout(2 * SOON):
            await held.left.wait()
        assert (await gateway.exposure()).completed.end == "client_closed"


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_c16_who_leaves_while_sending_a_short_body_was_never_assigned(gateway: Gateway, how: str) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(request("POST", "/plain/x", "content-length: 100") + b"half")
        await settled(gateway.is_answering)
        leave(client, how)
        await settled(lambda: gateway.rejected("client_closed") == 1)
        gateway.nothing_kept()
        assert upstream.accepted == 0


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_c16_who_leaves_while_sending_a_long_body_cancels_the_upstream(gateway: Gateway, how: str) -> None:
    began, left = asyncio.Event(), asyncio.Event()

    async def reading(peer: Peer) -> None:
        await peer.head()
        await peer.read(100)
        began.set()
        await peer.gone()
        left.set()

    async with Upstream(reading) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(request("POST", "/plain/x", f"content-length: {LARGE}") + b"x" * (LARGE // 2))
        await began.wait()
        leave(client, how)
        async with asyncio.timeout(SOON):
            await left.wait()
        kept = await gateway.exposure()
        assert (kept.completed.end, kept.completed.error) == ("client_closed", "")
        assert gateway.counted("a") == (1, 0)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("data", [get(), post(b"{}"), post(b"x" * LARGE)], ids=["GET", "POST", "upload"])
async def test_c18_who_half_closes_is_answered(gateway: Gateway, data: bytes, version: str) -> None:
    held = Held()
    async with Upstream(held) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(data.replace(b"HTTP/1.1", f"HTTP/{version}".encode()))
        client.half_close()
        await held.asked.wait()
        if version == "1.1":
            assert await client.interim() == 100
        held.go.set()
        heard = await client.answer()
        assert (heard.status, heard.body, heard.headers["connection"]) == (200, b"late", "close")
        assert await client.closed()
        assert (await gateway.exposure()).completed.end == "answered"
        assert gateway.counted("a") == (1, 0)


async def test_c17_who_leaves_a_stream_that_is_silent_is_found_before_its_next_piece(gateway: Gateway) -> None:
    left = asyncio.Event()

    async def streaming(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"5\r\nfirst\r\n")
        await peer.gone()
        left.set()

    async with Upstream(streaming) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(get())
        await client.until(b"first")
        client.close()
        async with asyncio.timeout(SOON):
            await left.wait()
        assert (await gateway.exposure()).completed.end == "client_closed"


def in_two(go: asyncio.Event, rest: bytes) -> Script:
    """The beginning of a stream at once, the rest when it may go on."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"5\r\nfirst\r\n")
        await go.wait()
        await peer.send(rest)

    return script


async def test_c18_who_half_closes_in_a_silent_stream_gets_it_unchanged(gateway: Gateway) -> None:
    """Whether it is still there is asked with digits that count for nothing."""
    go = asyncio.Event()
    async with Upstream(in_two(go, b"10\r\nsixteen of these\r\n0\r\n\r\n")) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(get())
        await client.until(b"first\r\n")
        client.half_close()
        await client.until(b"00")  # it was asked twice
        go.set()
        assert await client.rest() == b"10\r\nsixteen of these\r\n0\r\n\r\n"  # 0010 is 10, RFC 9112 7.1
        assert (await gateway.exposure()).completed.end == "answered"


async def test_c18_who_half_closes_in_the_midst_of_a_stream_gets_the_rest(gateway: Gateway) -> None:
    go = asyncio.Event()
    async with Upstream(in_two(go, b"4\r\nlast\r\n0\r\n\r\n")) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(get())
        assert (await client.until(b"first")).startswith(b"HTTP/1.1 200")
        client.half_close()
        go.set()
        assert (await client.rest()).endswith(b"4\r\nlast\r\n0\r\n\r\n")
        assert (await gateway.exposure()).completed.end == "answered"


async def test_c18_all_that_was_asked_before_is_answered(gateway: Gateway) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(get("/plain/1") + get("/plain/2") + post(b"x", "/plain/3") + b"GET /plain/4 HTTP")
        client.half_close()
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 200]
        assert await client.closed()
        assert len(await gateway.exposures(3)) == len(upstream.requests) == 3


async def test_c18_an_idle_connection_that_is_half_closed_is_closed(gateway: Gateway) -> None:
    await gateway.publish(plain("http://127.0.0.1:1"))
    client = await gateway.connect()
    client.half_close()
    assert await client.closed()
    gateway.nothing_kept()


async def test_c18_the_client_of_the_standard_library_half_closes_and_reads(gateway: Gateway) -> None:
    def ask() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5)
        connection.request("POST", "/plain/x", b"{}")
        connection.sock.shutdown(socket.SHUT_WR)
        response = connection.getresponse()
        heard = response.status, response.read()
        connection.close()
        return heard

    held = Held()
    async with Upstream(held) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        asking = asyncio.ensure_future(asyncio.to_thread(ask))
        await held.asked.wait()
        await asyncio.sleep(0)
        held.go.set()
        assert await asking == (200, b"late")


class Endless:
    """Answers without end, and counts its bytes."""

    sent = 0

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        while True:
            await peer.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            self.sent += 65_536


async def test_c4_who_does_not_read_holds_up_the_upstream_and_is_cut_off(tmp_path: Path) -> None:
    endless = Endless()
    async with open_gateway(tmp_path, Limits(send_timeout=0.3)) as gateway, Upstream(endless) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(get())
        kept = await gateway.exposure()  # ended by the gateway alone
        assert (kept.completed.end, kept.completed.error) == ("client_closed", "")
        assert 65_536 < endless.sent < 32 << 20  # what the kernel's buffers take
        assert gateway.counted("a") == (1, 0)
        await settled(lambda: upstream.open == 0)


async def test_c4_who_does_not_read_a_whole_answer_is_let_go(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Limits(send_timeout=0.3)) as gateway, Upstream(playing_large) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(get())
        kept = await gateway.exposure()
        assert (kept.completed.end, kept.completed.error) == ("client_closed", "")
        await settled(lambda: gateway.connections == 0)


async def playing_large(peer: Peer) -> None:
    await peer.request()
    await peer.send(answer(b"x" * (40 << 20)))  # more than buffers on the way take
    await peer.gone()


async def test_c18_an_upstream_that_never_answers_is_told_to_who_half_closed(gateway: Gateway) -> None:
    """A half-closed client whose upstream never answers hears of the deadline."""
    async with Upstream(silent) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}", timeout=0.2))
        client = await gateway.connect()
        await client.send(get())
        client.half_close()
        heard = await client.answer()
        assert (heard.status, heard.proxy_error) == (504, "http_response_timeout")
        assert (await gateway.exposure()).completed.error == "deadline"
