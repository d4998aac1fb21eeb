"""What `gateway check` reckons with is what a store and its spools really take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.config.load import load
from gateway.events import Assignment, Completion, Outcome, Shadow, decision_id
from gateway.forgetting import volume
from gateway.forgetting.retention import Retention
from gateway.forgetting.volume import expected
from gateway.plan import HASH_SPACE
from gateway.store.base import PlanRow
from tests.unit.evidence.world import BRIER, ERRORS, LATENCY, World, definition
from tests.unit.release.configs import experiment, write

NUMBER = 4000
NEAR = 0.12  # how far a fact may be from what is reckoned with
METRICS = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """As many requests as the demo makes them, each of a unit of its own with an outcome and a shadow."""
    define = replace(
        definition(BRIER, ERRORS, LATENCY),
        id="boosted-vs-logistic",
        endpoint="flight-delay",
        champion="logistic",
        challengers=("boosted",),
    )
    made = World(tmp_path_factory.mktemp("volume"), define=define)
    slots = {"flight-delay": [[0, "logistic"], [HASH_SPACE // 2, "boosted"]]}
    made.store.add_plan(PlanRow(1, 0, 0, "", "{}", json.dumps(slots)))
    made.shard()
    for number in range(1, NUMBER + 1):
        made.clock.advance(0.01)
        request(made, number)
        if number % 1000 == 0:
            made.step()
    made.pass_time(100.0)
    while made.step():
        pass
    yield made
    made.close()


def request(world: World, number: int) -> None:
    requests, outcomes = world.shards[0].requests, world.shards[0].outcomes
    decision, at = decision_id(1, number), requests.now()
    point = number * 0x9E3779B97F4A7C15 % HASH_SPACE
    unit, variant = point.to_bytes(16, "big"), ("logistic", "boosted")[point >= HASH_SPACE // 2]
    about = ("flight-delay", "boosted-vs-logistic", "traffic-50%", variant, 0.5, point, unit, ("EWR",), 1)
    requests.append(Assignment(decision, at, *about))
    took = 300 + number % 4000
    requests.append(Completion(decision, at + took, variant, "answered", 200, took, took + 90, "", None, 1, at))
    requests.append(Shadow(decision, at + took, "boosted", took, "", 1.0 / number, at))
    score = ("flight-delay", "boosted-vs-logistic", "brier", 1.0 / number)
    outcomes.append(Outcome("", at + took, decision, *score, at))


def bytes_of(world: World, table: str) -> float:
    """Of one request."""
    rows = world.store.rows("SELECT sum(pgsize) FROM dbstat WHERE name = ?", (table,))
    size: int = rows[0][0]
    return size / NUMBER


def test_what_each_fact_takes(world: World) -> None:
    measured = {
        "assignment": volume.ASSIGNMENT,
        "completion": volume.COMPLETION,
        "outcome": volume.OUTCOME,
        "shadow": volume.SHADOW,
        "unit": volume.UNIT,
        "vote": volume.VOTE,
    }
    assert {name: bytes_of(world, name) for name in measured} == pytest.approx(measured, rel=NEAR)


def test_what_spools_take(world: World) -> None:
    sizes = {path.name.split(".")[1]: path.stat().st_size / NUMBER for path in (world.folder / "spool").iterdir()}
    requests = volume.SPOOLED_REQUEST + volume.SPOOLED_SHADOW
    assert sizes == pytest.approx({"requests": requests, "outcomes": volume.SPOOLED_OUTCOME}, rel=NEAR)


def test_what_stays_of_a_vote(world: World) -> None:
    world.step(3 * 86_400.0)
    some = Retention(world.store, world.clock, 86_400.0)
    while not some.dropped:
        some.tick(world.engine.seen_through)
    assert bytes_of(world, "settled") / METRICS == pytest.approx(volume.SETTLED, rel=NEAR)
    assert world.store.rows("SELECT count(*) FROM assignment") == [(0,)]


def config(folder: Path, **endpoints: dict[str, Any]) -> Any:
    return load(write(folder, **endpoints)).config


def test_it_depends_on_what_is_measured(tmp_path: Path) -> None:
    plain = experiment("plain")
    more = experiment("more")
    more["metrics"]["clicks"] = deepcopy(more["metrics"]["score"])
    one, both = config(tmp_path, rank=plain), config(tmp_path, rank=plain, other_rank=more)
    assert expected(one, 10.0).facts == (54 + 53 + 50) * 864_000
    assert expected(one, 10.0).votes == (86 + 100 + 2 * 46 + 200) * 864_000
    assert expected(one, 1.0)[1:] == tuple(size / 10 for size in expected(one, 10.0)[1:])
    assert expected(both, 10.0).endpoint == "other-rank"  # of which a request takes the most
    assert expected(both, 10.0).facts - expected(one, 10.0).facts == 50 * 864_000
