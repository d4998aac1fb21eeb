"""Who votes: first exposures for which a coin was thrown, in the order of the coins."""

from __future__ import annotations

import json
from collections.abc import Callable

from gateway.events import FORCED
from gateway.stats import SampleRatio
from tests.unit.evidence.world import World


def test_a_unit_votes_once_under_one_split_whatever_it_does_later(world: World) -> None:
    for stage, challenger in (("s1", True), ("s1", True), ("s2", True)):
        world.assign("user", challenger, stage=stage)
        world.step(1.0)
    assert [(row[2], row[3]) for row in world.votes] == [("s1", "b")]
    world.restart()
    world.assign("user", True)
    world.assign("other", True)
    world.assign("other", True)
    world.step(1.0)
    assert world.engine.units("exp") == 2
    assert world.counters == {}


def test_without_a_coin_there_is_no_vote(world: World) -> None:
    world.assign("forced", True, flags=FORCED)
    world.assign("all", True, pi=1.0)
    world.assign("none", False, pi=0.0)
    world.assign("past", True, experiment="an older one")
    world.assign("fixed", True, experiment="")
    world.step(1.0)
    assert world.votes == []
    assert world.counters == {}
    assert "exp" not in world.states


def test_the_odds_are_the_same_numbers_whichever_side_the_coin_fell_on(world: World) -> None:
    shares = (0.01, 0.1, 0.3, 0.123456789012)
    for pi in shares:
        world.assign(("b", pi), True, pi=pi)
        world.assign(("a", pi), False, pi=pi)
    world.step(1.0)
    assert [json.loads(row[5]) for row in world.votes] == [[1.0 - pi, pi] for pi in shares for _ in "ba"]
    expected = SampleRatio()
    for pi in shares:
        expected.add_counts(pi, 2, 1)
    assert world.engine.evidence["exp"].find("coins", "1") == expected


def test_votes_stand_in_the_order_of_time_over_all_workers(worlds: Callable[..., World]) -> None:
    world = worlds(shards=3)
    for number in range(12):
        world.clock.advance(0.01)
        world.assign(number, number % 2 == 0, shard=(number * 7) % 3, origin=str(number))
    world.step(1.0)
    assert [row[6] for row in world.votes] == [f'["{number}"]' for number in range(12)]
    assert [row[0] for row in world.votes] == list(range(1, 13))


def test_both_variants_are_counted_at_the_coin(world: World) -> None:
    for number in range(10):
        world.assign(number, number < 3)
    world.step(1.0)
    assert world.report.assigned == (7, 3)
    assert world.report.units == 10
    assert world.report.folded == 0
