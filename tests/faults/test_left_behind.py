"""What a request leaves behind in memory once it has ended: nothing that only the cyclic collector would find.

Workers let the collector look at old objects seldom, so a cycle that holds a piece of an answer is as good as a leak:
a thousand clients who leave in the midst of answers are hundreds of MiB.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterator

import pytest

from gateway.backends.body import StreamedBody
from gateway.serving.http1.exchange import HttpExchange
from gateway.telemetry.status_page import Word
from tests.faults.gateway import Gateway, get, plain, settled
from tests.integration.backends.upstream import Peer, Upstream, answer

pytestmark = pytest.mark.anyio

LARGE = answer(b"x" * (4 << 20))


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Nobody looks for cycles meanwhile."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def left() -> list[str]:
    """Exchanges and bodies that are still in memory."""
    return [repr(one) for one in gc.get_objects() if isinstance(one, HttpExchange | StreamedBody)]


async def unread(gateway: Gateway) -> socket.socket:
    """A client that has asked for a large answer, and whose kernel does not read it for it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", gateway.port))
    await loop.sock_sendall(client, get())
    return client


async def send_large(peer: Peer) -> None:
    await peer.request()
    await peer.send(LARGE)


async def test_a_client_that_leaves_in_the_midst_of_an_answer(gateway: Gateway, uncollected: None) -> None:
    async with Upstream(send_large) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await unread(gateway)
        await settled(lambda: gateway.local.page().word(Word.IN_FLIGHT) == 1, "the request to begin")
        await asyncio.sleep(0.1)  # until the answer is as far as it comes
        client.close()
        await settled(lambda: gateway.local.page().word(Word.IN_FLIGHT) == 0, "the request to end")
        await asyncio.sleep(0)
        assert left() == []


async def test_a_client_that_reads_its_answer(gateway: Gateway, uncollected: None) -> None:
    async with Upstream(send_large) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        heard = await gateway.ask(get())
        assert len(heard.body) == 4 << 20
        await settled(lambda: gateway.local.page().word(Word.IN_FLIGHT) == 0, "the request to end")
        await asyncio.sleep(0)
        assert left() == []
