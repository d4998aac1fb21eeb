"""Outcomes of units: from callers with a key, hashed as the assignment was, and the unit's name written nowhere."""

from __future__ import annotations

import json
import logging
from hashlib import sha256
from typing import Any

import pytest

from gateway.events import Assignment, Outcome, Rejection, UnitOutcome
from gateway.plan import OutcomesPlan
from gateway.serving.outcomes import MOST
from tests.integration.serving.local_worker import (
    LocalWorker,
    Reply,
    challenger,
    champion,
    endpoint,
    http,
    infer_body,
    plan,
)
from tests.integration.serving.test_outcome_intake import token

pytestmark = pytest.mark.anyio
OLD_KEY, KEY = "an-old-key-of-24-letters", "a-key-of-20-letters."
DIGESTS = tuple(sha256(key.encode()).hexdigest() for key in (OLD_KEY, KEY))
BEARER = [("authorization", f"Bearer {KEY}")]
UNIT = "user-42 ☺"


@pytest.fixture
async def serving(worker: LocalWorker) -> LocalWorker:
    fixed = endpoint(
        http("a", "champion", "http://127.0.0.1:1"), name="fixed", protocol="http", experiment="", stage=""
    )
    anonymous = endpoint(champion(), name="anonymous", unit_header="", experiment="exp-2", salt="exp-2")
    both = endpoint(champion(), challenger(), share="0.5")
    await worker.publish(plan(both, fixed, anonymous, outcomes=OutcomesPlan(keys=DIGESTS)))
    return worker


def outcome(value: Any = 0.25, metric: str = "brier", **more: Any) -> dict[str, Any]:
    return {"endpoint": "flight", "unit": UNIT, "metric": metric, "value": value} | more


async def post(worker: LocalWorker, document: Any, headers: Any = BEARER) -> Reply:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return await worker.request("POST", "/v1/outcomes", body=body, headers=headers)


async def test_an_outcome_finds_its_unit_by_the_hashes_of_the_assignment(serving: LocalWorker) -> None:
    await serving.request(body=infer_body(), headers=[(b"x-user-id", UNIT.encode())])
    reply = await post(serving, outcome(id="o-1", at=serving.clock.wall_us() / 1e6))
    assert (reply.status, reply.json) == (200, {"accepted": 1, "durability": "process"})
    (assignment,) = serving.facts(Assignment)
    (fact,) = serving.facts(UnitOutcome)
    now = serving.clock.wall_us()
    hashes = assignment.bucket, assignment.unit
    assert fact == UnitOutcome("o-1", now, "flight", "exp-1", *hashes, "brier", 0.25, now)
    assert serving.count("gateway_outcomes", "flight", "brier", "accepted") == 1


async def test_a_time_long_ago_is_taken_for_nobody_here_knows_the_decision(serving: LocalWorker) -> None:
    await serving.request(body=infer_body(), headers=[(b"x-user-id", UNIT.encode())])
    assert (await post(serving, outcome(at="2020-01-01T00:00:00Z"))).status == 200
    (fact,) = serving.facts(UnitOutcome)
    assert (fact.at, fact.happened_at) == (serving.clock.wall_us(), 1_577_836_800_000_000)


async def test_the_units_name_is_written_nowhere(serving: LocalWorker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    canary = "canary-of-a-unit"
    assert (await post(serving, outcome(unit=canary))).status == 200
    assert (await post(serving, outcome(7, unit=canary))).status == 422
    replies = [await post(serving, outcome(unit=canary, endpoint=name)) for name in ("nowhere", "fixed", "anonymous")]
    written = b"".join(path.read_bytes() for path in serving.data_dir.rglob("*") if path.is_file())
    assert b"exp-1" in written
    assert canary.encode() not in written
    assert canary not in caplog.text
    assert not any(canary.encode() in reply.body for reply in replies)


async def test_blanks_around_a_unit_are_as_in_a_header(serving: LocalWorker) -> None:
    await post(serving, [outcome(), outcome(unit=f" {UNIT}\t")])
    first, second = serving.facts(UnitOutcome)
    assert (first.bucket, first.unit) == (second.bucket, second.unit)


async def test_both_kinds_come_in_one_request(serving: LocalWorker) -> None:
    mixed = [outcome(0.1), {"decision": token(), "metric": "brier", "value": 0.2}, outcome(0.3)]
    assert (await post(serving, mixed)).json == {"accepted": 3, "durability": "process"}
    assert [fact.value for fact in serving.facts(UnitOutcome)] == [0.1, 0.3]
    assert [fact.value for fact in serving.facts(Outcome)] == [0.2]
    lines = b"\n".join(json.dumps(one).encode() for one in mixed)
    reply = await post(serving, lines, [*BEARER, ("content-type", "application/x-ndjson")])
    assert reply.json["accepted"] == 3


@pytest.mark.parametrize("key", [OLD_KEY, KEY])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
async def test_any_of_the_keys_is_taken(serving: LocalWorker, key: str, scheme: str) -> None:
    assert (await post(serving, outcome(), [("authorization", f"{scheme} {key}")])).status == 200


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", f"Basic {KEY}", KEY, f"Bearer {KEY}x", f"Bearer {DIGESTS[1]}"]
)
async def test_any_other_is_refused_with_what_to_do(serving: LocalWorker, header: str | None) -> None:
    reply = await post(serving, outcome(), [] if header is None else [("authorization", header)])
    assert reply.status == 403
    assert "Authorization: Bearer <key>" in reply.error
    assert "outcomes.keys" in reply.error
    assert not serving.facts(UnitOutcome)
    assert serving.count("gateway_outcomes", "", "", "key_rejected") == 1


