"""Stores with a log: what `gateway simulate --from-log` reads."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.unit.evidence.world import World


def logged(folder: Path, units: int, *, challenger: float = 0.0, store: Any = None) -> Path:
    """A store with that many units of experiment `exp`, half of them answered by the champion; by default in the
    SQLite file that is returned."""
    world = World(folder, store=store)
    world.shard()
    chance = random.Random(5)
    for unit in range(units):
        world.clock.advance(0.5)
        treated = unit % 2 == 1
        value = None if unit % 50 == 0 else challenger if treated else chance.random()
        decision = world.whole(unit, treated, value, origin=chance.choice(["EWR", "LGA"]))
        assert decision
        if unit % 200 == 199:
            world.step()
    world.settle()
    world.close()
    return folder / "gateway.db"
