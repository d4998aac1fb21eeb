"""A log with everything in it: two days, two workers, outcomes, shadows, decisions, requests that nobody completed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway.clock import FakeClock
from gateway.events import FORCED, Assignment, Completion, decision_id
from gateway.evidence.report import Report
from gateway.export.source import OpenStore, open_readable
from gateway.store.open import open_store
from tests.unit.evidence.world import THRESHOLDS, World

HOUR = 3600.0
BEGAN = 1_699_999_200_000_000 - 8 * 3_600_000_000  # 2023-11-14T14:00Z: ten hours to midnight


@dataclass(slots=True)
class Logged:
    """A world, and how to look at its store."""

    world: World
    url: str

    def look(self) -> OpenStore:
        """A connection that only looks; whoever asks closes it."""
        return open_readable(self.url)

    def rows(self, sql: str, *parameters: Any) -> list[Any]:
        found: list[Any] = self.world.store.rows(sql, parameters)
        return found

    def decide(self, kind: str, report: Report | None = None) -> None:
        body = {
            "actor": "gateway",
            "reason": "evidence",
            "text": f"it is time to {kind}",
            "variant": "b",
            "config_digest": "c" * 64,
            "evidence": msgspec.to_builtins(report) if report else None,
        }
        world = self.world
        with world.store.transaction():
            world.store.append_ledger(world.clock.wall_us(), world.engine.step_number, "rank", "exp", kind, body)


def make_log(folder: Path, url: str = "", units: int = 120) -> Logged:
    """`units` over twenty hours, of which the last third lies behind midnight; by default in a SQLite file."""
    folder.mkdir(parents=True, exist_ok=True)
    url = url or f"sqlite:///{folder / 'gateway.db'}"
    world = World(folder, clock=FakeClock(BEGAN), store=open_store(url))
    world.shard()
    world.shard()
    made, dice = Logged(world, url), random.Random(7)
    made.decide("start")
    for unit in range(units):
        live_one_unit(world, unit, dice)
        world.pass_time(20 * HOUR / units)
        if unit % 4 == 3:
            world.step()
        if unit == units // 2:
            made.decide("advance", world.report)
    other_facts(world)
    world.settle()
    made.decide("promote", world.report)
    return made


def live_one_unit(world: World, unit: int, dice: random.Random) -> None:
    shard, origin = unit % 2, dice.choice(["EWR", "JFK"])
    to = dice.random() < 0.5
    decision = world.assign(f"user-{unit}", to, shard=shard, origin=origin, flags=FORCED if unit % 17 == 3 else 0)
    if unit % 13 != 5:  # whose worker forgot it
        world.complete(decision, error="deadline" if unit % 11 == 4 else "", served="ab"[to], prediction=dice.random())
    if unit % 3 == 0:
        world.shadow(decision, "ba"[to], dice.random() if unit % 6 else None)
    for number in range(unit % 3):
        world.outcome(decision, dice.random(), id=f"order {number}, “{unit}”\n", shard=1 - shard)


def other_facts(world: World) -> None:
    """A request of a fixed split, with no experiment; outcomes of an exposure that nobody knows."""
    to = world.shards[0]
    to.sequence += 1
    fixed = decision_id(1, to.sequence)
    at = to.requests.now()
    to.requests.append(
        Assignment(fixed, at, "search", "", "", "x", 0.25, 1 << 63, b"u" * 16, ("de", "mobile"), world.plan(), 0)
    )
    to.requests.append(Completion(fixed, at + 10, "x", "answered", 404, 300, 400, "", None, 2, at))
    world.outcome(decision_id(1, to.sequence + 1_000), 0.5, id="orphan")


__all__ = ["THRESHOLDS", "Logged", "make_log"]
