"""What is said of a model behind an upstream: the champion's own words, under the endpoint's name."""

from __future__ import annotations

import gzip
from typing import Any

import msgspec
import pytest

from gateway.events import Assignment
from tests.integration.backends.upstream import Upstream, answer, echoing
from tests.integration.serving.local_worker import LocalWorker, endpoint, http, plan

pytestmark = pytest.mark.anyio
JSON = b"Content-Type: application/json"
METADATA = b'{"name":"inner","versions":["7"],"platform":"x","inputs":[{"name":"name"}],"outputs":[]}'
OUTER = METADATA.replace(b'"inner"', b'"flight"')


async def described(
    worker: LocalWorker, path: str, said: bytes, *headers: tuple[str, str], model: str = ""
) -> tuple[Any, Upstream]:
    async with Upstream(echoing(said)) as upstream:
        url = f"http://{upstream.authority}"
        asked = msgspec.structs.replace(http("a", "champion", url), model=model)
        await worker.publish(plan(endpoint(asked, http("b", "challenger", "http://127.0.0.1:1"))))
        reply = await worker.request("GET", path, headers=headers)
    worker.nothing_happened()
    return reply, upstream


@pytest.mark.parametrize("path", ["", "/versions/7", "/ready", "/versions/7/ready", "/config"])
async def test_the_champion_is_asked_in_the_clients_words(worker: LocalWorker, path: str) -> None:
    secret = ("authorization", "Bearer x")
    reply, upstream = await described(
        worker, f"/v2/models/flight{path}", answer(METADATA, JSON), secret, ("cookie", "c")
    )
    assert (reply.status, reply.body) == (200, OUTER)
    assert reply.headers["content-type"] == "application/json"
    (request,) = upstream.requests
    assert request.line == f"GET /v2/models/flight{path} HTTP/1.1".encode()
    assert (b"authorization", b"Bearer x") in request.headers
    assert b"cookie" not in request.names()


async def test_the_champion_is_asked_by_its_own_name_for_the_model(worker: LocalWorker) -> None:
    path = "/v2/models/flight/versions/7"
    reply, upstream = await described(worker, path, answer(METADATA, JSON), model="in/ner")
    assert reply.body == OUTER
    assert upstream.requests[0].line == b"GET /v2/models/in%2Fner/versions/7 HTTP/1.1"


async def test_a_coded_description_is_named_too(worker: LocalWorker) -> None:
    said = answer(gzip.compress(METADATA), JSON, b"Content-Encoding: gzip")
    reply, _ = await described(worker, "/v2/models/flight", said)
    assert gzip.decompress(reply.body) == OUTER


async def test_what_the_champion_does_not_have_it_says_itself(worker: LocalWorker) -> None:
    said = answer(b'{"error":"no such version"}', JSON, status=b"404 Not Found")
    reply, _ = await described(worker, "/v2/models/flight/versions/8", said)
    assert (reply.status, reply.error) == (404, "no such version")


async def test_a_champion_that_is_away_is_no_description(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(http("a", "champion", "http://127.0.0.1:1"))))
    for path in ("/v2/models/flight", "/v2/models/flight/ready"):
        reply = await worker.request("GET", path)
        assert reply.status == 502
        assert reply.error
    assert not worker.facts(Assignment)
