"""T9 repeated outcomes, T10 contradictory ones, T24 clocks that are wrong, restarts and a second reading of the log."""

from __future__ import annotations

import shutil
from typing import Any, NamedTuple

import numpy as np

from benchmarks.stats_common import Measured
from gateway.clock import FakeClock
from gateway.evidence.definition import MetricDefinition
from tests.statistical.rig import (
    SECOND,
    Rng,
    Trapped,
    a_world,
    binary,
    experiment,
    happens,
    naive,
    z_path,
)
from tests.unit.evidence.world import World

SCORE = MetricDefinition(
    name="score", type="bounded", source="outcome", increase=True, window_us=600 * SECOND, missing="exclude"
)
ERRORS = MetricDefinition(name="errors", type="binary", source="gateway", increase=False, margin=0.01)
DEFINITION = experiment(SCORE, ERRORS, expected=0.1, least=0.05)


class Post(NamedTuple):
    """An outcome, so many seconds after its exposure."""

    delay: float
    value: float


def posts_of(rng: Rng, contradictory: bool) -> tuple[Post, list[Post]]:
    """The first post of a unit, and with one chance in five its repetitions, some of them after the window."""
    first = Post(float(rng.uniform(1.0, 300.0)), float(rng.random()))
    if rng.random() >= 0.2:
        return first, []
    delays = [first.delay + float(rng.exponential(250.0)) for _ in range(rng.integers(1, 5))]
    return first, [Post(delay, float(rng.random()) if contradictory else first.value) for delay in delays]


def told(world: World, seed: int, *, repeat: bool, contradictory: bool = False, n: int = 1500) -> int:
    """A unit every second, posts in the order of their times, a look every minute. Returns how many repetitions."""
    rng = np.random.default_rng(seed)
    events: list[tuple[float, int, int, float]] = []
    again = 0
    for unit in range(n):
        first, repetitions = posts_of(rng, contradictory)
        events += [(float(unit), 0, unit, float(rng.random() < 0.5)), (unit + first.delay, 1, unit, first.value)]
        if repeat:
            events += [(unit + post.delay, 1, unit, post.value) for post in repetitions]
            again += len(repetitions)
    decisions: dict[int, int] = {}
    clock = 0.0
    for number, (at, kind, unit, value) in enumerate(sorted(events)):
        if int(at // 60) > int(clock // 60):
            world.step(0.001)
        world.clock.advance(max(0.0, at - clock))
        clock = max(at, clock)
        if kind == 0:
            decisions[unit] = world.assign(unit, bool(value), shard=unit % 2)
            world.complete(decisions[unit])
        else:
            world.outcome(decisions[unit], value, metric="score", shard=number % 2)
    world.settle()
    return again


def counted(world: World, name: str) -> int:
    return sum(n for (_, what), n in world.counters.items() if what == name)


def t9(runs: int, seed: int) -> Trapped:
    """A fifth of the posts come two to five times, out of order, some after the window: nothing changes."""
    other = uncounted = 0
    for run in range(runs):
        with a_world(DEFINITION, shards=2) as plain, a_world(DEFINITION, shards=2) as noisy:
            told(plain, seed + run, repeat=False)
            again = told(noisy, seed + run, repeat=True)
            other += plain.states != noisy.states
            uncounted += abs(counted(noisy, "duplicate") - again)
            arms = {arm for arm, name in noisy.counters if name == "duplicate"}
            other += arms != {"a", "b"}
    return [
        Measured("T9", "runs with other evidence than without repetitions", float(other), 0.0, runs),
        Measured("T9", "repetitions that are not counted under their variant", float(uncounted), 0.0, runs),
        naive("T9", "z-test on records, once, at the end", _on_records(seed)),
    ]


def _on_records(seed: int, runs: int = 400, n: int = 2000) -> list[bool]:
    """Every delivery taken for a result of its own; 20 % of the units are delivered two to five times."""
    rng = np.random.default_rng(seed)
    fooled = []
    for _ in range(runs):
        times = np.where(rng.random(n) < 0.2, rng.integers(2, 6, n), 1)
        z, y = np.repeat(rng.random(n) < 0.5, times), np.repeat(happens(rng, 0.1, n), times)
        fooled.append(bool(abs(z_path(z, y)[-1]) > 1.96))
    return fooled


def t10(runs: int, seed: int) -> Trapped:
    """Repetitions that say something else: the first accepted value stays."""
    other = uncounted = 0
    for run in range(runs):
        with a_world(DEFINITION, shards=2) as plain, a_world(DEFINITION, shards=2) as noisy:
            told(plain, seed + run, repeat=False, contradictory=True)
            again = told(noisy, seed + run, repeat=True, contradictory=True)
            other += plain.states != noisy.states
            uncounted += abs(counted(noisy, "conflict") - again)
    return [
        Measured("T10", "runs with other evidence than without contradictions", float(other), 0.0, runs),
        Measured("T10", "contradictions that are not counted under their variant", float(uncounted), 0.0, runs),
    ]


class Ahead:
    """A clock that is ten minutes fast."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def wall_us(self) -> int:
        return self._clock.wall_us() + 600 * SECOND

    def monotonic(self) -> float:
        return self._clock.monotonic()


SOLD = binary("sold", window_us=600 * SECOND)


def lived(world: World, seed: int, restart_every: int) -> Any:
    """A worker with a fast clock takes half of everything; the control process is restarted in mid-epoch."""
    rng = np.random.default_rng(seed)
    world.shard(Ahead(world.clock))
    for unit in range(600):
        decision = world.assign(unit, bool(rng.random() < 0.5), shard=int(rng.integers(0, 2)))
        world.complete(decision)
        if rng.random() < 0.5:
            world.outcome(decision, 1.0, metric="sold", shard=int(rng.integers(0, 2)))
        world.pass_time(1.0)
        if unit % 7 == 0:
            world.step()
            if restart_every and (unit // 7) % restart_every == 0:
                world.restart()
    world.step()
    world.settle()
    return world.states, world.report, world.votes


def t24(runs: int, seed: int) -> Trapped:
    """Facts ten minutes from the future, restarts, and a second reading of the log.

    The second reading is of sound clocks: a time is capped by the clock of whoever reads it first, so spools of a fast
    clock give the same bits only if their steps are repeated at their times (`fold_step`).
    """
    define = experiment(SOLD, ERRORS, expected=0.1)
    differ = lost = reread = 0
    for run in range(runs):
        found = []
        for restart_every in (0, 1, 5):
            with a_world(define) as world:
                found.append(lived(world, seed + run, restart_every))
                lost += counted(world, "late") + 600 - world.report.folded
        differ += found[0] != found[1] or found[0] != found[2]
        reread += _twice(seed + run)
    return [
        Measured("T24", "runs that restarts changed by a bit", float(differ), 0.0, runs),
        Measured("T24", "outcomes late, or units not folded, by a clock that is fast", float(lost), 0.0, runs),
        Measured("T24", "runs in which a second reading of the spools gave other bits", float(reread), 0.0, runs),
    ]


def _twice(seed: int) -> int:
    """The same spools, read as they grow, and by a new store afterwards, in one go."""
    with a_world(DEFINITION, shards=2) as first, a_world(DEFINITION, shards=0) as second:
        told(first, seed, repeat=True, contradictory=True, n=600)
        while first.shards:
            first.shards.pop().die()
        shutil.copytree(first.folder / "spool", second.folder / "spool", dirs_exist_ok=True)
        second.clock.advance(7200.0)
        second.plan(b=0.5)
        second.restart()
        while second.engine.step():
            pass
        return int(first.states != second.states)
