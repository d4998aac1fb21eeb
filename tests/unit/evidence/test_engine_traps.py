"""The traps of naive A/B testing, driven through spools, store and fold; small sizes, fixed seeds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from tests.unit.evidence.world import BRIER, ERRORS, SECOND, World, definition

Worlds = Callable[..., World]


def test_peeking_at_every_step_promotes_and_rolls_back_nobody(worlds: Worlds) -> None:
    """T1: both variants alike, the verdict asked for after every few units."""
    seen: list[str] = []
    for seed in range(12):
        world, chance = worlds(), random.Random(seed)
        verdicts = set()
        for block in range(30):
            for number in range(20):
                world.whole((block, number), chance.random() < 0.5, float(chance.random() < 0.1))
            world.step(61.0)
            verdicts.add(world.report.verdict)
        seen += sorted(verdicts)
    assert seen == ["undecided"] * 12


def test_a_ramp_over_a_rising_base_rate_is_no_improvement(worlds: Worlds) -> None:
    """T3, Simpson: the challenger is worse at every moment, yet its pooled mean is higher."""
    rising = replace(BRIER, increase=True)
    world, chance = worlds(define=definition(rising, ERRORS)), random.Random(1)
    for quarter, split in enumerate((0.01, 0.05, 0.2, 0.5)):
        for number in range(1000):
            challenger = chance.random() < split
            rate = 0.1 + 0.2 * quarter - 0.06 * challenger
            world.whole((quarter, number), challenger, float(chance.random() < rate), pi=split, stage=f"q{quarter}")
        world.step(61.0)
        assert world.report.verdict != "better"
    pooled = world.engine.evidence["exp"].find("cell", "1", "brier", "").means
    assert pooled[1] - pooled[0] > 0.1, "the naive difference is for the challenger"
    estimate = world.report.estimate("brier")
    assert estimate is not None
    assert estimate.estimate < 0


def test_converting_faster_is_not_converting_more(worlds: Worlds) -> None:
    """T5: equal rates in the end; only the challenger's buyers buy sooner."""
    hour = 3600.0
    bought = replace(
        BRIER, name="bought", type="binary", increase=True, missing="zero", window_us=round(24 * hour * SECOND)
    )
    world, chance = worlds(define=definition(bought, ERRORS, objective="bought")), random.Random(3)
    due: list[tuple[float, int]] = []
    for now in range(30):
        for number in range(50 if now < 12 else 0):
            challenger = chance.random() < 0.5
            decision = world.assign((now, number), challenger)
            world.complete(decision)
            if chance.random() < 0.3:
                due.append((now + chance.expovariate(1.0 if challenger else 1 / 6), decision))
        for entry in [entry for entry in due if entry[0] <= now]:
            due.remove(entry)
            world.outcome(entry[1], 1.0, metric="bought")
        world.step(hour)
        assert world.report.verdict == "undecided"
        if now == 12:
            assert world.report.units == 600
            assert world.report.folded == 0, "open units are reported, not guessed"
    world.settle()
    assert world.report.verdict == "undecided"


def posts(world: World, *, repeat: bool) -> None:
    """T9: the same outcomes, in one run some of them again and again, also after the window."""
    chance = random.Random(5)
    again: list[tuple[int, float]] = []
    for number in range(120):
        decision = world.assign(number, number % 2 == 0)
        world.complete(decision)
        world.clock.advance(0.01)
        value = chance.random()
        world.outcome(decision, value)
        if repeat and number % 5 == 0:
            again += [(decision, value)] * 2
            world.outcome(decision, value)
        world.clock.advance(0.01)
    world.step(30.0)
    chance.shuffle(again)
    for decision, value in again[::2]:
        world.outcome(decision, value)
    world.step(60.0)
    for decision, value in again[1::2]:
        world.outcome(decision, value)
    world.settle()


def test_duplicates_change_no_number(worlds: Worlds) -> None:
    plain, noisy = worlds(), worlds()
    posts(plain, repeat=False)
    posts(noisy, repeat=True)
    assert noisy.states == plain.states
    assert plain.counters == {}
    assert sum(n for (_, name), n in noisy.counters.items() if name == "duplicate") == 72


def test_a_conflicting_duplicate_never_wins(worlds: Worlds) -> None:
    """T10: the first accepted value stays, whichever worker took the second."""
    plain, noisy = worlds(shards=2), worlds(shards=2)
    for world in (plain, noisy):
        for number in range(50):
            decision = world.assign(number, number % 2 == 0, shard=number % 2)
            world.complete(decision)
            world.outcome(decision, 0.3, shard=1)
            world.clock.advance(0.001)
            if world is noisy:
                world.outcome(decision, 0.9, shard=0)
        world.settle()
    assert noisy.states == plain.states
    assert noisy.counters == {("a", "conflict"): 25, ("b", "conflict"): 25}


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("arms", ["both", "champion only", "challenger only", "one unit"])
def test_tiny_counts_are_undecided(world: World, value: float, arms: str) -> None:
    """T12: all zero, all one, an empty arm, a single unit."""
    for number in range(1 if arms == "one unit" else 29):
        challenger = {"champion only": False, "challenger only": True}.get(arms, number % 2 == 0)
        world.whole(number, challenger, value, pi=0.3)
    world.settle()
    report = world.report
    assert report.verdict in ("undecided", "invalid")
    assert report.verdict == "undecided" or arms == "challenger only"
    for estimate in report.estimates:
        assert -1 <= estimate.lower <= estimate.estimate <= estimate.upper <= 1
        assert not estimate.better
    assert all(math.isfinite(test.log_e) for test in report.tests)


def test_values_out_of_bounds_from_a_retired_experiment_move_nothing(worlds: Worlds) -> None:
    """T13: a worker without the metric cannot check bounds; what it let through is missing, on both sides."""
    with_bad, without = worlds(), worlds()
    for world in (with_bad, without):
        chance = random.Random(9)
        for number in range(100):
            bad = number % 10 == 3
            value = chance.random()
            world.whole(number, number % 2 == 0, (1e9 if world is with_bad else None) if bad else value)
        world.settle()
    assert with_bad.states == without.states
    assert with_bad.report.missing == (0.2, 0.0)


def test_a_restart_in_the_middle_of_everything_gives_the_same_bits(worlds: Worlds) -> None:
    """T24: restarts within bet epochs, and a second reading of the whole log."""
    results: list[Any] = []
    for restart_every in (0, 1, 4):
        world, chance = worlds(), random.Random(11)
        for number in range(300):
            world.whole(number, chance.random() < 0.5, chance.random())
            world.clock.advance(0.1)
            if number % 10 == 0:
                world.step(0.01)
                if restart_every and (number // 10) % restart_every == 0:
                    world.restart()
            else:
                world.pass_time(0.01)
        world.settle()
        results.append((world.states, world.report))
    assert results[0] == results[1] == results[2]
