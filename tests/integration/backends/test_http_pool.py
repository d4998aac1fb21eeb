"""Reuse, bounds and cancellation: what the pool keeps, and that it loses nothing."""

from __future__ import annotations

import asyncio
import random
import re
from typing import TYPE_CHECKING

import pytest

from gateway.backends.base import Answer, Timeouts
from gateway.backends.faults import Incomplete
from gateway.errors import BackendTimeout, BackendUnavailable
from tests.integration.backends.upstream import GET, POST, Peer, Upstream, answer, echoing, silent, soon, until

if TYPE_CHECKING:
    from gateway.backends.http import HttpBackend

pytestmark = pytest.mark.anyio


def start(backend: HttpBackend, seconds: float = 5.0) -> asyncio.Task[Answer]:
    return asyncio.create_task(backend.call(POST, soon(seconds)))


class Gate:
    """An upstream that answers one waiting request per `open`, in the order of arrival."""

    def __init__(self) -> None:
        self._permits = asyncio.Semaphore(0)

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            await self._permits.acquire()
            await peer.send(answer(b"%d" % peer.number))

    def open(self, times: int = 1) -> None:
        for _ in range(times):
            self._permits.release()


async def test_calls_in_turn_share_one_connection() -> None:
    async with Upstream(echoing(answer())) as upstream:
        backend = upstream.backend()
        for _ in range(20):
            await backend.call(POST, soon())
        assert repr(backend.pool) == "<Pool 0 busy, 1 idle, 0 waiting, 1 opened>"
        await backend.close()


async def test_connection_used_last_is_reused_first() -> None:
    gate = Gate()
    async with Upstream(gate) as upstream:
        backend = upstream.backend()
        calls = [start(backend) for _ in range(3)]
        await until(lambda: len(upstream.requests) == 3)
        gate.open(3)
        await asyncio.gather(*calls)
        assert backend.pool.idle == 3
        gate.open(2)
        last = (await backend.call(POST, soon())).body
        assert (await backend.call(POST, soon())).body == last
        await backend.close()


async def test_connection_idle_for_too_long_is_not_reused() -> None:
    """By its age alone: the reaper has not run."""
    async with Upstream(echoing(answer())) as upstream:
        backend = upstream.backend(timeouts=Timeouts(keepalive=60))
        await backend.call(POST, soon())
        assert backend.pool.reuse(soon(60)) is None
        await until(lambda: upstream.open == 0)
        await backend.close()


async def test_idle_connections_are_closed_though_nobody_calls() -> None:
    async with Upstream(echoing(answer())) as upstream:
        backend = upstream.backend(timeouts=Timeouts(keepalive=0.02))
        await backend.call(POST, soon())
        await until(lambda: backend.pool.idle == 0 and upstream.open == 0)
        assert backend.pool.busy == 0


async def test_no_more_than_max_idle_are_kept() -> None:
    gate = Gate()
    async with Upstream(gate) as upstream:
        backend = upstream.backend(max_idle=2)
        calls = [start(backend) for _ in range(5)]
        await until(lambda: len(upstream.requests) == 5)
        gate.open(5)
        await asyncio.gather(*calls)
        assert backend.pool.idle == 2
        await until(lambda: upstream.open == 2)
        await backend.close()


async def test_max_idle_does_not_close_what_waiting_calls_need() -> None:
    async with Upstream(echoing(answer())) as upstream:
        backend = upstream.backend(max_connections=4, max_idle=1)
        await asyncio.gather(*[backend.call(POST, soon()) for _ in range(40)])
        assert backend.pool.opened <= 8  # four to begin with; the last of each may close one
        await backend.close()


async def test_callers_beyond_the_bound_wait_in_line() -> None:
    gate = Gate()
    done: list[int] = []
    async with Upstream(gate) as upstream:
        backend = upstream.backend(max_connections=2)

        async def call(number: int) -> None:
            await backend.call(POST, soon())
            done.append(number)

        calls = [asyncio.create_task(call(number)) for number in range(6)]
        await until(lambda: len(upstream.requests) == 2)
        assert (backend.pool.busy, backend.pool.waiting) == (2, 4)
        for served in range(1, 7):
            gate.open()
            await until(lambda served=served: len(done) == served)  # type: ignore[misc]
        await asyncio.gather(*calls)
        assert done[2:] == [2, 3, 4, 5]  # the first two had no need to wait
        assert (upstream.accepted, backend.pool.busy, backend.pool.waiting) == (2, 0, 0)
        await backend.close()


async def test_full_line_turns_callers_away_at_once() -> None:
    async with Upstream(silent) as upstream:
        backend = upstream.backend(max_connections=1, max_waiting=2)
        calls = [start(backend) for _ in range(3)]
        await until(lambda: backend.pool.waiting == 2)
        with pytest.raises(BackendUnavailable) as caught:
            await backend.call(POST, soon())
        assert re.search("2 calls wait", caught.value.about)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert (backend.pool.busy, backend.pool.idle, backend.pool.waiting) == (0, 0, 0)


