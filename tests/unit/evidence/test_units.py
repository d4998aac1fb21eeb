"""What is remembered of units: what the store says, asked once, within bounds, whatever happens to it meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from gateway.evidence.units import Units
from gateway.store.base import KnownUnit, UnitKey
from tests.unit.evidence.world import World


class Asked:
    """A table of units that tells what it was asked."""

    def __init__(self, *known: str) -> None:
        self.table = {key(name): KnownUnit(1, 2, f"1:{name}") for name in known}
        self.asked: list[str] = []

    def known_units(self, keys: Sequence[UnitKey]) -> list[KnownUnit | None]:
        self.asked += [key.unit.decode() for key in keys]
        return [self.table.get(key) for key in keys]


def key(name: str) -> UnitKey:
    return UnitKey("exp", len(name), name.encode())


def recalled(units: Units, store: Asked, *names: str) -> list[KnownUnit | None]:
    found = units.recall(store, [key(name) for name in names])  # type: ignore[arg-type]
    return [found[key(name)] for name in names]


def test_the_store_is_asked_once_for_those_it_knows_and_for_strangers() -> None:
    store, units = Asked("a"), Units()
    for _ in range(3):
        assert recalled(units, store, "a", "b", "a") == [KnownUnit(1, 2, "1:a"), None, KnownUnit(1, 2, "1:a")]
    assert store.asked == ["a", "b"]


def test_who_comes_again_stays_and_who_does_not_is_forgotten() -> None:
    store, units = Asked("often", "once"), Units(generation=2)
    for number in range(8):
        recalled(units, store, "often", f"other {number}" if number else "once")
    assert store.asked.count("often") == 1
    recalled(units, store, "once")
    assert store.asked.count("once") == 2


def test_memory_is_bounded_by_two_generations_and_what_one_step_brings() -> None:
    store, units = Asked(), Units(generation=10)
    for number in range(50):
        recalled(units, store, *(f"{number}/{n}" for n in range(7)))
        assert len(units._younger) + len(units._older) <= 2 * (10 + 7)


def test_a_change_outlives_the_turn_of_generations() -> None:
    store, units = Asked("a"), Units(generation=2)
    changed = KnownUnit(3, 4, "1:a|2:b")
    units.recall(store, [key("a")])[key("a")] = changed  # type: ignore[arg-type]
    recalled(units, store, "b")
    recalled(units, store, "c")
    assert recalled(units, store, "a") == [changed]


@pytest.mark.parametrize("generation", [1, 3])
def test_however_little_is_remembered_the_votes_are_the_same(worlds: Callable[..., World], generation: int) -> None:
    plenty, little = worlds(), worlds()
    little.engine._folder._admission.known = Units(generation)
    for world in (plenty, little):
        for number in range(60):
            world.assign(number * 7 % 13, number * 7 % 13 < 6, pi=0.5 if number < 30 else 0.75)
            if number % 4 == 3:
                world.step(0.5)
        world.settle()
    assert plenty.engine.units("exp") > 13  # some voted again
    assert little.votes == plenty.votes
    assert little.states == plenty.states
