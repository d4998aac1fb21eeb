"""Answers that are passed on as they come: pieces, ends, pace, and who holds the connection meanwhile."""

from __future__ import annotations

import asyncio
import random
import resource
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from gateway.backends.answer import HELD
from gateway.backends.base import Answer, Body, Request, Timeouts
from gateway.backends.body import HIGH_WATER, UNREAD, StreamedBody
from gateway.backends.faults import Incomplete, ProtocolFault
from gateway.errors import BackendError, BackendTimeout, ClientGone
from tests.integration.backends.upstream import CHUNKED, Peer, Upstream, answer, echoing, silent, soon, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.backends.http import HttpBackend

pytestmark = pytest.mark.anyio

STREAM = Request(b"POST", b"/", [], b"{}", whole=False)
LAST = b"0\r\n\r\n"
LARGE = 1 << 20


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def rest(got: Answer) -> Body:
    assert got.rest is not None
    return got.rest


async def read(got: Answer) -> bytes:
    return got.body + b"".join([piece async for piece in got.rest or nothing()])


async def nothing() -> AsyncIterator[bytes]:
    for piece in list[bytes]():
        yield piece


class Steps:
    """An upstream that sends the first of `parts` at once and each other when it is told to; told once more, it
    ends the connection if it is to."""

    def __init__(self, *parts: bytes, close: bool = False, reset: bool = False) -> None:
        self._parts = parts
        self._close = close
        self._reset = reset
        self._permits = asyncio.Semaphore(0)
        self.hung_up = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        await peer.send(self._parts[0])
        for part in self._parts[1:]:
            await self._permits.acquire()
            await peer.send(part)
        if self._close or self._reset:
            await self._permits.acquire()
        if self._reset:
            peer.reset()
        elif not self._close:
            await peer.gone()
            self.hung_up.set()

    def go(self, times: int = 1) -> None:
        for _ in range(times):
            self._permits.release()


async def test_pieces_come_as_they_are_sent() -> None:
    steps = Steps(CHUNKED, chunk(b"one"), chunk(b"two") + chunk(b"three"), LAST)
    async with Upstream(steps) as upstream:
        backend = upstream.backend()
        got = await backend.call(STREAM, soon())
        assert (got.status, got.body) == (200, b"")
        pieces = aiter(rest(got))
        steps.go()
        assert await anext(pieces) == b"one"
        steps.go()
        assert await anext(pieces) == b"twothree"  # one read
        steps.go()
        assert [piece async for piece in pieces] == []
        assert repr(backend.pool) == "<Pool 0 busy, 1 idle, 0 waiting, 1 opened>"
        await backend.close()


async def test_what_comes_with_the_head_is_in_the_answer() -> None:
    steps = Steps(CHUNKED + chunk(b"one"), chunk(b"two") + LAST)
    async with Upstream(steps) as upstream:
        backend = upstream.backend()
        got = await backend.call(STREAM, soon())
        assert got.body == b"one"
        steps.go()
        assert await read(got) == b"onetwo"
        await backend.close()


@pytest.mark.parametrize("raw", [answer(b"hello"), CHUNKED + chunk(b"hello") + LAST, answer(b"", status=b"204 x")])
async def test_answer_in_one_segment_is_whole(raw: bytes) -> None:
    async with Upstream(echoing(raw)) as upstream:
        backend = upstream.backend()
        assert (await backend.call(STREAM, soon())).rest is None
        assert (backend.pool.busy, backend.pool.idle) == (0, 1)
        await backend.close()


async def test_answer_to_head_is_whole() -> None:
    async with Upstream(echoing(answer(bytes(LARGE))[:-LARGE])) as upstream:
        backend = upstream.backend()
        got = await backend.call(Request(b"HEAD", b"/", [], whole=False), soon())
        assert (got.headers, got.rest) == ([(b"content-length", b"%d" % LARGE)], None)
        await backend.close()


