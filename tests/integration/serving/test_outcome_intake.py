"""Outcomes: checked, kept, acknowledged, in that order; nothing is acknowledged that was not kept."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.assignment.token import Signer, pack_names
from gateway.clock import FakeClock
from gateway.errors import SpoolError
from gateway.events import Outcome, Rejection
from gateway.plan import MetricPlan, SigningKey
from gateway.serving.outcomes import MOST
from gateway.spool.writer import SpoolWriter
from tests.integration.serving.local_worker import KEY, LocalWorker, Reply, champion, endpoint, plan

pytestmark = pytest.mark.anyio
NDJSON = [("content-type", "application/x-ndjson; charset=utf-8")]


@pytest.fixture
async def serving(worker: LocalWorker) -> LocalWorker:
    await worker.publish(plan(endpoint(champion())))
    return worker


NOW = FakeClock().wall_us()


def token(
    decision: int = 5, experiment: str = "exp-1", key: SigningKey = KEY, endpoint: str = "flight", at: int = 1
) -> str:
    return Signer([key]).sign(pack_names(endpoint, experiment), decision, at, 2).decode()


FORGED = token(key=SigningKey(id=1, secret="99" * 32))


def outcome(value: Any = 0.25, metric: str = "brier", **more: Any) -> dict[str, Any]:
    return {"decision": token(), "metric": metric, "value": value} | more


async def post(worker: LocalWorker, document: Any, headers: Any = ()) -> Reply:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return await worker.request("POST", "/v1/outcomes", body=body, headers=headers)


async def test_an_outcome_of_a_real_answer_is_kept_and_acknowledged(serving: LocalWorker) -> None:
    decision = (await serving.infer("u")).headers["x-gateway-decision"]
    reply = await post(serving, {"decision": decision, "metric": "brier", "value": 0.25, "id": "o-1"})
    assert (reply.status, reply.json) == (200, {"accepted": 1, "durability": "process"})
    (fact,) = serving.facts(Outcome)
    now = serving.clock.wall_us()
    assert fact == Outcome("o-1", now, 7 << 40 | 1, "flight", "exp-1", "brier", 0.25, now)
    assert serving.count("gateway_outcomes", "flight", "brier", "accepted") == 1


@pytest.mark.parametrize("at", [NOW / 1e6 - 60, "2023-11-14T22:12:20Z", "2023-11-14T23:12:20.000+01:00"])
async def test_when_it_happened_is_kept_beside_when_it_came(serving: LocalWorker, at: Any) -> None:
    assert (await post(serving, outcome(at=at) | {"decision": token(at=NOW - 90_000_000)})).status == 200
    (fact,) = serving.facts(Outcome)
    assert (fact.at, fact.happened_at, fact.assigned_at) == (NOW, NOW - 60_000_000, NOW - 90_000_000)


async def test_clocks_may_differ_by_minutes(serving: LocalWorker) -> None:
    decision = token(at=NOW)
    for at in (NOW / 1e6 - 299, NOW / 1e6 + 299):
        assert (await post(serving, outcome(at=at) | {"decision": decision})).status == 200


async def test_one_token_does_not_flood(serving: LocalWorker) -> None:
    one = outcome()
    for _ in range(5):
        assert (await post(serving, [one] * (MOST // 5))).status == 200
    reply = await post(serving, [one, outcome(2), one | {"decision": token(6)}])
    assert (reply.status, reply.json["accepted"]) == (422, 1)
    assert [(r["index"], r["status"], r["reason"]) for r in reply.json["rejected"]] == [
        (0, 429, "too_many"),
        (1, 429, "too_many"),
    ]
    assert serving.count("gateway_outcomes", "", "", "too_many") == 2
    assert len(serving.facts(Outcome)) == MOST + 1
    assert not serving.facts(Rejection)


async def test_many_are_judged_in_turns_and_kept_as_one(serving: LocalWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop answers others meanwhile, whose facts are older than what is appended behind them."""
    turns = 0
    writes: list[int] = []
    append = SpoolWriter.append_all

    def appended(spool: SpoolWriter, facts: Any) -> None:
        writes.append(len(facts))
        append(spool, facts)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            serving.clock.advance(0.001)
            serving.worker.beat()
            await asyncio.sleep(0)

    monkeypatch.setattr(SpoolWriter, "append_all", appended)
    beside = asyncio.get_running_loop().create_task(others())
    many = [outcome(number / 4000, id=str(number)) | {"decision": token(number)} for number in range(3000)]
    assert (await post(serving, [*many, outcome(2)])).json["accepted"] == 3000
    beside.cancel()
    assert writes == [3001]
    assert turns >= 3001 // 500
    assert [fact.id for fact in serving.facts(Outcome)] == [str(number) for number in range(3000)]
    stream = [fact.at for fact in serving.of_stream("outcomes")]
    assert stream == sorted(stream)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (json.dumps([outcome(0.1), outcome(0.2)]).encode(), ()),
        (json.dumps({"outcomes": [outcome(0.1), outcome(0.2)]}).encode(), ()),
        (b"\n".join([json.dumps(outcome(0.1)).encode(), b"", json.dumps(outcome(0.2)).encode(), b"  "]), NDJSON),
        (b"\r\n".join([json.dumps(outcome(0.1)).encode(), json.dumps(outcome(0.2)).encode(), b""]), NDJSON),
    ],
)
async def test_many_come_in_three_forms(serving: LocalWorker, body: bytes, headers: Any) -> None:
    reply = await post(serving, body, headers)
    assert (reply.status, reply.json) == (200, {"accepted": 2, "durability": "process"})
    assert [fact.value for fact in serving.facts(Outcome)] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("metric", "value", "kept"), [("late", True, 1.0), ("late", False, 0.0), ("late", 1, 1.0), ("brier", 1, 1.0)]
)
async def test_booleans_and_integers_are_numbers(serving: LocalWorker, metric: str, value: Any, kept: float) -> None:
    assert (await post(serving, outcome(value, metric))).status == 200
    (fact,) = serving.facts(Outcome)
    assert fact.value == kept
    assert type(fact.value) is float


