"""Some days in the life of an endpoint, at random: what replay, verification and forgetting are tried on.

The times of the facts and the steps depend on the seed alone, so two worlds with one seed see the same.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

from msgspec.structs import replace

from gateway.assignment.ranges import owner
from gateway.audit.replay import Replayed, replay
from gateway.audit.verify import verify
from gateway.events import UnitOutcome
from gateway.evidence.closing import MOST
from gateway.evidence.report import WATCH
from tests.unit.evidence.test_batches import CLICKS, RATIO, SCORE, SLOWER, VIEWS
from tests.unit.evidence.world import BRIER, ERRORS, LATENCY, SECOND, World, definition

REVENUE = replace(BRIER, name="revenue", type="unbounded", aggregate="max", missing="zero")
DAY = 86_400.0
PLAIN = replace(definition(BRIER, ERRORS, LATENCY), covariates=1)
RICH = replace(
    definition(SCORE, ERRORS, SLOWER, REVENUE, CLICKS, VIEWS, RATIO, objective="score"),
    challengers=("b", "c"),
    paired=True,
    holdback=True,
    cycle_us=40 * SECOND,
)
STAGES = (
    ("s1", {"b": 0.2, "c": 0.1}),
    ("s2", {"b": 0.3, "c": 0.4}),
    ("s3", {"b": 0.5, "c": 0.0}),
    (WATCH, {"b": 0.9, "c": 0.0}),
)
Then = Callable[[], object]


def live(world: World, seed: int, *, days: int = 3, requests: int = 40, then: Then = lambda: None) -> World:
    """Bursts of requests, a day apart; `then` is called after each step. At the end everything is folded."""
    chance = random.Random(seed)
    for day in range(days):
        for number in range(requests):
            world.clock.advance(chance.uniform(0.5, 4.0))
            _request(world, chance, (day * requests + number) * len(STAGES) // (days * requests))
            if chance.random() < 0.1:
                _outcome_by_unit(world, chance)
            world.pass_time(0.001)
            if chance.random() < 0.3:
                _step(world, then)
        world.pass_time(chance.uniform(1.0, 3.0))
        _step(world, then)
        world.pass_time(DAY)
        _step(world, then)
    world.pass_time(3600.0)
    while world.step():
        then()
    then()
    return world


def again(world: World, most: int = MOST) -> Replayed:
    """The world's experiment, replayed."""
    with world.store.transaction():
        [replayed] = replay(world.store, most=most)
    return replayed


def said(world: World) -> list[str]:
    """What verification says."""
    with world.store.transaction():
        return [str(finding) for finding in verify(world.store)]


def unit_hash(unit: str) -> bytes:
    """The stored hash of a unit, as `World.assign` makes it."""
    return hashlib.blake2b(unit.encode(), digest_size=16).digest()


def bucket(unit: str) -> int:
    """And its assignment hash."""
    return int.from_bytes(unit_hash(unit)[:8], "big")


def _request(world: World, chance: random.Random, place: int) -> None:
    stage, shares = STAGES[place]
    shares = {name: share for name, share in shares.items() if name in world.define.challengers}
    shard, other = (chance.randrange(97) % len(world.shards) for _ in "ab")
    unit = f"u{chance.randrange(60)}"
    slots = world.store.plan_slots(world.plan(**shares), "rank")
    numbers = (chance.random(),) if world.define.covariates else ()
    origin = chance.choice(("EWR", "JFK", "other"))
    drawn = world.assign(
        unit, owner(slots, bucket(unit)), pi=shares, shard=shard, stage=stage, origin=origin, covariates=numbers
    )
    if chance.random() < 0.95:
        world.clock.advance(0.001)
        error, first = chance.choice(("", "", "", "connect")), chance.choice((1000, 400_000))
        world.complete(drawn, error=error, first_byte_us=first, prediction=chance.random())
    for variant in world.define.challengers if world.define.paired else ():
        world.clock.advance(0.001)
        world.shadow(drawn, variant, chance.choice((None, chance.random())))
    for metric in world.define.metrics:
        if metric.source == "outcome" and metric.type != "ratio" and chance.random() < 0.7:
            world.clock.advance(0.001)
            world.outcome(drawn, chance.random(), metric=metric.name, shard=other, id=f"{chance.random()}")


def _outcome_by_unit(world: World, chance: random.Random) -> None:
    unit = f"u{chance.randrange(60)}"
    to = world.shards[0].outcomes
    metric = next(one.name for one in world.define.metrics if one.source == "outcome")
    world.clock.advance(0.001)
    to.append(UnitOutcome(f"{chance.random()}", to.now(), "rank", "exp", bucket(unit), unit_hash(unit), metric, 0.25))


def _step(world: World, then: Then) -> None:
    world.step()
    then()