async def test_waiting_counts_against_the_deadline() -> None:
    async with Upstream(silent) as upstream:
        backend = upstream.backend(max_connections=1)
        first = start(backend)
        await until(lambda: len(upstream.requests) == 1)
        with pytest.raises(BackendTimeout, match="no connection was free"):
            await backend.call(POST, soon(0.03))
        assert (backend.pool.busy, backend.pool.waiting) == (1, 0)
        first.cancel()


async def test_slot_granted_to_a_call_cancelled_in_the_same_tick_is_passed_on() -> None:
    gate = Gate()
    async with Upstream(gate) as upstream:
        backend = upstream.backend(max_connections=1)
        assert backend.pool.claim()
        second, third = start(backend), start(backend)
        await until(lambda: backend.pool.waiting == 2)
        backend.pool.release()
        second.cancel()
        gate.open()
        assert (await third).status == 200
        assert second.cancelled()
        assert (backend.pool.busy, backend.pool.waiting) == (0, 0)
        await backend.close()


async def test_call_cancelled_in_flight_closes_its_connection() -> None:
    async with Upstream(silent) as upstream:
        backend = upstream.backend()
        call = start(backend)
        await until(lambda: len(upstream.requests) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)
        await until(lambda: upstream.open == 0)


async def test_call_cancelled_while_connecting() -> None:
    async with Upstream(silent) as upstream:
        backend = upstream.backend()
        for ticks in range(6):
            call = start(backend)
            for _ in range(ticks):
                await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert (backend.pool.busy, backend.pool.idle) == (0, 0)
        await until(lambda: upstream.open == 0)


@pytest.mark.parametrize("seed", range(5))
async def test_calls_cancelled_at_random_moments_leak_nothing(seed: int) -> None:
    """Twenty callers on ten slots, cancelled in every phase; afterwards every call is served."""
    dice = random.Random(seed)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            for part in (b"HTTP/1.1 200 OK\r\n", b"Content-Length: 2\r\n\r\n", b"o", b"k"):
                await peer.send(part)
                for _ in range(dice.randrange(4)):
                    await asyncio.sleep(0)

    async with Upstream(script) as upstream:
        backend = upstream.backend(max_connections=10)
        ended: list[str] = []

        async def caller() -> None:
            for _ in range(30):
                call = start(backend)
                for _ in range(dice.randrange(40)):
                    await asyncio.sleep(0)
                call.cancel()
                (result,) = await asyncio.gather(call, return_exceptions=True)
                ended.append(type(result).__name__)

        await asyncio.gather(*[caller() for _ in range(20)])
        assert set(ended) == {"Answer", "CancelledError"}
        assert (backend.pool.busy, backend.pool.waiting) == (0, 0)

        answers = await asyncio.gather(*[backend.call(POST, soon()) for _ in range(30)])
        assert [got.body for got in answers] == [b"ok"] * 30
        await backend.close()
        assert repr(backend.pool).startswith("<Pool 0 busy, 0 idle, 0 waiting, ")
        await until(lambda: upstream.open == 0)


async def test_heads_that_never_come_take_nothing_with_them() -> None:
    """A thousand attempts run into their deadline; afterwards every call is served."""
    awake = False

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            if awake:
                await peer.send(answer())

    async with Upstream(script) as upstream:
        backend = upstream.backend(max_connections=50)
        for _ in range(10):
            calls = [start(backend, 0.03) for _ in range(100)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(result, BackendTimeout | BackendUnavailable) for result in results)
        assert (backend.pool.busy, backend.pool.idle, backend.pool.waiting) == (0, 0, 0)
        awake = True
        answers = await asyncio.gather(*[backend.call(POST, soon()) for _ in range(100)])
        assert {got.status for got in answers} == {200}
        await backend.close()


async def test_close_turns_waiters_away_and_lets_the_call_under_way_finish() -> None:
    gate = Gate()
    async with Upstream(gate) as upstream:
        backend = upstream.backend(max_connections=1)
        under_way, waiting = start(backend), start(backend)
        await until(lambda: len(upstream.requests) == 1 and backend.pool.waiting == 1)
        await backend.close()
        with pytest.raises(BackendUnavailable):
            await waiting
        gate.open()
        assert (await under_way).status == 200
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)
        with pytest.raises(BackendUnavailable):
            await backend.call(GET, soon())
        await until(lambda: upstream.open == 0)


async def test_upstream_that_hangs_up_at_once_is_not_a_connect_fault() -> None:
    async def script(peer: Peer) -> None:
        peer.close()

    async with Upstream(script) as upstream:
        backend = upstream.backend()
        with pytest.raises(Incomplete):
            await backend.call(GET, soon())
        assert (upstream.accepted, backend.pool.busy) == (1, 0)