async def test_answer_that_declares_little_is_collected_first() -> None:
    raw = answer(bytes(HELD))
    steps = Steps(raw[:-1], raw[-1:])
    steps.go(1)
    async with Upstream(steps) as upstream:
        backend = upstream.backend()
        got = await backend.call(STREAM, soon())
        assert (len(got.body), got.rest) == (HELD, None)
        await backend.close()


async def test_answer_that_declares_little_and_brings_less_is_none() -> None:
    steps = Steps(answer(bytes(HELD))[:-1], close=True)
    steps.go()
    async with Upstream(steps) as upstream:
        with pytest.raises(Incomplete):
            await upstream.backend().call(STREAM, soon())


async def test_interim_answers_are_no_head() -> None:
    steps = Steps(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", CHUNKED, LAST)
    steps.go(3)
    async with Upstream(steps) as upstream:
        backend = upstream.backend()
        got = await backend.call(STREAM, soon())
        assert (got.status, got.headers, await read(got)) == (200, [], b"")
        await backend.close()


async def test_trailers_go() -> None:
    steps = Steps(CHUNKED + chunk(b"a"), b"0\r\nX-Trailer: 1\r\n\r\n")
    async with Upstream(steps) as upstream:
        backend = upstream.backend()
        got = await backend.call(STREAM, soon())
        steps.go(2)
        assert (await read(got), got.headers) == (b"a", [])
        assert backend.pool.idle == 1
        await backend.close()


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
async def test_body_until_eof(head: bytes) -> None:
    steps = Steps(head, b"one", b"two", close=True)
    async with Upstream(steps) as upstream:
        backend = upstream.backend()
        got = await backend.call(STREAM, soon())
        steps.go(3)
        assert await read(got) == b"onetwo"
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)


async def test_larger_than_a_whole_answer_may_be() -> None:
    async with Upstream(echoing(answer(bytes(LARGE)))) as upstream:
        backend = upstream.backend(max_body=1000)
        for _ in range(2):
            assert await read(await backend.call(STREAM, soon())) == bytes(LARGE)
        assert upstream.accepted == 1
        await backend.close()


# -- faults after the head


async def fault(*parts: bytes, reset: bool = False) -> BackendError:
    steps = Steps(*parts, close=True, reset=reset)
    async with Upstream(steps) as upstream:
        backend = upstream.backend()
        got = await backend.call(STREAM, soon())
        steps.go(len(parts))
        with pytest.raises(BackendError) as caught:
            await read(got)
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)
        with pytest.raises(type(caught.value)):  # and never a clean end afterwards
            await anext(aiter(rest(got)))
        return caught.value


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "parts",
    [(CHUNKED,), (CHUNKED, b"5\r\nhel"), (CHUNKED, chunk(b"a"), b"0\r\n"), (answer(bytes(LARGE))[:-LARGE], b"half")],
)
async def test_truncated_answer_never_ends_cleanly(parts: tuple[bytes, ...], reset: bool) -> None:
    assert isinstance(await fault(*parts, reset=reset), Incomplete)


async def test_reset_ends_no_body_that_lasts_until_eof() -> None:
    assert isinstance(await fault(b"HTTP/1.1 200 OK\r\n\r\nhalf", reset=True), Incomplete)


async def test_invalid_chunk() -> None:
    assert isinstance(await fault(CHUNKED, chunk(b"a"), b"zz\r\n"), ProtocolFault)


async def test_pieces_before_a_fault_are_handed_over() -> None:
    steps = Steps(CHUNKED, chunk(b"one"), b"zz\r\n", close=True)
    async with Upstream(steps) as upstream:
        backend = upstream.backend()
        pieces = aiter(rest(await backend.call(STREAM, soon())))
        steps.go(3)
        await until(lambda: backend.pool.busy == 0)
        assert await anext(pieces) == b"one"
        with pytest.raises(ProtocolFault):
            await anext(pieces)


async def test_bytes_after_the_end_never_reach_the_next() -> None:
    steps = Steps(CHUNKED, LAST + b"junk")
    async with Upstream(steps) as upstream:
        backend = upstream.backend()
        got = await backend.call(STREAM, soon())
        steps.go()
        assert await read(got) == b""
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)


