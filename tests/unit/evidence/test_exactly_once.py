"""Kills, restarts, other step sizes and other shardings change neither votes nor evidence, not by one bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.unit.evidence.world import Killed, Mortal, World

Worlds = Callable[..., World]
UNITS = 60


def play(world: World, *, every: int, restarts: int = 0) -> World:
    """The same story whatever the sharding: units with outcomes, failures, returning and lost ones, late answers.

    Steps are taken after every so many events, the control process restarts after every so many steps.
    """
    chance = random.Random(7)
    shards = len(world.shards)
    due: list[tuple[float, Callable[[], None]]] = []
    steps = 0
    for number in range(UNITS):
        world.clock.advance(0.5)
        shard = chance.randrange(97) % shards
        unit = number if number % 11 else number - 3  # now and then a unit comes back
        challenger, origin = chance.random() < 0.4, chance.choice(("EWR", "JFK", "other"))
        decision = world.assign(unit, challenger, pi=0.4, shard=shard, origin=origin)
        answer, fate, value = chance.choice((0.1, 0.3, 4.0)), chance.random(), chance.random()
        error = "deadline" if chance.random() < 0.1 else ""
        due.append((number + answer, partial(world.complete, decision, error=error)))
        if fate < 0.9:
            delay, other = chance.choice((0.6, 20, 70, 140)), chance.randrange(97) % shards
            due.append((number + delay, partial(world.outcome, decision, value, shard=other)))
            if fate < 0.2:
                due.append((number + delay + 3, partial(world.outcome, decision, 0.5, shard=shard)))
        for entry in sorted((e for e in due if e[0] <= number), key=lambda e: e[0]):
            world.clock.advance(0.000_01)  # no two facts have one time, so every sharding has one order
            entry[1]()
            due.remove(entry)
        world.pass_time(0.001)
        if number % every == every - 1:
            steps += 1
            world.step()
            if restarts and steps % restarts == 0:
                world.restart()
    for _, fact in sorted(due, key=lambda e: e[0]):
        world.pass_time(1.7)
        fact()
        if every < 5:
            world.step()
    world.settle()
    return world


def seen(world: World) -> tuple[Any, ...]:
    return world.votes, world.states, world.counters, world.engine.units("exp"), world.engine.folded("exp")


@pytest.fixture
def undisturbed(worlds: Worlds) -> World:
    world = play(worlds(), every=7)
    assert 50 <= world.engine.units("exp") < UNITS
    assert world.engine.folded("exp") == world.engine.units("exp")
    assert world.counters[("b", "late")] > 0
    assert sum(n for (_, name), n in world.counters.items() if name == "conflict") > 0
    return world


@pytest.mark.parametrize(("every", "restarts"), [(1, 0), (3, 1), (7, 2), (UNITS, 0), (10 * UNITS, 0)])
def test_step_sizes_and_restarts_change_nothing(worlds: Worlds, undisturbed: World, every: int, restarts: int) -> None:
    assert seen(play(worlds(), every=every, restarts=restarts)) == seen(undisturbed)


@pytest.mark.parametrize("shards", [2, 3, 4])
def test_the_sharding_changes_nothing(worlds: Worlds, undisturbed: World, shards: int) -> None:
    assert seen(play(worlds(shards=shards), every=5, restarts=3)) == seen(undisturbed)


def short_story(world: World, survive: Callable[[Callable[[], int]], object]) -> None:
    for block in range(3):
        decisions = [world.assign(f"{block}-{unit % 4}", unit % 2 == 0) for unit in range(5)]
        for number, decision in enumerate(decisions):
            world.complete(decision, error="connect" if number == 1 else "")
            world.outcome(decision, number / 5)
            world.outcome(decision, number / 4)
        world.reject(decisions[0])
        world.pass_time(30.0)
        survive(world.engine.step)
    world.pass_time(100.0)
    survive(world.engine.step)


def test_a_kill_at_any_call_of_the_store_loses_and_doubles_nothing(worlds: Worlds) -> None:
    calm = worlds()
    short_story(calm, lambda step: step())
    assert calm.engine.folded("exp") == 12
    deaths = 0
    for moment in range(1, 1000):
        world = worlds()
        mortal = Mortal(world.store, moment)
        world.make_mortal(mortal)

        def survive(step: Callable[[], int], world: World = world) -> None:
            nonlocal deaths
            try:
                step()
            except Killed:
                deaths += 1
                world.restart()
                world.engine.step()

        short_story(world, survive)
        assert seen(world) == seen(calm), f"killed at call {moment}"
        assert facts(world) == facts(calm)
        if mortal.left > 0:
            break
    assert deaths == moment - 1 > 50


def facts(world: World) -> list[Any]:
    """What was shipped, without the steps, which a kill may cut otherwise."""
    return [
        world.store.rows("SELECT decision, at, variant FROM request ORDER BY decision"),
        world.store.rows("SELECT decision, at, error FROM completion ORDER BY decision"),
        world.store.rows("SELECT decision, metric, id, at, value FROM outcome ORDER BY decision"),
    ]


def test_a_kill_between_two_steps_keeps_assignments_that_wait(world: World) -> None:
    world.assign("early", True)
    world.step(0.0)  # shipped, but nothing says yet that nothing older comes
    assert world.engine.units("exp") == 0
    world.restart()
    world.step(1.0)
    assert world.engine.units("exp") == 1
