"""What goes wrong with an upstream, by its scripted bytes: class, kind, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest

from gateway.backends.answer import AnswerReader, Limits
from gateway.backends.base import Answer, Request, Timeouts
from gateway.backends.faults import Incomplete, ProtocolFault, Unanswered
from gateway.backends.http import HttpBackend
from gateway.errors import BackendError, BackendTimeout, BackendUnavailable, BadOutput
from tests.integration.backends.upstream import (
    CHUNKED,
    GET,
    POST,
    Peer,
    Upstream,
    answer,
    echoing,
    playing,
    silent,
    soon,
    until,
)

pytestmark = pytest.mark.anyio


async def fault(raw: bytes, *, reset: bool = False, **options: int) -> BackendError:
    """How a call ends whose connection brings `raw` and then ends."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw)
        if reset:
            peer.reset()

    async with Upstream(script) as upstream:
        backend = upstream.backend(**options)
        with pytest.raises(BackendError) as caught:
            await backend.call(POST, soon())
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)
        assert upstream.accepted == 1
        return caught.value


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        CHUNKED,
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
    ],
)
async def test_truncated_answer_is_never_a_short_one(raw: bytes, reset: bool) -> None:
    error = await fault(raw, reset=reset)
    assert isinstance(error, Incomplete)
    assert error.kind == "incomplete"


async def test_reset_ends_no_body_that_lasts_until_eof() -> None:
    error = await fault(b"HTTP/1.1 200 OK\r\n\r\nhalf", reset=True)
    assert error.kind == "incomplete"


@pytest.mark.parametrize("reset", [False, True])
async def test_closed_before_any_byte(reset: bool) -> None:
    error = await fault(b"", reset=reset)
    assert isinstance(error, Unanswered)
    assert error.kind == "incomplete"


@pytest.mark.parametrize(
    "raw",
    [
        b"junk",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 99 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n",
        CHUNKED + b"5\nhello\n0\n\n",
        CHUNKED + b"fffffffffffffffff\r\nhello\r\n",
    ],
)
async def test_invalid_http(raw: bytes) -> None:
    error = await fault(raw)
    assert isinstance(error, ProtocolFault)
    assert error.kind == "protocol"


@pytest.mark.parametrize("version", [b"HTTP/0.9", b"HTTP/2.0"])
@pytest.mark.parametrize("cut", range(1, 6))
def test_another_version_is_none_wherever_the_network_cuts_it(version: bytes, cut: int) -> None:
    reader = AnswerReader(Limits(4096, 64))
    raw = version + b" 200 OK\r\nContent-Length: 0\r\n\r\n"
    reader.feed(raw[:cut])
    with pytest.raises(ProtocolFault, match="does not start with HTTP/1"):
        reader.feed(raw[cut:])


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * (1 << 20),
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 600 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        CHUNKED + b"1\r\na\r\n0\r\n" + b"T: " + b"a" * 20_000,
        CHUNKED + b"1;" + b"a" * 20_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n" + b"a" * 65,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 65,
        CHUNKED + b"1\r\na\r\n" * 65,
    ],
)
async def test_more_than_an_answer_may_take(raw: bytes) -> None:
    error = await fault(raw, max_head=4096, max_body=64)
    assert isinstance(error, BadOutput)
    assert error.kind == "output"


async def test_answer_at_its_limits_in_the_smallest_chunks() -> None:
    head = CHUNKED.removesuffix(b"\r\n")
    head += b"X: " + b"a" * (4096 - len(head) - 7) + b"\r\n\r\n"
    async with Upstream(echoing(head + b"1\r\na\r\n" * 64 + b"0\r\n\r\n")) as upstream:
        backend = upstream.backend(max_head=4096, max_body=64)
        assert (await backend.call(GET, soon())).body == b"a" * 64
        await backend.close()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", answer()[:-1], CHUNKED + b"5\r\nhel"])
async def test_deadline(sent: bytes) -> None:
    hung_up = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        await peer.gone()
        hung_up.set()

    async with Upstream(script) as upstream:
        backend = upstream.backend()
        start = soon(0)
        with pytest.raises(BackendTimeout) as caught:
            await backend.call(POST, start + 0.1)
        assert caught.value.kind == "deadline"
        assert 0.098 <= soon(0) - start < 1
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)
        await hung_up.wait()


async def test_deadline_that_has_passed_sends_nothing() -> None:
    async with Upstream(silent) as upstream:
        backend = upstream.backend()
        with pytest.raises(BackendTimeout):
            await backend.call(GET, soon(-1))
        assert (upstream.accepted, backend.pool.busy) == (0, 0)


