"""Cases U13 to U16: who pays where upstreams fail in numbers."""

from __future__ import annotations

import asyncio

import pytest

from gateway.telemetry import metrics
from tests.faults.gateway import REFUSED, Gateway, get, plain, post
from tests.integration.backends.upstream import Upstream, answer, echoing

pytestmark = pytest.mark.anyio
OK = echoing(answer(b"ok"))
BROKEN = echoing(answer(b"broken", status=b"500 Internal Server Error"))
AWAY = echoing(answer(b"away", status=b"503 Service Unavailable"))


def asking(gateway: Gateway, variant: str, body: bytes = b"{}") -> bytes:
    return post(body, "/plain/x", f"x-user-id: {gateway.user_of(variant).decode()}")


@pytest.mark.parametrize("idempotent", [False, True])
async def test_u13_a_burst_of_errors_is_the_challengers_alone(gateway: Gateway, idempotent: bool) -> None:
    """Passed on as they are, or answered by the champion, as configured; after three the breaker spares everybody."""
    async with Upstream(OK) as good, Upstream(BROKEN) as bad:
        urls = f"http://{good.authority}", f"http://{bad.authority}"
        await gateway.publish(plain(*urls, share=0.5, idempotent=idempotent))
        heard = [await gateway.ask(asking(gateway, "b")) for _ in range(8)]
        for _ in range(8):
            assert (await gateway.ask(asking(gateway, "a"))).body == b"ok"
        assert len(bad.requests) == 3
    if idempotent:
        assert {one.body for one in heard} == {b"ok"}
    else:
        assert [one.body for one in heard[:3]] == [b"broken"] * 3
        assert [one.proxy_error for one in heard[:3]] == [""] * 3  # its own words, unmarked
        assert {one.body for one in heard[3:]} == {b"ok"}  # nothing was sent, so the champion may answer
    kept = await gateway.exposures(16)
    errors = [one.completed.error for one in kept if one.assigned.variant == "b"]
    assert errors == ["status"] * 3 + ["breaker"] * 5
    assert (gateway.counted("a"), gateway.counted("b")) == ((8, 0), (8, 8))
    assert gateway.local.count(metrics.BREAKER_OPENED.name, "plain", "b") == 1


async def test_u13_a_failing_replica_of_the_champion_is_ejected_after_five(gateway: Gateway) -> None:
    async with Upstream(OK) as good, Upstream(BROKEN) as bad:
        await gateway.publish(plain((f"http://{good.authority}", f"http://{bad.authority}")))
        heard = [await gateway.ask(get()) for _ in range(40)]
        assert len(bad.requests) == 5
        assert [one.status for one in heard].count(500) == 5
        await gateway.local.worker.follow()
        assert gateway.local.count(metrics.UPSTREAM_AVAILABLE.name, "plain", "a", f"http://{bad.authority}") == 0
        assert gateway.local.count(metrics.UPSTREAM_AVAILABLE.name, "plain", "a", f"http://{good.authority}") == 1
        assert gateway.local.count(metrics.UPSTREAM_EJECTIONS.name, "plain", "a", f"http://{bad.authority}") == 1
    assert gateway.counted("a") == (40, 5)


async def test_u14_where_all_replicas_fail_retries_are_bounded(gateway: Gateway) -> None:
    async with Upstream(AWAY) as one, Upstream(AWAY) as two:
        urls = f"http://{one.authority}", f"http://{two.authority}"
        await gateway.publish(plain(urls, idempotent=True))
        start = asyncio.get_running_loop().time()

        async def client() -> None:
            connected = await gateway.connect()
            for _ in range(100):
                await connected.send(post(b"{}"))
                assert (await connected.answer()).status == 503

        await asyncio.gather(*[client() for _ in range(10)])
        seconds = asyncio.get_running_loop().time() - start
        asked = len(one.requests) + len(two.requests)
    assert 1000 < asked <= 1000 * 1.2 + 10 * (1 + seconds)
    assert sum(kept.completed.tries for kept in await gateway.exposures(1000)) == asked
    assert gateway.counted("a") == (1000, 1000)


async def test_u14_an_open_breaker_says_when_to_come_again_and_lets_one_probe_through(gateway: Gateway) -> None:
    """The champion cannot answer in its place, for it is away as well."""
    async with Upstream(AWAY) as bad:
        await gateway.publish(plain(REFUSED, f"http://{bad.authority}", share=0.5, idempotent=True, retries=0))
        for _ in range(3):
            assert (await gateway.ask(asking(gateway, "b"))).status == 502  # what the champion came to
        assert len(bad.requests) == 3
        for _ in range(10):
            await gateway.ask(asking(gateway, "b"))
        assert len(bad.requests) == 3
        gateway.local.clock.advance(5.0)
        for _ in range(10):
            await gateway.ask(asking(gateway, "b"))
        assert len(bad.requests) == 4
    kept = await gateway.exposures(23)
    assert [one.completed.error for one in kept].count("breaker") == 19
    assert {one.completed.tries for one in kept if one.completed.error == "breaker"} == {0}
    assert {one.completed.served for one in kept} == {"b"}  # nobody answered


async def test_u15_all_variants_down_leaves_the_worker_ready_and_the_champion_asked(gateway: Gateway) -> None:
    await gateway.publish(plain(REFUSED, REFUSED, share=0.5, retries=0))
    for _ in range(20):
        heard = await gateway.ask(asking(gateway, "a"))
        assert (heard.status, heard.proxy_error) == (502, "connection_refused")
        heard = await gateway.ask(asking(gateway, "b"))
        assert (heard.status, heard.proxy_error) == (502, "connection_refused")
    assert (await gateway.ask(get("/v2/health/ready"))).status == 200
    assert {one.completed.end for one in await gateway.exposures(40)} == {"failed"}
    async with Upstream(OK) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}", REFUSED, share=0.5, retries=0), revision=2)
        assert (await gateway.ask(asking(gateway, "a"))).status == 200  # at once: nothing keeps it out


@pytest.mark.parametrize("status", [b"429 Too Many Requests", b"503 Service Unavailable"])
async def test_u16_a_pause_that_is_longer_than_the_deadline_is_the_clients_to_keep(
    gateway: Gateway, status: bytes
) -> None:
    async with Upstream(echoing(answer(b"later", b"Retry-After: 30", status=status))) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}", idempotent=True))
        heard = await gateway.ask(post(b"{}"))
        assert (heard.status, heard.body, heard.headers["retry-after"]) == (int(status[:3]), b"later", "30")
        assert heard.proxy_error == ""
        assert len(upstream.requests) == 1
    assert (await gateway.exposure()).completed.tries == 1


async def test_an_answer_passes_unmarked_whatever_its_status(gateway: Gateway) -> None:
    async with Upstream(echoing(answer(b"mine", b"Proxy-Status: other", status=b"418 Teapot"))) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        heard = await gateway.ask(get())
    assert (heard.status, heard.body, heard.headers["proxy-status"]) == (418, b"mine", "other")
    assert gateway.counted("a") == (1, 0)
