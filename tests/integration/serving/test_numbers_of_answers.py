"""What a metric reads from an answer is an outcome that the worker posts itself, or is counted as unread."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from gateway.events import Assignment, Outcome, Rejection
from gateway.plan import MetricPlan, ReadingPlan
from tests.integration.backends.upstream import Upstream, answer, echoing
from tests.integration.serving.local_worker import LocalWorker, champion, endpoint, http, plan

pytestmark = pytest.mark.anyio
UNREAD = "gateway_unread_answers"
TOKENS = MetricPlan(name="tokens", type="count", source="answer", high=None)
COST = MetricPlan(name="cost", type="bounded", source="answer")
READ: dict[str, Any] = {
    "metrics": (TOKENS, COST),
    "readings": (
        ReadingPlan(metric="tokens", kind="json", what="/usage/completion_tokens"),
        ReadingPlan(metric="cost", kind="header", what="x-cost"),
    ),
}
BODY = b'{"usage": {"completion_tokens": 17}}'


ZIPPED = answer(gzip.compress(BODY), b"Content-Encoding: gzip", b"X-Cost: 1")
ANSWERS: dict[str, tuple[bytes, dict[str, float], list[str], int]] = {
    "both": (answer(BODY, b"X-Cost: 0.5"), {"tokens": 17.0, "cost": 0.5}, [], 0),
    "zipped": (ZIPPED, {"tokens": 17.0, "cost": 1.0}, [], 0),
    "neither": (answer(b"<html>"), {}, ["cost", "tokens"], 0),
    "beyond the bounds": (answer(BODY, b"X-Cost: 7"), {"tokens": 17.0}, ["cost"], 1),
    "an error": (answer(BODY, b"X-Cost: 0.5", status=b"400 Bad Request"), {}, [], 0),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_numbers_of_an_upstreams_answer(worker: LocalWorker, case: str) -> None:
    data, values, unread, rejected = ANSWERS[case]
    async with Upstream(echoing(data)) as upstream:
        variant = http("a", "champion", f"http://{upstream.authority}")
        await worker.publish(plan(endpoint(variant, name="plain", protocol="http", **READ)))
        reply = await worker.request("GET", "/plain/x")
    assert data.endswith(reply.body)  # as it came
    (assignment,) = worker.facts(Assignment)
    facts = worker.facts(Outcome)
    assert {fact.metric: fact.value for fact in facts} == values
    assert {(fact.id, fact.decision, fact.endpoint, fact.experiment) for fact in facts} <= {
        ("", assignment.decision, "plain", "exp-1")
    }
    assert len(worker.facts(Rejection)) == rejected
    assert [worker.count(UNREAD, "plain", "a", name) for name in ("cost", "tokens")] == [
        int(name in unread) for name in ("cost", "tokens")
    ]


async def test_of_a_model_in_the_process_its_answer_is_read_as_well(worker: LocalWorker) -> None:
    score = MetricPlan(name="score", type="bounded", source="answer")
    place = ReadingPlan(metric="score", kind="json", what="/outputs/0/data/0")
    await worker.publish(plan(endpoint(champion(), metrics=(score,), readings=(place,))))
    reply = await worker.infer("u")
    (fact,) = worker.facts(Outcome)
    assert fact.value == pytest.approx(reply.json["outputs"][0]["data"][0])
