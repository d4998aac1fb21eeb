"""Cases U1 to U6: an upstream that cannot be reached, hangs up, or says nothing."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from gateway.telemetry import metrics
from tests.faults.gateway import REFUSED, Gateway, get, plain, post
from tests.integration.backends.upstream import Peer, Upstream, answer, echoing, silent

pytestmark = pytest.mark.anyio
OK = echoing(answer(b"ok"))


async def resetting(peer: Peer) -> None:
    await peer.request()
    peer.reset()


def retries(gateway: Gateway, reason: str) -> int:
    return gateway.local.count(metrics.UPSTREAM_RETRIES.name, "plain", "a", reason)


async def test_u1_refused_is_told_within_a_second(gateway: Gateway) -> None:
    await gateway.publish(plain(REFUSED))
    start = time.monotonic()
    heard = await gateway.ask(get())
    assert time.monotonic() - start < 1
    assert (heard.status, heard.proxy_error) == (502, "connection_refused")
    assert heard.problem["type"] == "urn:gateway:backend_refused"
    assert "127.0.0.1" not in heard.problem["detail"]
    kept = await gateway.exposure()
    assert (kept.assigned.variant, kept.completed.served, kept.completed.error) == ("a", "a", "connect")
    assert (kept.completed.end, kept.completed.status, kept.completed.tries) == ("failed", 502, 2)
    assert gateway.counted("a") == (1, 1)


async def test_u1_another_replica_answers_whatever_the_method(gateway: Gateway) -> None:
    async with Upstream(OK) as upstream:
        await gateway.publish(plain((REFUSED, f"http://{upstream.authority}")))
        for _ in range(4):
            heard = await gateway.ask(post(b"{}"))
            assert (heard.status, heard.body, heard.proxy_error) == (200, b"ok", "")
        assert len(upstream.requests) == 4
    kept = await gateway.exposures(4)
    assert {one.completed.error for one in kept} == {""}
    assert sum(one.completed.tries - 1 for one in kept) == retries(gateway, "connect") > 0
    assert gateway.counted("a") == (4, 0)


async def test_u1_a_refused_challenger_is_charged_and_the_champion_answers(gateway: Gateway) -> None:
    async with Upstream(OK) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}", REFUSED, share=0.5))
        heard = await gateway.ask(post(b"{}", "/plain/x", f"x-user-id: {gateway.user_of('b').decode()}"))
        assert (heard.status, heard.body) == (200, b"ok")
    kept = await gateway.exposure()
    assert (kept.assigned.variant, kept.completed.served, kept.completed.error) == ("b", "a", "connect")
    assert (gateway.counted("a"), gateway.counted("b")) == ((0, 0), (1, 1))


async def test_u2_a_name_that_leads_nowhere(gateway: Gateway) -> None:
    await gateway.publish(plain("http://no-such-name.invalid:8000"))
    heard = await gateway.ask(get())
    assert (heard.status, heard.proxy_error) == (502, "dns_error")
    assert "invalid" not in heard.problem["detail"]
    assert (await gateway.exposure()).completed.error == "connect"
    assert gateway.counted("a") == (1, 1)


async def test_u3_packets_that_vanish_end_at_the_connect_timeout(gateway: Gateway) -> None:
    """A full accept queue drops SYNs, as a firewall does."""
    with socket.socket() as full, socket.socket() as filler:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        filler.connect(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        await gateway.publish(plain(url, timeout=30.0, connect_timeout=0.1, retries=0))
        start = time.monotonic()
        heard = await gateway.ask(get())
        assert 0.09 <= time.monotonic() - start < 2
    assert (heard.status, heard.proxy_error) == (504, "connection_timeout")
    assert (await gateway.exposure()).completed.error == "connect"
    assert gateway.counted("a") == (1, 1)


@pytest.mark.parametrize("idempotent", [False, True])
async def test_u4_a_reset_before_the_head_is_repeated_only_where_declared(gateway: Gateway, idempotent: bool) -> None:
    async with Upstream(resetting) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}", idempotent=idempotent))
        heard = await gateway.ask(post(b"{}"))
        assert (heard.status, heard.proxy_error) == (502, "connection_terminated")
        assert len(upstream.requests) == (2 if idempotent else 1)
    kept = await gateway.exposure()
    assert (kept.completed.error, kept.completed.tries) == ("incomplete", 2 if idempotent else 1)
    assert gateway.counted("a") == (1, 1)


async def test_u4_the_second_try_may_succeed_and_is_then_no_error(gateway: Gateway) -> None:
    async def once(peer: Peer) -> None:
        if peer.number == 1:
            await resetting(peer)
        await OK(peer)

    async with Upstream(once) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}", idempotent=True))
        assert (await gateway.ask(post(b"{}"))).status == 200
    kept = await gateway.exposure()
    assert (kept.completed.error, kept.completed.tries) == ("", 2)
    assert (gateway.counted("a"), retries(gateway, "incomplete")) == ((1, 0), 1)


@pytest.mark.parametrize("lingering", [False, True])
async def test_u5_a_connection_closed_as_it_is_used_again_is_invisible(gateway: Gateway, lingering: bool) -> None:
    """Closed right after its answer (both sides race), or only when the next request comes."""

    async def one_each(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"ok"))
        if lingering:
            await peer.head()
            peer.reset()

    async with Upstream(one_each) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}", idempotent=True))
        client = await gateway.connect()
        for _ in range(50):
            await client.send(post(b"{}"))
            assert (await client.answer()).status == 200
    kept = await gateway.exposures(50)
    assert {(one.completed.end, one.completed.error) for one in kept} == {("answered", "")}
    assert gateway.counted("a") == (50, 0)


async def test_u6_a_head_that_never_comes(gateway: Gateway) -> None:
    async with Upstream(silent) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}", timeout=0.1))
        heard = await gateway.ask(post(b"{}"))
        assert (heard.status, heard.proxy_error) == (504, "http_response_timeout")
    assert (await gateway.exposure()).completed.error == "deadline"
    assert gateway.counted("a") == (1, 1)


async def test_u6_however_many_never_answer_no_slot_is_lost(gateway: Gateway) -> None:
    """A thousand, a third of whose clients leave; `tests/integration/backends` cancels ten thousand."""
    mute = True

    async def moody(peer: Peer) -> None:
        while True:
            await peer.request()
            if not mute:
                await peer.send(answer(b"ok"))

    async with Upstream(moody) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}", timeout=0.3))
        for _ in range(25):
            clients = [await gateway.connect() for _ in range(40)]
            await asyncio.gather(*[client.send(post(b"{}")) for client in clients])
            for client in clients[::3]:
                client.reset()
            await asyncio.gather(*[client.answer() for client in clients[1::3]])
            for client in clients:
                client.close()
        mute = False
        for _ in range(30):
            assert (await gateway.ask(post(b"{}"))).status == 200
    ends = [one.completed for one in await gateway.exposures(1030)]
    assert sum(end.end == "answered" for end in ends) == 30
    assert {(end.end, end.error) for end in ends} <= {("answered", ""), ("failed", "deadline"), ("client_closed", "")}