REFUSED: dict[str, tuple[Any, int, str]] = {
    "forged": (outcome() | {"decision": FORGED}, 403, "token is not valid"),
    "altered": (outcome() | {"decision": token()[:-1]}, 403, "token is not valid"),
    "empty token": (outcome() | {"decision": ""}, 403, "token is not valid"),
    "no token": ({"metric": "brier", "value": 1}, 400, "`decision`"),
    "token no string": (outcome() | {"decision": 5}, 400, "`decision`"),
    "unknown metric": (outcome(metric="other"), 422, "outcomes of flight are ['brier', 'late']"),
    "metric of the gateway": (outcome(metric="errors"), 422, "unknown metric 'errors'"),
    "no metric": ({"decision": token(), "value": 1}, 400, "`metric`"),
    "empty metric": (outcome(metric=""), 400, "`metric`"),
    "metric of 2 MB": (outcome(metric="x" * 500_000), 400, "`metric`"),
    "above the bounds": (outcome(1.01), 422, "outside the bounds [0.0, 1.0]"),
    "below the bounds": (outcome(-1e308), 422, "outside the bounds"),
    "half a boolean": (outcome(0.5, "late"), 422, "takes 0, 1, true or false"),
    "a string": (outcome("1"), 422, "finite number"),
    "null": (outcome(None), 422, "finite number"),
    "a list": (outcome([1]), 422, "finite number"),
    "no value": ({"decision": token(), "metric": "brier"}, 400, "`value` is missing"),
    "unknown key": (outcome(extra=1), 400, "unknown keys ['extra']"),
    "id no string": (outcome(id=3), 400, "`id`"),
    "id too long": (outcome(id="x" * 129), 400, "`id`"),
    "without zone": (outcome(at="2023-11-14T22:13:20"), 422, "`at` must be a time with its zone"),
    "in milliseconds": (outcome(at=1_700_000_000_000), 422, "is it in milliseconds?"),
    "still to come": (outcome(at=1_700_000_000 + 301), 422, "ahead of the gateway's clock"),
    "before the decision": (outcome(at=1_600_000_000) | {"decision": token(at=NOW)}, 422, "before the decision"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_single_outcome_is_refused_with_its_reason(serving: LocalWorker, case: str) -> None:
    document, status, words = REFUSED[case]
    reply = await post(serving, document)
    assert reply.status == status
    assert words in reply.error
    assert not serving.facts(Outcome)
    # An authentic one that cannot be taken is a fact about its variant; anything else is the sender's affair.
    rejections = serving.facts(Rejection)
    assert [(r.decision, r.reason) for r in rejections] == ([(5, "value_rejected")] if status == 422 else [])


KINDS = (
    MetricPlan(name="clicks", type="count", source="outcome", low=0.0, high=None),
    MetricPlan(name="revenue", type="unbounded", source="outcome", low=None, high=None),
    MetricPlan(name="delay", type="score", source="outcome", low=-60.0, high=600.0),
    MetricPlan(name="per_click", type="ratio", source="outcome", low=None, high=None),
    MetricPlan(name="slow", type="latency", source="gateway"),
    MetricPlan(name="tokens", type="count", source="answer", high=None),
)


@pytest.mark.parametrize(
    ("metric", "value"),
    [("clicks", 0), ("clicks", 1e300), ("revenue", -1e308), ("revenue", 12.5), ("delay", -60), ("delay", 600.0)],
)
async def test_a_value_within_what_bounds_there_are_is_kept(worker: LocalWorker, metric: str, value: Any) -> None:
    await worker.publish(plan(endpoint(champion(), metrics=KINDS)))
    assert (await post(worker, outcome(value, metric))).status == 200
    (fact,) = worker.facts(Outcome)
    assert (fact.metric, fact.value) == (metric, value)


@pytest.mark.parametrize(
    ("metric", "value", "words"),
    [
        ("clicks", -1, "clicks: -1 lies outside the bounds [0.0, inf]"),
        ("revenue", None, "finite number"),
        ("revenue", "1", "finite number"),
        ("delay", 600.5, "delay: 600.5 lies outside the bounds [-60.0, 600.0]"),
        ("per_click", 0.5, "unknown metric 'per_click'; outcomes of flight are ['clicks', 'delay', 'revenue']"),
        ("tokens", 5, "unknown metric 'tokens'; outcomes of flight are ['clicks', 'delay', 'revenue']"),
        ("slow", 0.5, "unknown metric 'slow'; outcomes of flight are ['clicks', 'delay', 'revenue']"),
    ],
)
async def test_what_lies_beyond_them_or_is_never_posted_is_refused(
    worker: LocalWorker, metric: str, value: Any, words: str
) -> None:
    await worker.publish(plan(endpoint(champion(), metrics=KINDS)))
    reply = await post(worker, outcome(value, metric))
    assert reply.status == 422
    assert words in reply.error
    assert not worker.facts(Outcome)
    assert len(worker.facts(Rejection)) == 1


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
async def test_no_bound_is_no_leave_to_be_infinite(worker: LocalWorker, literal: bytes) -> None:
    await worker.publish(plan(endpoint(champion(), metrics=KINDS)))
    body = json.dumps(outcome(0.25, "revenue")).encode().replace(b"0.25", literal)
    assert (await post(worker, body)).status == 400
    worker.nothing_happened()


@pytest.mark.parametrize(
    ("body", "headers", "words"),
    [
        (b"", (), "not valid JSON"),
        (json.dumps(outcome()).encode().replace(b"0.25", b"NaN"), (), "not valid JSON"),
        (json.dumps(outcome()).encode().replace(b"0.25", b"1e999"), (), "not valid JSON"),
        (b"[" * 100_000, (), "not valid JSON"),
        (b"3", (), "expected an outcome"),
        (b"[]", (), "at least one"),
        (b'{"outcomes": []}', (), "at least one"),
        (b'{"outcomes": 3}', (), "expected an outcome"),
        (b"\n\n", NDJSON, "at least one"),
        (b"[" + b"1," * 10_000 + b"1]", (), "at most 10000"),
        (b"{\n" * 10_001, NDJSON, "at most 10000"),
    ],
)
async def test_a_body_that_is_no_list_of_outcomes_is_refused_whole(
    serving: LocalWorker, body: bytes, headers: Any, words: str
) -> None:
    reply = await post(serving, body, headers)
    assert reply.status == 400
    assert words in reply.error
    serving.nothing_happened()


async def test_the_sound_ones_of_many_are_kept_and_the_others_named(serving: LocalWorker) -> None:
    many = [outcome(0.1), outcome(2), outcome() | {"decision": FORGED}, 3, outcome(0.4)]
    reply = await post(serving, many)
    assert reply.status == 422
    assert reply.json["accepted"] == 2
    assert [(r["index"], r["status"], r["reason"]) for r in reply.json["rejected"]] == [
        (1, 422, "value_rejected"),
        (2, 403, "token_rejected"),
        (3, 400, "bad_request"),
    ]
    assert [fact.value for fact in serving.facts(Outcome)] == [0.1, 0.4]
    assert len(serving.facts(Rejection)) == 1
    assert serving.count("gateway_outcomes", "flight", "brier", "accepted") == 2
    assert serving.count("gateway_outcomes", "flight", "brier", "value_rejected") == 1
    assert serving.count("gateway_outcomes", "", "", "token_rejected") == 1
    assert serving.count("gateway_outcomes", "", "", "bad_request") == 1


@pytest.mark.parametrize(
    ("many", "status"),
    [
        ([outcome() | {"decision": FORGED}] * 2, 403),
        ([outcome(2)] * 2, 422),
        ([3, 4], 400),
        ([3, outcome(2)], 422),
        ([outcome(), outcome() | {"decision": FORGED}], 422),
    ],
)
async def test_the_status_of_many_tells_the_common_reason(serving: LocalWorker, many: Any, status: int) -> None:
    assert (await post(serving, many)).status == status


async def test_a_line_that_is_no_json_is_refused_and_the_others_are_kept(serving: LocalWorker) -> None:
    sound = [json.dumps(outcome(value)).encode() for value in (0.1, 0.2)]
    reply = await post(serving, b"\n".join([sound[0], b"", b'{"decision": ', sound[1], b"\xff"]), NDJSON)
    assert (reply.status, reply.json["accepted"]) == (422, 2)
    assert [(r["index"], r["status"], r["reason"], r["detail"][:24]) for r in reply.json["rejected"]] == [
        (1, 400, "bad_request", "line 3 is not valid JSON"),
        (3, 400, "bad_request", "line 5 is not valid JSON"),
    ]
    assert [fact.value for fact in serving.facts(Outcome)] == [0.1, 0.2]
    assert serving.count("gateway_outcomes", "flight", "brier", "accepted") == 2
    assert serving.count("gateway_outcomes", "", "", "bad_request") == 2
    nothing = await post(serving, b"{\n[\n", NDJSON)
    assert (nothing.status, nothing.json["accepted"], len(nothing.json["rejected"])) == (400, 0, 2)


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "application/json", ""])
async def test_lines_sent_as_something_else_are_told_which_header_they_need(
    serving: LocalWorker, content_type: str
) -> None:
    line = json.dumps(outcome()).encode()
    headers = [("content-type", content_type)] if content_type else []
    reply = await post(serving, line + b"\n" + line, headers)
    assert (reply.status, "need the header `content-type: application/x-ndjson`" in reply.error) == (400, True)
    for other in (line[:-1], line[:-1] + b"\n}}", line + b"}", b"\n" + line[:-1] + b",\n"):
        reply = await post(serving, other, headers)
        assert (reply.status, "ndjson" in reply.error) == (400, False), reply.error
    serving.nothing_happened()


