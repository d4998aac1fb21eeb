"""Cases C3, C6, C7 and C20 to C23: bodies that are late, too long, or not what they should be."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.serving.http1.head import Limits
from tests.faults.gateway import Gateway, Heard, get, open_gateway, plain, post, recording, request, settled
from tests.integration.backends.upstream import Peer, Upstream
from tests.integration.serving.local_worker import FLIGHT, INFER, champion, endpoint, http, infer_body
from tests.integration.serving.test_bad_requests import BAD_BODIES

pytestmark = pytest.mark.anyio
LARGE = 200_000  # bytes: passed on while they come
LIMIT = 1 << 20  # bytes of a body, in these plans
SLOW = Limits(body_timeout=0.1, linger=0.1)


@pytest.mark.parametrize("framing", ["content-length: 100", "transfer-encoding: chunked"])
async def test_c3_a_short_body_that_stops_is_answered_408_and_nobody_is_asked(tmp_path: Path, framing: str) -> None:
    async with open_gateway(tmp_path, SLOW) as gateway, Upstream(recording) as upstream:
        await gateway.publish(endpoint(champion()), plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(request("POST", "/v1/outcomes", framing))  # one that is read whole, whatever its framing
        gateway.refused(await client.answer(), 408, "request_timeout")
        assert await client.closed()
        assert upstream.accepted == 0


async def test_c3_a_long_body_that_stops_cancels_the_upstream(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def reading(peer: Peer) -> None:
        await peer.head()
        await peer.gone()
        left.set()

    async with open_gateway(tmp_path, SLOW) as gateway, Upstream(reading) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(request("POST", "/plain/x", f"content-length: {LARGE}") + b"x" * (LARGE // 2))
        heard = await client.answer()
        assert (heard.status, heard.proxy_error) == (408, "http_request_error")
        assert await client.closed()
        await left.wait()
        kept = await gateway.exposure()
        assert (kept.completed.end, kept.completed.status, kept.completed.error) == ("rejected", 408, "")
        assert gateway.counted("a") == (1, 0)


async def test_c3_a_body_that_drips_is_cut_off(tmp_path: Path) -> None:
    limits = Limits(body_timeout=0.3, linger=0.1)
    async with open_gateway(tmp_path, limits) as gateway, Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(request("POST", "/plain/x", "content-length: 1000"))
        answered = asyncio.ensure_future(client.answer())
        while not answered.done():
            await client.send(b"x")  # each within the idle limit
            await asyncio.sleep(0.02)
        gateway.refused(await answered, 408, "request_timeout")
        assert upstream.accepted == 0


@pytest.mark.parametrize("path", ["/plain/x", "/v1/outcomes", "/v1/chat/completions"])
async def test_c6_a_body_that_is_declared_too_long_is_not_read(gateway: Gateway, path: str) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(*endpoints(upstream))
        client = await gateway.connect()
        await client.send(request("POST", path, f"content-length: {LIMIT + 1}"))
        heard = await client.answer()
        assert (heard.status, heard.proxy_error) == (413, "http_request_error")
        assert gateway.rejected("body_too_large") == 1
        assert await client.closed()
        gateway.nothing_kept()
        assert upstream.accepted == 0


async def test_c6_a_body_of_no_length_is_cut_at_the_limit(gateway: Gateway) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(*endpoints(upstream))
        client = await gateway.connect()
        chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        await client.send(request("POST", "/v1/outcomes", "transfer-encoding: chunked") + chunk * 17)
        gateway.refused(await client.answer(), 413, "body_too_large")
        assert await client.closed()


async def test_c6_an_upload_of_no_length_is_cut_at_the_limit_and_never_ends_whole(gateway: Gateway) -> None:
    heard: list[str] = []

    async def reading(peer: Peer) -> None:
        await peer.head()
        try:
            await peer.chunked()
            heard.append("whole")
        except asyncio.IncompleteReadError:
            heard.append("cut")

    async with Upstream(reading) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        await client.send(request("POST", "/plain/x", "transfer-encoding: chunked") + chunk * 17)
        answer = await client.answer()
        assert (answer.status, answer.problem["title"]) == (413, "body too large")
        assert await client.closed()
        await settled(lambda: heard == ["cut"])
        kept = await gateway.exposure()
        assert (kept.completed.end, kept.completed.error) == ("rejected", "")


async def test_c7_who_waits_for_a_100_gets_it_and_then_the_answer(gateway: Gateway) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(request("POST", "/plain/x", "content-length: 4", "Expect: 100-Continue"))
        assert await client.interim() == 100
        assert upstream.accepted == 0
        await client.send(b"body")
        assert (await client.answer()).status == 200
        assert upstream.requests[0].body == b"body"
        assert b"expect" not in upstream.requests[0].names()
        assert (await gateway.exposure()).completed.end == "answered"


@pytest.mark.parametrize(
    ("lines", "status", "reason"),
    [
        (["expect: 100-continue", f"content-length: {LIMIT + 1}"], 413, "body_too_large"),
        (["expect: 200-ok", "content-length: 4"], 417, "expectation_failed"),
        (["expect: 100-continue, other", "content-length: 4"], 417, "expectation_failed"),
        (["expect: 100-continue", "expect: 100-continue", "content-length: 4"], 400, "bad_request"),
    ],
)
async def test_c7_who_asks_for_the_impossible_hears_no_100(
    gateway: Gateway, lines: list[str], status: int, reason: str
) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(request("POST", "/plain/x", *lines))
        raw = await client.rest()
        assert raw.startswith(b"HTTP/1.1 %d " % status)
        assert raw.count(b"HTTP/1.1") == 1
        assert gateway.rejected(reason) == 1
        gateway.nothing_kept()
        assert upstream.accepted == 0


def endpoints(upstream: Upstream) -> list[Any]:
    """One of each protocol, at this upstream."""
    url = f"http://{upstream.authority}"
    chat = endpoint(http("a", "champion", url), name="chat", protocol="openai")
    return [endpoint(champion()), plain(url), chat]


@pytest.mark.parametrize("case", BAD_BODIES)
async def test_c20_c22_a_body_that_is_no_request_counts_for_nobody(gateway: Gateway, case: str) -> None:
    body, words = BAD_BODIES[case]
    await gateway.publish(endpoint(champion()))
    heard = await gateway.ask(post(body, INFER))
    said_so(gateway, heard, 400, words, "bad_request")


def said_so(gateway: Gateway, heard: Heard, status: int, words: str, reason: str) -> None:
    """In the form of the Open Inference Protocol."""
    assert (heard.status, heard.proxy_error) == (status, "http_request_error")
    assert words in json.loads(heard.body)["error"]
    assert heard.headers["x-request-id"]
    assert gateway.rejected(reason) == 1
    gateway.nothing_kept()


HOSTILE = {
    "100 000 levels": b"[" * 100_000,
    "100 000 levels of objects": b'{"a":' * 100_000,
    "a million digits": b'{"model": ' + b"9" * 1_000_000 + b"}",
    "half a text": b'{"model": "chat',
    "a lone surrogate": b'{"model": "\\ud800"}',
    "a byte order mark": b'\xef\xbb\xbf{"model": "chat"}',
    "UTF-16": '{"model": "chat"}'.encode("utf-16"),
    "a name twice": b'{"model": "chat", "model": "other"}',
    "no object": b'"chat"',
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/outcomes"])
@pytest.mark.parametrize("case", HOSTILE)
async def test_c20_whatever_is_read_here_is_read_with_care(gateway: Gateway, case: str, path: str) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(*endpoints(upstream))
        heard = await gateway.ask(post(HOSTILE[case], path))
        assert heard.status in (400, 404), heard
        assert heard.proxy_error == "http_request_error"
        gateway.nothing_kept()
        assert upstream.accepted == 0


async def test_c20_nobody_waits_while_a_large_body_is_read(gateway: Gateway) -> None:
    await gateway.publish(endpoint(champion()), max_body=16 << 20)
    body = infer_body(shape=[20_000, 16], data=FLIGHT * 20_000)
    assert len(body) > 1 << 20
    client = await gateway.connect()
    await client.send(post(body, INFER))
    await settled(gateway.is_answering)
    waits = []
    while gateway.is_answering():
        began = time.perf_counter()
        await asyncio.sleep(0)
        waits.append(time.perf_counter() - began)
    assert (await client.answer()).status == 200
    assert sorted(waits)[len(waits) // 2] < 0.05


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
async def test_c21_what_is_no_number_is_refused_with_its_place(gateway: Gateway, value: float) -> None:
    await gateway.publish(endpoint(champion()))
    row = np.array([*FLIGHT[:3], value, *FLIGHT[4:]], "<f4").tobytes()
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 16], "parameters": {"binary_data_size": 64}}
    text = json.dumps({"inputs": [tensor]}).encode()
    heard = await gateway.ask(post(text + row, INFER, f"inference-header-content-length: {len(text)}"))
    said_so(gateway, heard, 422, "input 'features': element 3 is not finite", "value_rejected")


async def test_c22_a_billion_elements_are_not_made_room_for(gateway: Gateway) -> None:
    await gateway.publish(endpoint(champion()))
    began = time.perf_counter()
    tensor = {"name": "features", "datatype": "FP32", "shape": [10**9, 16], "parameters": {"binary_data_size": 64}}
    text = json.dumps({"inputs": [tensor]}).encode()
    heard = await gateway.ask(post(text + bytes(64), INFER, f"inference-header-content-length: {len(text)}"))
    said_so(gateway, heard, 400, "", "bad_request")
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/outcomes"])
@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, identity", "GZIP"])
async def test_c23_what_is_read_here_must_not_be_coded(gateway: Gateway, path: str, coding: str) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(*endpoints(upstream))
        body = gzip.compress(b'{"model": "chat"}')
        heard = await gateway.ask(post(body, path, f"content-encoding: {coding}"))
        assert (heard.status, heard.proxy_error) == (415, "http_request_error")
        assert heard.headers["accept-encoding"] == "identity"
        assert gateway.rejected("unsupported_encoding") == 1
        gateway.nothing_kept()
        assert upstream.accepted == 0


async def test_c23_a_bomb_is_found_out_before_it_goes_off(gateway: Gateway) -> None:
    await gateway.publish(endpoint(champion()))
    bomb = gzip.compress(bytes(64 << 20))
    heard = await gateway.ask(post(bomb, INFER, "content-encoding: gzip"))
    said_so(gateway, heard, 413, "when decoded", "body_too_large")


async def test_c23_what_is_not_read_here_is_passed_on_as_it_is(gateway: Gateway) -> None:
    bomb = gzip.compress(bytes(6 << 20))
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        assert (await gateway.ask(post(bomb, "/plain/x", "content-encoding: gzip"))).status == 200
        assert upstream.requests[0].body == bomb
        assert (b"content-encoding", b"gzip") in upstream.requests[0].headers
        assert (await gateway.ask(get())).status == 200