async def test_two_keys_at_once_are_none(serving: LocalWorker) -> None:
    reply = await post(serving, outcome(), [*BEARER, *BEARER])
    assert (reply.status, "authorization" in reply.error) == (400, True)
    assert not serving.facts(UnitOutcome)


async def test_where_no_key_is_configured_nobody_may(serving: LocalWorker) -> None:
    await serving.publish(plan(endpoint(champion()), revision=2))
    reply = await post(serving, outcome())
    assert reply.status == 403
    assert "`outcomes.keys` in the gateway's config has none" in reply.error


async def test_a_token_needs_no_key(serving: LocalWorker) -> None:
    mixed = [outcome(), {"decision": token(), "metric": "brier", "value": 0.2}]
    reply = await post(serving, mixed, [])
    assert (reply.status, reply.json["accepted"]) == (422, 1)
    assert [(one["index"], one["status"], one["reason"]) for one in reply.json["rejected"]] == [
        (0, 403, "key_rejected")
    ]
    assert len(serving.facts(Outcome)) == 1
    assert not serving.facts(UnitOutcome)


async def test_a_key_that_is_withdrawn_is_refused(serving: LocalWorker) -> None:
    await serving.publish(plan(endpoint(champion()), revision=2, outcomes=OutcomesPlan(keys=DIGESTS[:1])))
    assert (await post(serving, outcome())).status == 403
    assert (await post(serving, outcome(), [("authorization", f"Bearer {OLD_KEY}")])).status == 200


REFUSED: dict[str, tuple[Any, int, str]] = {
    "no endpoint": ({"unit": "u", "metric": "brier", "value": 1}, 400, "`endpoint`"),
    "no unit": ({"endpoint": "flight", "metric": "brier", "value": 1}, 400, "`unit`"),
    "unit no string": (outcome(unit=42), 400, "`unit`"),
    "blank unit": (outcome(unit=" \t "), 400, "`unit`"),
    "a token as well": (outcome(decision=token()), 400, "not both"),
    "an empty token as well": (outcome(decision=""), 400, "not both"),
    "unknown endpoint": (outcome(endpoint="other"), 422, "endpoints are ['anonymous', 'fixed', 'flight']"),
    "endpoint without an experiment": (outcome(endpoint="fixed"), 422, "fixed has no experiment"),
    "endpoint without units": (outcome(endpoint="anonymous"), 422, "post their decision tokens"),
    "a repeated request": (outcome(unit="idempotency-key 5"), 422, "post their decision tokens"),
    "unknown metric": (outcome(metric="other"), 422, "outcomes of flight are ['brier', 'late']"),
    "metric of the gateway": (outcome(metric="errors"), 422, "unknown metric 'errors'"),
    "above the bounds": (outcome(1.01), 422, "outside the bounds [0.0, 1.0]"),
    "half a boolean": (outcome(0.5, "late"), 422, "takes 0, 1, true or false"),
    "a string": (outcome("1"), 422, "finite number"),
    "still to come": (outcome(at="2123-11-14T22:13:20Z"), 422, "ahead of the gateway's clock"),
    "no time": (outcome(at="soon"), 422, "`at` must be a time with its zone"),
    "unknown key": (outcome(extra=1), 400, "unknown keys ['extra']"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_an_outcome_of_a_unit_is_refused_with_its_reason(serving: LocalWorker, case: str) -> None:
    document, status, words = REFUSED[case]
    reply = await post(serving, document)
    assert (reply.status, words in reply.error) == (status, True), reply.error
    assert not serving.facts(UnitOutcome)
    assert not serving.facts(Rejection)  # which are kept by decision


async def test_without_a_key_nothing_is_told_of_endpoints(serving: LocalWorker) -> None:
    assert (await post(serving, outcome(endpoint="other"), [])).status == 403


async def test_one_unit_does_not_flood(serving: LocalWorker) -> None:
    many = json.dumps([outcome(id=str(n)) for n in range(MOST)]).encode()
    await serving.publish(
        plan(endpoint(champion()), revision=2, max_body=16 << 20, outcomes=OutcomesPlan(keys=DIGESTS))
    )
    assert (await post(serving, many)).status == 200
    reply = await post(serving, outcome(id="one more"))
    assert (reply.status, reply.headers["retry-after"]) == (429, "60")
    assert "one decision or unit within 60 s" in reply.error
    assert (await post(serving, outcome(unit="somebody else"))).status == 200
    serving.clock.advance(60)
    assert (await post(serving, outcome(id="one more"))).status == 200
    assert len(serving.facts(UnitOutcome)) == MOST + 2