async def test_deadline_is_for_the_head() -> None:
    async with Upstream(silent) as upstream:
        with pytest.raises(BackendTimeout, match="deadline"):
            await upstream.backend().call(STREAM, soon(0.03))
    steps = Steps(CHUNKED, chunk(b"late") + LAST)
    async with Upstream(steps) as upstream:
        backend = upstream.backend()
        got = await backend.call(STREAM, soon(0.05))
        asyncio.get_running_loop().call_later(0.1, steps.go)
        assert await read(got) == b"late"
        await backend.close()


async def test_silence_between_pieces_is_bounded() -> None:
    steps = Steps(CHUNKED, chunk(b"one"))
    async with Upstream(steps) as upstream:
        backend = upstream.backend(timeouts=Timeouts(idle=0.05))
        got = await backend.call(STREAM, soon())
        steps.go()
        start = soon(0)
        with pytest.raises(BackendTimeout, match=r"nothing for 0\.05 s"):
            await read(got)
        assert 0.048 <= soon(0) - start < 1
        assert backend.pool.busy == 0
        await steps.hung_up.wait()


class Source:
    """The connection's side of a body."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def resume(self) -> None: ...

    def fail(self, error: Exception) -> None:
        self.error = error


class Timed:
    """What a body asks of its loop; time is the test's."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    def body(self, idle_timeout: float) -> StreamedBody:
        return StreamedBody(Source(), cast("asyncio.AbstractEventLoop", self), idle_timeout)


async def test_many_short_silences_are_no_long_one() -> None:
    loop = Timed()
    body = loop.body(idle_timeout=30)
    for _ in range(12):
        piece = asyncio.ensure_future(anext(body))
        await asyncio.sleep(0)
        loop.now += 29
        assert body.check(loop.now) == loop.now + 1
        body.push(b"a")
        assert await piece == b"a"


# -- a slow reader


async def test_slow_reader_stops_the_upstream() -> None:
    total = 64 << 20
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(answer(bytes(total))[:-total])
        for _ in range(total >> 16):
            await peer.send(bytes(1 << 16))
            sent += 1 << 16
        await peer.gone()

    async with Upstream(script) as upstream:
        backend = upstream.backend()
        got = await backend.call(STREAM, soon(30))
        before = -1
        while before < sent:  # until what the sockets hold is full
            before = sent
            await asyncio.sleep(0.02)
        assert sent < total / 2
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        size = len(got.body)
        async for piece in rest(got):
            size += len(piece)
        assert size == total
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 16 << 10  # KiB
        assert (backend.pool.busy, backend.pool.idle) == (0, 1)
        await backend.close()


async def test_slow_reader_is_no_fault_of_the_upstream() -> None:
    """More is here than fits, so reading rests for longer than the idle timeout."""
    loop = Timed()
    body = loop.body(idle_timeout=30)
    assert not body.push(bytes(HIGH_WATER + 1))
    loop.now += 100
    assert body.check(loop.now) == loop.now + 30
    assert await anext(body) == bytes(HIGH_WATER + 1)
    piece = asyncio.ensure_future(anext(body))
    await asyncio.sleep(0)
    loop.now += 29  # counted from when it came back
    assert body.check(loop.now) == loop.now + 1
    body.push(b"more")
    assert await piece == b"more"


async def test_reader_that_never_comes_back_is_given_up_by_and_by() -> None:
    body = Timed().body(idle_timeout=30)
    assert body.check(UNREAD - 1) == UNREAD + 29
    with pytest.raises(ClientGone):
        body.check(UNREAD)


# -- who holds the connection


async def test_stream_holds_its_slot_to_its_end() -> None:
    steps = Steps(CHUNKED, LAST)
    async with Upstream(steps) as upstream:
        backend = upstream.backend(max_connections=1)
        got = await backend.call(STREAM, soon())
        second = asyncio.create_task(backend.call(STREAM, soon(0.03)))
        with pytest.raises(BackendTimeout, match="no connection was free"):
            await second
        steps.go()
        assert await read(got) == b""
        assert (backend.pool.busy, backend.pool.idle) == (0, 1)
        await backend.close()


