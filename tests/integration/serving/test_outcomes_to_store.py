"""What is posted to a real worker, by token and by unit, sound and not, and what the store says of it afterwards."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gateway.assignment.token import Signer, pack_names
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.evidence.engine import Engine
from gateway.plan import EndpointPlan, OutcomesPlan, SigningKey
from gateway.store.base import PlanRow
from gateway.store.sqlite import SqliteStore
from tests.integration.serving.local_worker import KEY, LocalWorker, Reply, challenger, champion, endpoint, plan

pytestmark = pytest.mark.anyio
OUTCOME_KEY = "a-key-of-20-letters."
BEARER = [("authorization", f"Bearer {OUTCOME_KEY}")]
MINUTE = 60_000_000


def bounded(name: str, **more: Any) -> MetricDefinition:
    return MetricDefinition(name=name, type="bounded", source="outcome", increase=False, window_us=MINUTE, **more)


DEFINITION = Definition(
    id="exp-1",
    endpoint="flight",
    champion="logistic",
    challengers=("boosted",),
    metrics=(
        bounded("brier"),
        MetricDefinition(name="late", type="binary", source="outcome", increase=False, window_us=MINUTE),
        MetricDefinition(name="errors", type="binary", source="gateway", increase=False, margin=0.05),
    ),
    objective="brier",
    expected_effect=0.1,
    min_effect=0.05,
    segments=("origin",),
    segment_values=(("EWR", "JFK"),),
    answer_within_us=2_000_000,
)


class Node:
    """A worker, and what a control process does with what it leaves."""

    def __init__(self, worker: LocalWorker, store: SqliteStore) -> None:
        self.worker = worker
        self.store = store
        self.users = (f"user-{number}" for number in itertools.count())
        self.engine = Engine(worker.data_dir / "spool", store, worker.clock)

    async def begin(self) -> None:
        split = endpoint(champion(), challenger(), share="0.5")
        slots = {"flight": [[slot.start, slot.variant] for slot in split.slots]}
        with self.store.transaction():
            self.engine.start(DEFINITION)
            self.store.add_plan(PlanRow(1, 0, 0, "", "{}", json.dumps(slots)))
        await self.worker.publish(plan(split, outcomes=OutcomesPlan(keys=(sha256(OUTCOME_KEY.encode()).hexdigest(),))))

    async def ask(self, user: str = "") -> tuple[str, str]:
        """A request of a user, a new one by default; returns the user and the token."""
        user = user or next(self.users)
        reply = await self.worker.infer(user)
        assert reply.status == 200
        return user, reply.headers["x-gateway-decision"]

    async def post(self, *outcomes: dict[str, Any], body: bytes = b"") -> Reply:
        body = body or json.dumps([{"metric": "brier", "value": 0.25} | one for one in outcomes]).encode()
        return await self.worker.request("POST", "/v1/outcomes", body=body, headers=BEARER)

    def step(self, seconds: float = 1.0) -> None:
        """Time passes, the worker says so, and the control process takes a step."""
        self.worker.clock.advance(seconds)
        self.worker.worker.beat()
        self.engine.step()

    def kept(self, metric: str = "brier") -> list[tuple[str, float]]:
        """(id, value) of every outcome in the store."""
        return list(self.store.rows("SELECT id, value FROM outcome WHERE metric = ? ORDER BY at, id", (metric,)))

    def counted(self, name: str) -> int:
        """Over both variants, and those of which none is known."""
        return sum(number for (_, key), number in self.store.counters("exp-1").items() if key == name)

    def folded(self, metric: str = "brier") -> int:
        return self.store.cursors("exp-1").get(metric, 0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "gateway.db")
    yield store
    store.close()


@pytest.fixture
async def node(worker: LocalWorker, store: SqliteStore) -> Node:
    node = Node(worker, store)
    await node.begin()
    return node


def by_unit(user: str, **more: Any) -> dict[str, Any]:
    return {"endpoint": "flight", "unit": user} | more


async def test_by_token_and_by_unit_an_outcome_is_its_requests(node: Node) -> None:
    (_, token), (user, _) = await node.ask(), await node.ask()
    at = node.worker.clock.wall_us() / 1e6
    assert (await node.post({"decision": token, "at": at}, by_unit(user, value=0.5, at=at))).json["accepted"] == 2
    node.step()
    node.step()
    assert node.kept() == [("", 0.25), ("", 0.5)]
    exposures = dict(node.store.rows("SELECT decision, variant FROM request"))
    outcomes = dict(node.store.rows("SELECT decision, happened_at FROM outcome"))
    assert exposures.keys() == outcomes.keys()
    assert set(outcomes.values()) == {round(at * 1e6)}
    node.step(61)
    node.step()
    assert node.folded() == 2


async def test_what_comes_again_is_counted_and_the_first_stays(node: Node) -> None:
    (_, token), (user, _) = await node.ask(), await node.ask()
    for one in ({"decision": token}, by_unit(user)):
        await node.post(one | {"value": 0.25})
        await node.post(one | {"value": 0.25}, one | {"value": 0.75})  # a repetition, and a correction
        await node.post(one | {"value": 0.25, "id": "another"})
        node.step()
        node.step()
    assert sorted(node.kept()) == [("", 0.25), ("", 0.25), ("another", 0.25), ("another", 0.25)]
    assert (node.counted("duplicate"), node.counted("conflict")) == (2, 2)


async def test_a_correction_in_the_same_request_is_a_conflict_too(node: Node) -> None:
    (_, token), (user, _) = await node.ask(), await node.ask()
    await node.post({"decision": token, "value": 0.1}, {"decision": token, "value": 0.2})
    await node.post(by_unit(user, value=0.3), by_unit(user, value=0.4), by_unit(user, value=0.3))
    node.step()
    node.step()
    assert [value for _, value in node.kept()] == [0.1, 0.3]
    assert (node.counted("duplicate"), node.counted("conflict")) == (1, 2)


async def test_an_outcome_of_a_thousand_repetitions_counts_once(node: Node) -> None:
    _, token = await node.ask()
    for _ in range(10):
        assert (await node.post(*[{"decision": token, "id": "the one"}] * 100)).status == 200
    node.step()
    assert node.kept() == [("the one", 0.25)]
    assert node.counted("duplicate") == 999


async def test_an_outcome_that_overtakes_its_exposure_waits_for_it(node: Node) -> None:
    decision, now = 7 << 40 | 1, node.worker.clock.wall_us()
    token = Signer([KEY]).sign(pack_names("flight", "exp-1"), decision, now, 0).decode()
    assert (await node.post({"decision": token})).status == 200
    node.step()
    assert node.kept() == [("", 0.25)]
    assert node.engine.units("exp-1") == 0
    user, real = await node.ask()
    assert Signer([KEY]).verify(real).decision == decision
    await node.post(by_unit(user, metric="late", value=1))  # before the assignment is in the store
    node.step()
    node.step()
    assert node.kept("late") == [("", 1.0)]
    node.step(61)
    node.step()
    assert (node.folded(), node.folded("late")) == (1, 1)
    variants = dict(node.store.rows("SELECT metric, count(*) FROM outcome JOIN request USING (decision) GROUP BY 1"))
    assert variants == {"brier": 1, "late": 1}


async def test_late_ones_are_counted_and_nothing_else(node: Node) -> None:
    (_, token), (user, _) = await node.ask(), await node.ask()
    node.step()
    node.step(61)
    node.step()
    assert node.folded() == 2
    before = node.store.evidence("exp-1")
    reply = await node.post({"decision": token}, by_unit(user))
    assert reply.json["accepted"] == 2  # whether it is late, only the control process can tell
    node.step()
    node.step()
    assert node.counted("late") == 2
    assert node.store.evidence("exp-1") == before


async def test_a_unit_that_nobody_knows_is_counted(node: Node) -> None:
    assert (await node.post(by_unit("a stranger"))).status == 200
    node.step()
    node.step()
    assert node.counted("unmatched") == 1
    assert node.kept() == []


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"metric": "other"}, "unknown metric"),
    ({"metric": "errors"}, "unknown metric"),
    ({"value": 1.5}, "outside the bounds"),
    ({"value": "0.5"}, "finite number"),
    ({"value": None}, "finite number"),
    ({"at": "2123-01-01T00:00:00Z"}, "ahead of the gateway's clock"),
]


@pytest.mark.parametrize(("fault", "words"), REFUSED)
async def test_what_cannot_be_taken_is_refused_and_counted_for_its_variant(
    node: Node, fault: dict[str, Any], words: str
) -> None:
    user, token = await node.ask()
    reply = await node.post({"decision": token} | fault, by_unit(user) | fault)
    assert reply.status == 422
    assert [words in one["detail"] for one in reply.json["rejected"]] == [True, True]
    node.step()
    node.step()
    assert node.kept() == []
    variant = next(iter(node.store.rows("SELECT variant FROM request")))[0]
    assert node.store.counters("exp-1") == {(variant, "rejected"): 1}


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"1e999"])
async def test_no_number_at_all_is_refused_whole(node: Node, literal: bytes) -> None:
    _, token = await node.ask()
    body = json.dumps([{"decision": token, "metric": "brier", "value": 0.125}] * 2).encode()
    reply = await node.post(body=body.replace(b"0.125", literal, 1))
    assert (reply.status, "not valid JSON" in reply.error) == (400, True)
    node.step()
    assert node.kept() == []


async def test_tokens_of_others_leave_nothing(node: Node) -> None:
    _, token = await node.ask()
    names = pack_names("flight", "exp-1")
    stranger = Signer([SigningKey(id=1, secret="99" * 32)]).sign(names, 7 << 40 | 1, 1, 1).decode()
    flipped = token[:30] + ("A" if token[30] != "A" else "B") + token[31:]
    reply = await node.post(*({"decision": forged} for forged in (stranger, flipped, token + "A", token[:-4])))
    assert reply.status == 403
    assert node.worker.count("gateway_outcomes", "", "", "token_rejected") == 4
    node.step()
    assert (node.kept(), node.store.counters("exp-1")) == ([], {})


async def test_a_token_of_another_experiment_is_not_this_ones(node: Node) -> None:
    await node.ask()
    past = Signer([KEY]).sign(pack_names("flight", "exp-0"), 7 << 40 | 99, 1, 1).decode()
    assert (await node.post({"decision": past})).status == 200
    node.step()
    node.step(61)
    node.step()
    assert node.kept() == [("", 0.25)]
    assert list(node.store.rows("SELECT * FROM outcome JOIN request USING (decision)")) == []
    assert node.folded() == 1  # the unit of the one request, whose outcome never came


async def test_after_a_restart_of_the_control_process_nothing_is_lost_and_nothing_double(node: Node) -> None:
    (_, token), (user, _) = await node.ask(), await node.ask()
    await node.post({"decision": token}, by_unit(user, value=0.5))
    node.step()
    node.engine = Engine(node.worker.data_dir / "spool", node.store, node.worker.clock)
    await node.post({"decision": token}, by_unit(user, value=0.5), by_unit(user, metric="late", value=True))
    node.step()
    node.step()
    assert sorted(node.kept() + node.kept("late")) == [("", 0.25), ("", 0.5), ("", 1.0)]
    assert (node.counted("duplicate"), node.counted("conflict")) == (2, 0)


def test_the_definition_is_what_the_plan_says() -> None:
    served: EndpointPlan = endpoint(champion(), challenger(), share="0.5")
    posted = {metric.name for metric in served.metrics if metric.source == "outcome"}
    assert posted == {metric.name for metric in DEFINITION.metrics if metric.source == "outcome"}
