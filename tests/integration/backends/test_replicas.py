"""Several replicas of one upstream, over real sockets: who is asked, who is left out, and what is tried again."""

from __future__ import annotations

import asyncio
import errno
import gc
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from gateway.backends import pool
from gateway.backends.base import Request, Timeouts
from gateway.backends.faults import ConnectFailed, NoSlotInTime, Unanswered
from gateway.backends.http import HttpBackend
from gateway.backends.upstream import Upstream as Replicated
from gateway.errors import BackendError, BackendTimeout, OutOfDescriptors
from gateway.plan import CheckPlan
from tests.integration.backends.upstream import (
    CHUNKED,
    GET,
    POST,
    Peer,
    Script,
    Upstream,
    answer,
    echoing,
    playing,
    silent,
    soon,
    until,
)

pytestmark = pytest.mark.anyio
REFUSED = "http://127.0.0.1:1"
BUSY = answer(b"busy", b"Retry-After: 30", status=b"503 Service Unavailable")
BROKEN = answer(b"broken", status=b"502 Bad Gateway")
FAILED = answer(b"failed", status=b"500 Internal Server Error")


class Told:
    """Counts what happened among the replicas."""

    def __init__(self) -> None:
        self.retries: Counter[str] = Counter()
        self.ejections: Counter[str] = Counter()
        self.rotation: dict[str, bool] = {}

    def retried(self, reason: str) -> None:
        self.retries[reason] += 1

    def ejected(self, upstream: str) -> None:
        self.ejections[upstream] += 1

    def available(self, upstream: str, available: bool) -> None:
        self.rotation[upstream] = available


class Pair:
    """A replicated backend, what it told, and the scripted upstreams behind it."""

    def __init__(self, backend: Replicated, told: Told, upstreams: list[Upstream]) -> None:
        self.backend = backend
        self.told = told
        self.upstreams = upstreams

    def seen(self) -> list[int]:
        return [len(upstream.requests) for upstream in self.upstreams]

    async def get(self, request: Request = GET, seconds: float = 5.0) -> bytes:
        return (await self.backend.call(request, soon(seconds))).body


@asynccontextmanager
async def behind(
    *scripts: Script | str,
    most_retries: int = 1,
    check: CheckPlan | None = None,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 - a constant
    idempotent: bool = False,
) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        upstreams = [
            await stack.enter_async_context(Upstream(script)) for script in scripts if not isinstance(script, str)
        ]
        there = iter(upstreams)
        urls = [s if isinstance(s, str) else f"http://{next(there).authority}" for s in scripts]
        replicas = [HttpBackend(url, timeouts=timeouts, idempotent=idempotent) for url in urls]
        told = Told()
        backend = Replicated(replicas, told, most_retries=most_retries, check=check, luck=lambda: 0.5)
        try:
            yield Pair(backend, told, upstreams)
        finally:
            await backend.close()


async def test_requests_go_to_the_replica_with_the_fewest_outstanding() -> None:
    async with behind(silent, echoing(answer(b"b"))) as pair:
        stuck = asyncio.create_task(pair.get(POST))
        other = asyncio.create_task(pair.get(POST))
        await until(lambda: sum(pair.seen()) == 2)
        for _ in range(10):
            assert await pair.get(POST) == b"b"
        assert pair.seen() == [1, 11]
        for task in (stuck, other):
            task.cancel()


async def test_idle_replicas_take_turns() -> None:
    async with behind(*[echoing(answer(name)) for name in (b"a", b"b", b"c")]) as pair:
        assert Counter([await pair.get() for _ in range(30)]) == {b"a": 10, b"b": 10, b"c": 10}


async def test_what_nobody_has_heard_of_goes_to_another_replica_whatever_its_method() -> None:
    async with behind(REFUSED, echoing(answer(b"b"))) as pair:
        assert [await pair.get(POST) for _ in range(4)] == [b"b"] * 4
        assert pair.told.retries.keys() == {"connect"}


