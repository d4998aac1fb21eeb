"""S11, K12: the wall clock jumps. What order there is comes from the streams, and nothing is lost or counted twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.clock import FakeClock
from tests.unit.evidence.world import World

HOUR, DAY = 3600.0, 86400.0
UNITS = 20


class Jumping(FakeClock):
    """A clock that somebody sets, while time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self._off = 0

    def wall_us(self) -> int:
        return super().wall_us() + self._off

    def jump(self, seconds: float) -> None:
        self._off += round(seconds * 1e6)


@pytest.fixture
def clock() -> Jumping:
    return Jumping()


@pytest.fixture
def world(tmp_path: Path, clock: Jumping) -> Iterator[World]:
    made = World(tmp_path, clock=clock)
    made.shard()
    made.shard()
    yield made
    made.close()


def _serve(world: World, first: int) -> None:
    """Units on two workers, each with its outcome, while time goes on and the control process looks."""
    for unit in range(first, first + UNITS):
        world.whole(unit, unit % 2 == 0, 0.25, shard=unit % 2)
        world.pass_time(0.2)
        world.engine.step()


def _stored(world: World) -> tuple[int, int, int]:
    """Assignments, completions and outcomes, all of which keys make unique."""
    tables = ("assignment", "completion", "outcome")
    requests, completions, outcomes = (world.store.row(f"SELECT count(*) FROM {table}")[0] for table in tables)
    return requests, completions, outcomes


@pytest.mark.parametrize("seconds", [-HOUR, DAY, -5 * DAY])
def test_s11_a_clock_that_jumps_loses_nothing_and_doubles_nothing(world: World, clock: Jumping, seconds: float) -> None:
    _serve(world, 0)
    clock.jump(seconds)
    _serve(world, UNITS)
    clock.jump(-seconds)
    _serve(world, 2 * UNITS)
    assert _stored(world) == (3 * UNITS, 3 * UNITS, 3 * UNITS)
    world.pass_time(abs(seconds) + HOUR)  # until nobody is ahead of the clock
    world.engine.step()
    assert world.engine.units("exp") == 3 * UNITS
    assert world.engine.folded("exp") == 3 * UNITS
    assert world.store.row("SELECT count(*) FROM late_fact")[0] == 0


@pytest.mark.parametrize("seconds", [-HOUR, DAY])
def test_s11_votes_keep_the_order_in_which_each_worker_drew_them(world: World, clock: Jumping, seconds: float) -> None:
    _serve(world, 0)
    clock.jump(seconds)
    _serve(world, UNITS)
    world.pass_time(HOUR + 60.0)
    world.engine.step()
    votes = world.store.rows("SELECT decision, at FROM vote ORDER BY ordinal")
    assert len(votes) == 2 * UNITS
    assert [at for _, at in votes] == sorted(at for _, at in votes)
    for spool in (1, 2):
        drawn = [decision for decision, _ in votes if decision >> 40 == spool]
        assert drawn == sorted(drawn)


def test_s11_until_an_hour_that_came_twice_has_passed_nothing_new_is_folded(world: World, clock: Jumping) -> None:
    """No order could be told in it; the kill rule needs none."""
    _serve(world, 0)
    world.pass_time(1.0)
    world.engine.step()
    clock.jump(-HOUR)
    _serve(world, UNITS)
    assert _stored(world)[0] == 2 * UNITS
    assert world.engine.units("exp") == UNITS
    world.pass_time(HOUR)
    world.engine.step()
    assert world.engine.units("exp") == 2 * UNITS


def test_s11_a_worker_whose_clock_is_a_day_ahead_holds_nobody_up(world: World) -> None:
    ahead = Jumping()
    ahead.jump(DAY)
    world.shard(clock=ahead)
    world.whole("from tomorrow", True, 0.25, shard=2)
    _serve(world, 0)
    world.pass_time(30.0)
    world.engine.step()
    assert world.engine.units("exp") == UNITS + 1