async def give_up(got: Answer) -> None:
    rest(got).close()
    rest(got).close()
    with pytest.raises(Incomplete, match="given up"):
        await read(got)


async def cancel(got: Answer) -> None:
    reader = asyncio.create_task(read(got))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader


@pytest.mark.parametrize("leave", [give_up, cancel])
async def test_reader_that_leaves_closes_the_connection_at_once(leave: Callable[[Answer], Awaitable[None]]) -> None:
    steps = Steps(CHUNKED)
    async with Upstream(steps) as upstream:
        backend = upstream.backend()
        got = await backend.call(STREAM, soon())
        assert backend.pool.busy == 1
        await leave(got)
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)
        await steps.hung_up.wait()


async def test_closing_a_body_that_has_ended_costs_no_connection() -> None:
    steps = Steps(CHUNKED, chunk(b"a") + LAST)
    async with Upstream(steps) as upstream:
        backend = upstream.backend()
        got = await backend.call(STREAM, soon())
        steps.go()
        await until(lambda: backend.pool.idle == 1)
        rest(got).close()
        assert backend.pool.idle == 1
        with pytest.raises(Incomplete, match="given up"):
            await read(got)
        await backend.close()


async def test_call_cancelled_in_the_tick_of_its_head_closes_the_connection() -> None:
    steps = Steps(CHUNKED)
    async with Upstream(steps) as upstream:
        backend = upstream.backend()
        for ticks in range(60):
            call = asyncio.create_task(backend.call(STREAM, soon()))
            for _ in range(ticks):
                await asyncio.sleep(0)
            call.cancel()
            (got,) = await asyncio.gather(call, return_exceptions=True)
            if isinstance(got, Answer):
                rest(got).close()
            assert backend.pool.busy == 0
        await until(lambda: upstream.open == 0)


async def test_close_of_the_backend_lets_a_stream_finish() -> None:
    steps = Steps(CHUNKED, chunk(b"a") + LAST)
    async with Upstream(steps) as upstream:
        backend = upstream.backend()
        got = await backend.call(STREAM, soon())
        await backend.close()
        steps.go()
        assert await read(got) == b"a"
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)


@pytest.mark.parametrize(("seed", "times"), [(0, 30), (1, 30), pytest.param(2, 500, marks=pytest.mark.slow)])
async def test_streams_left_at_random_moments_leak_nothing(seed: int, times: int) -> None:
    """Twenty callers on ten slots, each cancelled in any phase, the body's too; afterwards every call is served."""
    dice = random.Random(seed)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            for part in (CHUNKED, chunk(b"a"), chunk(b"b"), LAST):
                await peer.send(part)
                for _ in range(dice.randrange(4)):
                    await asyncio.sleep(0)

    async def use(backend: HttpBackend, request: Request) -> bytes:
        got = await backend.call(request, soon())
        try:
            return await read(got)
        finally:
            if got.rest is not None:
                got.rest.close()

    async def caller(backend: HttpBackend) -> None:
        for _ in range(times):
            task = asyncio.create_task(use(backend, msgspec.structs.replace(STREAM, whole=dice.random() < 0.3)))
            for _ in range(dice.randrange(60)):
                await asyncio.sleep(0)
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            assert result == b"ab" or isinstance(result, asyncio.CancelledError)

    async with Upstream(script) as upstream:
        backend = upstream.backend(max_connections=10)
        await asyncio.gather(*[caller(backend) for _ in range(20)])
        assert (backend.pool.busy, backend.pool.waiting) == (0, 0)
        results = await asyncio.gather(*[use(backend, STREAM) for _ in range(30)])
        assert results == [b"ab"] * 30
        await backend.close()
        await until(lambda: upstream.open == 0)