async def test_one_that_may_have_been_heard_is_repeated_only_where_that_is_safe() -> None:
    async def hangs_up(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    async with behind(hangs_up, echoing(answer(b"b"))) as pair:
        assert [await pair.get(GET) for _ in range(4)] == [b"b"] * 4
        results = await asyncio.gather(*[pair.get(POST) for _ in range(2)], return_exceptions=True)
        assert [type(result) for result in results if result != b"b"] == [Unanswered]
    async with behind(hangs_up, echoing(answer(b"b")), idempotent=True) as pair:
        assert [await pair.get(POST) for _ in range(4)] == [b"b"] * 4


async def test_the_replica_that_keeps_failing_is_left_out_and_the_last_one_never() -> None:
    async with behind(echoing(FAILED), echoing(answer(b"b"))) as pair:
        said = Counter([await pair.get() for _ in range(40)])
        assert said[b"failed"] == 5
        assert said[b"b"] == 35
        bad, good = (f"http://{one.authority}" for one in pair.upstreams)
        assert pair.told.ejections == {bad: 1}
        pair.backend.report()
        assert pair.told.rotation == {bad: False, good: True}
    async with behind(echoing(FAILED), echoing(FAILED)) as pair:
        assert [await pair.get() for _ in range(40)] == [b"failed"] * 40  # all are out, so all are asked


async def test_an_ejected_replica_is_not_even_asked_again_by_retries() -> None:
    async with behind(echoing(BROKEN), echoing(answer(b"b"))) as pair:
        said = [await pair.get() for _ in range(40)]
        assert said == [b"b"] * 40
        assert pair.seen()[0] == 5
        assert pair.told.retries == {"status": 5}


async def test_streams_that_break_off_count_against_their_replica() -> None:
    """Else the one that fails fastest would always have the fewest outstanding."""

    async def breaks_off(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"3\r\none\r\n")
        peer.reset()

    stream = Request(b"GET", b"/", [], whole=False)
    async with behind(breaks_off, echoing(answer(b"b"))) as pair:
        for _ in range(30):
            got = await pair.backend.call(stream, soon())
            if got.rest is not None:
                with pytest.raises(Exception, match="too early"):
                    async for _ in got.rest:
                        pass
        assert pair.upstreams[0].accepted == 5
        assert list(pair.told.ejections.values()) == [1]


@pytest.mark.parametrize("status", [b"502 Bad Gateway", b"503 Service Unavailable", b"504 Gateway Timeout"])
async def test_one_more_try_of_the_only_replica_comes_after_a_moment(status: bytes) -> None:
    async with behind(playing(answer(b"no", status=status), answer(b"yes"))) as pair:
        start = soon(0)
        got = await pair.backend.call(GET, soon())
        assert (got.body, got.tries) == (b"yes", 2)
        assert soon(0) - start >= 0.02


@pytest.mark.parametrize("status", [b"500 Oh", b"501 Oh", b"505 Oh", b"404 Oh", b"429 Too Many Requests", b"408 Oh"])
async def test_no_other_status_is_tried_again(status: bytes) -> None:
    async with behind(playing(answer(b"no", status=status), answer(b"yes"))) as pair:
        got = await pair.backend.call(GET, soon())
        assert (got.body, got.tries) == (b"no", 1)


@pytest.mark.parametrize("status", [b"429 Too Many Requests", b"503 Service Unavailable"])
async def test_a_pause_that_is_asked_for_is_kept_where_there_is_time_for_it(status: bytes) -> None:
    script = playing(answer(b"no", b"Retry-After: 1", status=status), answer(b"yes"))
    async with behind(script) as pair:
        start = soon(0)
        assert await pair.get() == b"yes"
        assert soon(0) - start >= 0.99
    async with behind(script) as pair:
        assert await pair.get(seconds=0.9) == b"no"
        assert pair.seen() == [1]


async def test_a_replica_that_asks_for_a_pause_gets_it_and_a_quota_is_the_same_everywhere() -> None:
    async with behind(echoing(BUSY), echoing(answer(b"b"))) as pair:
        assert [await pair.get() for _ in range(20)] == [b"b"] * 20
        assert pair.seen()[0] == 1
    quota = answer(b"quota", b"Retry-After: 30", status=b"429 Too Many Requests")
    async with behind(echoing(quota), echoing(quota)) as pair:
        assert await pair.get() == b"quota"
        assert sum(pair.seen()) == 1


async def test_retries_are_bounded_by_the_setting_and_by_the_budget() -> None:
    async with behind(REFUSED, most_retries=3) as pair:
        with pytest.raises(ConnectFailed) as caught:
            await pair.get()
        assert caught.value.tries == 4
    async with behind(echoing(BROKEN), most_retries=0) as pair:
        assert await pair.get() == b"broken"
        assert pair.seen() == [1]
    async with behind(echoing(BROKEN)) as pair:
        start = soon(0)
        for _ in range(6):
            await asyncio.gather(*[pair.get() for _ in range(50)])
        seconds = soon(0) - start
        assert pair.seen()[0] <= 300 * 1.2 + 10 * (1 + seconds)


async def test_a_late_first_byte_leaves_time_for_another_try() -> None:
    async with behind(silent, echoing(answer(b"b")), timeouts=Timeouts(first_byte=0.05)) as pair:
        assert [await pair.get() for _ in range(4)] == [b"b"] * 4
        assert pair.told.retries["deadline"] >= 1
        results = await asyncio.gather(*[pair.get(POST) for _ in range(2)], return_exceptions=True)
        assert [type(result) for result in results if result != b"b"] == [BackendTimeout]


async def test_an_upload_that_nobody_has_heard_of_goes_to_another_replica_whole() -> None:
    got = bytearray()

    async def script(peer: Peer) -> None:
        await peer.head()
        for chunk in await peer.chunked():
            got.extend(chunk)
        await peer.send(answer(b"b"))

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async with behind(REFUSED, script) as pair:
        for _ in range(2):
            got.clear()
            assert await pair.get(Request(b"POST", b"/", [], upload=body())) == b"b"
            assert got == b"onetwo"


async def test_a_cancelled_call_says_nothing_of_its_replica() -> None:
    async with behind(silent, silent) as pair:
        for _ in range(12):
            call = asyncio.create_task(pair.get(POST))
            seen = sum(pair.seen())
            await until(lambda seen=seen: sum(pair.seen()) > seen)  # type: ignore[misc]
            call.cancel()
        assert not pair.told.ejections


async def test_health_checks_take_a_replica_out_and_back() -> None:
    well = asyncio.Event()

    async def moody(peer: Peer) -> None:
        while True:
            request = await peer.request()
            good = well.is_set() or not request.line.startswith(b"GET /health")
            await peer.send(answer(b"a") if good else FAILED)

    check = CheckPlan(path="/health", interval=0.01, timeout=1.0)
    async with behind(moody, echoing(answer(b"b")), check=check) as pair:
        first = pair.backend.replicas[0]
        assert first.probe is not None
        await until(lambda: not first.usable(soon(0)))
        assert [await pair.get(POST) for _ in range(6)] == [b"b"] * 6
        well.set()
        await until(lambda: first.usable(soon(0)))
        assert {await pair.get(POST) for _ in range(6)} == {b"a", b"b"}
    assert b"GET /health HTTP/1.1" in [request.line for request in pair.upstreams[1].requests]


async def test_a_hanging_health_check_is_a_failed_one_and_the_last_replica_stays() -> None:
    async def mute(peer: Peer) -> None:
        while True:
            if not (await peer.request()).line.startswith(b"GET /health"):
                await peer.send(answer(b"a"))

    async with behind(mute, check=CheckPlan(path="/health", interval=0.01, timeout=0.02)) as pair:
        await until(lambda: not pair.backend.replicas[0].usable(soon(0)))
        assert await pair.get(POST) == b"a"


async def test_want_of_descriptors_is_no_fault_of_the_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    async with behind(echoing(answer(b"a")), echoing(answer(b"b"))) as pair:
        with monkeypatch.context() as patched:
            patched.setattr(pool.Pool, "_connect", full)
            for _ in range(20):
                with pytest.raises(OutOfDescriptors):
                    await pair.get()
        assert not pair.told.ejections
        assert not pair.told.retries
        assert [one.backend.pool.busy for one in pair.backend.replicas] == [0, 0]
        assert Counter([await pair.get() for _ in range(4)]) == {b"a": 2, b"b": 2}


async def test_the_replica_that_has_failed_once_is_better_than_one_that_is_out() -> None:
    async def once_bad(peer: Peer) -> None:
        await peer.request()
        await peer.send(BROKEN)
        await echoing(answer(b"a"))(peer)

    async with behind(once_bad, REFUSED) as pair:
        out = pair.backend.replicas[1]
        while out.usable(soon(0)):
            out.outlier.failure(soon(0))
        assert await pair.get() == b"a"


async def test_a_pause_is_kept_also_where_nothing_is_repeated() -> None:
    async with behind(echoing(BUSY), echoing(answer(b"b")), most_retries=0) as pair:
        said = Counter([await pair.get(POST) for _ in range(20)])
        assert said == {b"busy": 1, b"b": 19}


async def test_the_only_replica_is_tried_again_if_it_has_heard_of_nothing() -> None:
    async with behind(REFUSED) as pair:
        with pytest.raises(ConnectFailed) as caught:
            await pair.get(POST)
        assert caught.value.tries == 2


async def test_who_only_waited_in_line_says_nothing_of_the_replica() -> None:
    async with behind(silent, silent) as pair:
        for one in pair.backend.replicas:
            one.backend.pool._max_connections = 1
        stuck = [asyncio.create_task(pair.get(POST)) for _ in range(2)]
        await until(lambda: sum(pair.seen()) == 2)
        results = await asyncio.gather(*[pair.get(POST, 0.05) for _ in range(20)], return_exceptions=True)
        assert {type(result) for result in results} == {NoSlotInTime}
        assert not pair.told.ejections
        for task in stuck:
            task.cancel()


async def test_copies_leave_the_budget_to_the_others() -> None:
    async with behind(echoing(BROKEN)) as pair:
        for _ in range(5):
            assert (await pair.backend.call(GET, soon(), retry=False)).tries == 1
        assert pair.seen() == [5]
        assert not pair.told.retries


async def test_a_repetition_on_a_fresh_connection_is_told_as_a_try() -> None:
    async def one_each(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"a"))
        await peer.head()
        peer.reset()

    async with behind(one_each, most_retries=0) as pair:
        assert (await pair.backend.call(GET, soon())).tries == 1
        assert (await pair.backend.call(GET, soon())).tries == 2


class Fields(list[tuple[bytes, bytes]]):
    """Headers that can be watched."""


async def resetting(peer: Peer) -> None:
    await peer.request()
    peer.reset()


@pytest.mark.parametrize(
    "script",
    [REFUSED, resetting, silent, echoing(BROKEN), echoing(answer())],
    ids=["refused", "reset", "late", "502", "well"],
)
@pytest.mark.parametrize("upload", [False, True])
async def test_what_has_failed_keeps_nothing_of_its_request(script: Script | str, upload: bool) -> None:
    """Until the collector comes, which it does seldom: a request may have a body of many MiB."""

    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    kept: list[weakref.ref[Fields]] = []
    async with behind(script) as pair:
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                fields = Fields()
                kept.append(weakref.ref(fields))
                length = 1 if upload else None
                request = Request(b"GET", b"/", fields, upload=body() if upload else None, length=length)
                with suppress(BackendError):
                    await pair.backend.call(request, soon(0.1))
                del fields, request
            await asyncio.sleep(0)
            assert [one() for one in kept] == [None] * 5
        finally:
            gc.enable()