async def test_each_request_has_its_own_deadline_on_a_reused_connection() -> None:
    """The timer is left running between requests: it must neither cut a later one short nor let it go on."""

    async def script(peer: Peer) -> None:
        for _ in range(3):
            await peer.request()
            await peer.send(answer())
        await slow.wait()
        await peer.request()
        await peer.send(answer(b"slow"))
        await silent(peer)

    slow = asyncio.Event()
    async with Upstream(script) as upstream:
        backend = upstream.backend()
        await backend.call(GET, soon(0.1))
        await backend.call(GET, soon(5))
        await backend.call(GET, soon(0.1))
        asyncio.get_running_loop().call_later(0.12, slow.set)
        assert (await backend.call(GET, soon(5))).body == b"slow"
        start = soon(0)
        with pytest.raises(BackendTimeout):
            await backend.call(GET, start + 0.1)
        assert soon(0) - start < 1
        assert upstream.accepted == 1


async def test_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        backend = HttpBackend(f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(BackendUnavailable) as caught:
            await backend.call(GET, soon())
    assert caught.value.kind == "connect"
    assert backend.pool.busy == 0


@pytest.mark.parametrize("name", ["name.invalid", "a" * 64 + ".invalid"])
async def test_name_that_does_not_resolve(name: str) -> None:
    backend = HttpBackend(f"http://{name}:80")
    with pytest.raises(BackendUnavailable):
        await backend.call(GET, soon())
    assert backend.pool.busy == 0


@pytest.mark.parametrize(("limit", "deadline"), [(0.03, 5.0), (5.0, 0.03)])
async def test_connect_that_never_ends(limit: float, deadline: float) -> None:
    """A full accept queue drops SYNs."""
    with socket.socket() as full, socket.socket() as filler:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        filler.connect(full.getsockname())
        backend = HttpBackend(f"http://127.0.0.1:{full.getsockname()[1]}", timeouts=Timeouts(connect=limit))
        start = soon(0)
        with pytest.raises(BackendUnavailable) as caught:
            await backend.call(GET, start + deadline)
        assert re.search("connect timed out", caught.value.about)
        assert soon(0) - start < 1
        assert backend.pool.busy == 0


# -- the keep-alive race


async def race(
    request: Request, *, reset: bool = False, survives: int = 99, idempotent: bool = False
) -> tuple[Answer, Upstream]:
    """The first connection answers once and dies as the second request is written; connections up to
    `survives` answer."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number <= survives:
            await peer.send(answer(b"%d" % peer.number))
        if peer.number == 1:
            await peer.request()
        if reset:
            peer.reset()

    async with Upstream(script) as upstream:
        backend = upstream.backend(idempotent=idempotent)
        await backend.call(GET, soon())
        try:
            return await backend.call(request, soon()), upstream
        finally:
            assert backend.pool.busy == 0
            await backend.close()


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    ("request_", "idempotent"), [(GET, False), (Request(b"PUT", b"/", [], b"x"), False), (POST, True)]
)
async def test_lost_race_is_repeated_on_a_fresh_connection(request_: Request, idempotent: bool, reset: bool) -> None:
    got, upstream = await race(request_, reset=reset, idempotent=idempotent)
    assert got.body == b"2"
    assert [request.line for request in upstream.requests[1:]] == [request_.method + b" / HTTP/1.1"] * 2


async def test_lost_race_is_repeated_once() -> None:
    with pytest.raises(Unanswered):
        await race(GET, survives=1)


async def test_lost_race_of_a_request_that_must_not_be_repeated() -> None:
    with pytest.raises(Unanswered):
        await race(POST)


async def test_lost_race_keeps_the_deadline() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            await peer.send(answer())
            await peer.request()
        else:
            await silent(peer)

    async with Upstream(script) as upstream:
        backend = upstream.backend()
        await backend.call(GET, soon())
        start = soon(0)
        with pytest.raises(BackendTimeout):
            await backend.call(GET, start + 0.1)
        assert soon(0) - start < 1
        assert upstream.accepted == 2


async def test_answer_begun_on_a_reused_connection_is_not_repeated() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer())
        await peer.request()
        await peer.send(b"HTTP/1.1 ")

    async with Upstream(script) as upstream:
        backend = upstream.backend()
        await backend.call(GET, soon())
        with pytest.raises(Incomplete):
            await backend.call(GET, soon())
        assert (upstream.accepted, len(upstream.requests)) == (1, 2)


async def test_connection_closed_while_idle_costs_nobody_anything() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"%d" % peer.number))

    async with Upstream(script) as upstream:
        backend = upstream.backend()
        for number in (b"1", b"2", b"3"):
            assert (await backend.call(POST, soon())).body == number
            await until(lambda: backend.pool.idle == 0)
        await backend.close()


async def test_next_call_after_a_fault_is_served() -> None:
    async with Upstream(playing(answer(), b"junk")) as upstream:
        backend = upstream.backend()
        await backend.call(GET, soon())
        with pytest.raises(ProtocolFault):
            await backend.call(GET, soon())
        assert (await backend.call(GET, soon())).status == 200
        await backend.close()