async def test_an_outcome_of_a_past_experiment_is_kept_for_the_control_process(serving: LocalWorker) -> None:
    reply = await post(serving, outcome(17.5, "anything") | {"decision": token(experiment="exp-0")})
    assert reply.status == 200
    (fact,) = serving.facts(Outcome)
    assert (fact.experiment, fact.metric, fact.value) == ("exp-0", "anything", 17.5)
    assert serving.count("gateway_outcomes", "flight", "", "accepted") == 1  # no label that a client chose


async def test_tokens_of_a_rotated_key_are_taken_until_it_is_gone(serving: LocalWorker) -> None:
    new = SigningKey(id=2, secret="33" * 32)
    await serving.publish(plan(endpoint(champion()), keys=(new, KEY), revision=2))
    assert (await post(serving, outcome())).status == 200
    await serving.publish(plan(endpoint(champion()), keys=(new,), revision=3))
    assert (await post(serving, outcome())).status == 403


@pytest.mark.parametrize("document", [outcome(), [outcome(), outcome(2)]])
async def test_what_the_disk_refuses_is_not_acknowledged(
    serving: LocalWorker, monkeypatch: pytest.MonkeyPatch, document: Any
) -> None:
    def full(*_: object) -> None:
        raise SpoolError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(SpoolWriter, "append_all", full)
        reply = await post(serving, document)
    assert reply.status == 503
    assert "send all of them again" in reply.error
    assert "accepted" not in reply.json
    assert serving.count("gateway_spool_failures", "outcomes") == 1
    assert serving.count("gateway_outcomes", "flight", "brier", "accepted") == 0
    serving.nothing_happened()
    assert (await post(serving, outcome())).status == 200


async def test_too_large_a_body_is_refused(serving: LocalWorker) -> None:
    assert (await post(serving, b" " * ((1 << 20) + 1))).status == 413
