"""What a request leaves behind in memory once it has ended: nothing that only the cyclic collector would find.

Workers let the collector look at old objects seldom, so a cycle that holds a piece of an answer is as good as a leak:
a thousand clients who leave in the midst of answers are hundreds of MiB.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeAlias

import pytest

from gateway.backends.body import StreamedBody
from gateway.errors import BackendError
from gateway.plan import EndpointPlan
from gateway.serving.http1.exchange import HttpExchange
from tests.faults.gateway import REFUSED, Gateway, get, plain, post, settled, standing_still
from tests.integration.backends.upstream import Peer, Script, Upstream, answer, playing
from tests.integration.serving.local_worker import endpoint, http

pytestmark = pytest.mark.anyio
Left: TypeAlias = Callable[[], list[str]]
Asked: TypeAlias = Callable[..., tuple[EndpointPlan, bytes]]

PIECE = bytes(64 << 10)
PIECES = 64
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (PIECES * len(PIECE))
MIB = 1 << 20
CALLS = 6


@pytest.fixture
def left() -> Iterator[Left]:
    """Exchanges, bodies and failures that are still in memory, but for those of other tests. Nobody looks for cycles
    meanwhile."""
    gc.collect()
    others = list(_kept())  # held, so that no other object gets the place of one
    known = set(map(id, others))
    gc.disable()
    try:
        yield lambda: [repr(one) for one in _kept() if id(one) not in known]
    finally:
        gc.enable()


def _kept() -> Iterator[object]:
    return (one for one in gc.get_objects() if isinstance(one, HttpExchange | StreamedBody | BackendError))


async def unread(gateway: Gateway) -> socket.socket:
    """A client that has asked for a large answer, and whose kernel does not read it for it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", gateway.port))
    await loop.sock_sendall(client, get())
    return client


async def ended(gateway: Gateway) -> None:
    await settled(lambda: not gateway.is_answering(), "the request to end")
    await asyncio.sleep(0)


async def test_a_client_that_leaves_in_the_midst_of_an_answer(gateway: Gateway, left: Left) -> None:
    sent = 0

    async def send_pieces(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(HEAD)
        for _ in range(PIECES):
            await peer.send(PIECE)
            sent += len(PIECE)

    async with Upstream(send_pieces) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await unread(gateway)
        await standing_still(lambda: sent)
        assert gateway.is_answering()
        client.close()
        await ended(gateway)
        assert left() == []


async def test_a_client_that_reads_its_answer(gateway: Gateway, left: Left) -> None:
    async with Upstream(playing(answer(PIECE * PIECES))) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        heard = await gateway.ask(get())
        assert len(heard.body) == PIECES * len(PIECE)
        await ended(gateway)
        assert left() == []


async def heard(peer: Peer) -> None:
    """A request is read and not kept."""
    head = (await peer.head()).lower()
    await peer.read(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))


async def hang_up(peer: Peer) -> None:
    await heard(peer)


async def say_nothing(peer: Peer) -> None:
    await heard(peer)
    await peer.gone()


async def fail(peer: Peer) -> None:
    while True:
        await heard(peer)
        await peer.send(answer(b"not now", status=b"502 Bad Gateway"))


async def fail_every_other(peer: Peer) -> None:
    """Request, of one connection."""
    while True:
        await heard(peer)
        await peer.send(answer(b"not now", status=b"502 Bad Gateway"))
        await heard(peer)
        await peer.send(answer())


def upload(url: str, **how: Any) -> tuple[EndpointPlan, bytes]:
    """A body that is passed on while it comes."""
    return plain(url, **how), post(bytes(MIB))


def chat(url: str, **how: Any) -> tuple[EndpointPlan, bytes]:
    """A body that is read whole, so that it can be sent again."""
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "x" * MIB}]}).encode()
    served = endpoint(http("a", "champion", url, **how), name="chat", protocol="openai")
    return served, post(body, "/v1/chat/completions")


REFUSES = None  # nobody listens
FAILING = {
    "refused": (REFUSES, 5.0, "connect"),
    "unanswered": (hang_up, 5.0, "incomplete"),
    "timed out": (say_nothing, 0.1, "deadline"),
    "failed": (fail, 5.0, "status"),
}
CASES = [
    *(
        pytest.param(asked, *how, id=f"{asked.__name__} {name}")
        for name, how in FAILING.items()
        for asked in (upload, chat)
    ),
    pytest.param(chat, fail_every_other, 5.0, "", id="chat tried again"),
]


@pytest.mark.parametrize(("asked", "script", "timeout", "error"), CASES)
async def test_calls_that_fail(
    gateway: Gateway, left: Left, asked: Asked, script: Script | None, timeout: float, error: str
) -> None:
    """Neither the request's megabyte nor the error, whose traceback knows all that was going on."""
    async with Upstream(script or hang_up) as upstream:
        url = REFUSED if script is REFUSES else f"http://{upstream.authority}"
        served, data = asked(url, timeout=timeout, idempotent=True)
        await gateway.publish(served, max_body=4 * MIB)
        await ask(gateway, data)  # what the first of all makes stays
        tracemalloc.start()
        try:
            for _ in range(CALLS):
                await ask(gateway, data)
            kept = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    completed = [one.completed for one in await gateway.exposures(1 + CALLS)]
    assert {one.error for one in completed} == {error}
    if not error:
        assert {one.tries for one in completed} == {2}
    assert left() == []
    assert kept < 128 << 10


async def ask(gateway: Gateway, data: bytes) -> None:
    """An answer may come before all is sent, or be lost to that."""
    with suppress(OSError, EOFError):
        await gateway.ask(data)
    await ended(gateway)
