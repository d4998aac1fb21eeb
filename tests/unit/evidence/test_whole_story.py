"""Several challengers, moving shares, returning units, every type of metric: steps, shards and kills change nothing."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.assignment.ranges import owner
from gateway.evidence.report import WATCH
from tests.unit.evidence.test_batches import CLICKS, RATIO, SCORE, SLOWER, VIEWS
from tests.unit.evidence.world import BRIER, ERRORS, SECOND, Killed, Mortal, World, definition

Worlds = Callable[..., World]
REVENUE = replace(BRIER, name="revenue", type="unbounded", aggregate="max", missing="zero")
DEFINE = replace(
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


def play(
    world: World, *, units: int = 80, every: int = 5, restarts: int = 0, step: Callable[[], Any] | None = None
) -> World:
    chance, steps = random.Random(3), 0
    take = step or world.step
    for number in range(units):
        world.clock.advance(2.0)
        stage, shares = STAGES[number * len(STAGES) // units]
        shard, other = (chance.randrange(97) % len(world.shards) for _ in "ab")
        unit = f"u{chance.randrange(30)}"
        slots = world.store.plan_slots(world.plan(**shares), "rank")
        drawn = world.assign(unit, owner(slots, bucket(unit)), pi=shares, shard=shard, stage=stage)
        world.clock.advance(0.001)
        world.complete(drawn, error=chance.choice(("", "", "", "connect")), prediction=chance.random())
        for variant in ("b", "c"):
            world.clock.advance(0.001)
            world.shadow(drawn, variant, chance.choice((None, chance.random())))
        for metric, value in (
            ("score", chance.random()),
            ("revenue", 9 * chance.random()),
            ("clicks", 2.0),
            ("views", 5.0),
        ):
            world.clock.advance(0.001)
            if chance.random() < 0.8:
                world.outcome(drawn, value, metric=metric, shard=other)
        world.pass_time(0.001)
        if number % every == every - 1:
            steps += 1
            take()
            if restarts and steps % restarts == 0:
                world.restart()
    world.pass_time(3600.0)
    while take():
        pass
    return world


def bucket(unit: str) -> int:
    """As `World.assign` has it."""
    return int.from_bytes(hashlib.blake2b(unit.encode(), digest_size=16).digest()[:8], "big")


def seen(world: World) -> tuple[Any, ...]:
    revisits = world.store.rows("SELECT count(*) FROM revisit")
    return world.votes, world.states, world.counters, revisits, world.engine.folded("exp")


@pytest.fixture
def undisturbed(worlds: Worlds) -> World:
    world = play(worlds(define=DEFINE))
    rows = world.votes
    assert {row[3] for row in rows} == {"a", "b", "c"}
    assert {row[7] for row in rows} == {0, 1}
    assert len(rows) > 40
    assert world.counters == {}
    assert any(text.startswith("watch/") for text in world.states)
    assert seen(world)[3][0][0] > 10
    return world


@pytest.mark.parametrize(("every", "restarts", "shards"), [(1, 0, 1), (1, 1, 1), (7, 2, 2), (1000, 0, 3)])
def test_steps_restarts_and_shards_change_nothing(
    worlds: Worlds, undisturbed: World, every: int, restarts: int, shards: int
) -> None:
    other = play(worlds(define=DEFINE, shards=shards), every=every, restarts=restarts)
    assert seen(other) == seen(undisturbed)


def test_a_kill_at_any_call_of_the_store_changes_nothing(worlds: Worlds) -> None:
    calm = seen(play(worlds(define=DEFINE), units=24, every=8))
    for moment in range(1, 1000, 3):
        world = worlds(define=DEFINE)
        mortal = Mortal(world.store, moment)
        world.make_mortal(mortal)

        def survive(world: World = world) -> int:
            try:
                return world.engine.step()
            except Killed:
                world.restart()
                return world.engine.step()

        assert seen(play(world, units=24, every=8, step=survive)) == calm, f"killed at call {moment}"
        if mortal.left > 0:
            break
    assert moment > 50
