"""Worlds in which something is forgotten, and what may be asked of them afterwards."""

from __future__ import annotations

from typing import Any

from gateway.forgetting import erasure
from gateway.forgetting.erasure import Asked, Erasures
from gateway.forgetting.retention import Retention
from gateway.store.base import Erasure
from gateway.store.facts import signed
from tests.unit.audit.story import bucket, unit_hash
from tests.unit.evidence.world import World

KEPT = 3600.0  # seconds that files of facts stay
TABLES = (
    "assignment",
    "completion",
    "shadow",
    "outcome",
    "unit",
    "vote",
    "settled",
    "revisit",
    "unit_outcome",
    "late_fact",
    "erasure",
    "erased",
    "expired",
    "settling",
    "evidence",
    "cursor",
)


def erasures(world: World, store: Any = None, keep_seconds: float = 604_800.0) -> Erasures:
    """As the control process has them, where requests are kept so long; it talks to another store if that is said."""
    return Erasures(store or world.store, world.clock, Retention(world.store, world.clock, keep_seconds).expired)


def ask(world: World, unit: str, endpoint: str = "") -> Asked:
    """As the admin port does it; without a pepper the hash of a unit is that of `World.assign`."""
    return erasure.ask(world.store, b"", unit.encode(), endpoint, "ada", "by mail", world.clock.wall_us(), KEPT)


def ask_knowing(world: World, unit: str) -> None:
    """The same where the assignment hash matters, which worlds make in their own way."""
    now = world.clock.wall_us()
    until = now + 86_400_000_000
    world.store.ask_erasure(Erasure(unit_hash(unit), "", now, 0, until, {"exp": signed(bucket(unit))}))


def erase(world: World, *units: str) -> None:
    """Ask, and let everything happen that follows."""
    for unit in units:
        ask(world, unit)
    settle(world, erasures(world))


def settle(world: World, some: Erasures) -> None:
    world.pass_time(0.5)
    for _ in range(200):
        world.step()
        some.tick(world.engine)
        if all(one.through for one in world.store.erasures()):
            return
        world.pass_time(0.5)
    raise AssertionError("nobody was erased")


def everything(world: World) -> dict[str, list[Any]]:
    """All rows that forgetting may touch."""
    return {table: sorted(world.store.rows(f"SELECT * FROM {table}"), key=repr) for table in TABLES}


def holders(world: World, unit: str) -> set[str]:
    """The tables in which something holds the hash of a unit, as bytes or in a text."""
    from base64 import b64encode

    digest = unit_hash(unit)
    texts = (digest.hex(), b64encode(digest).decode(), unit)
    tables = [name for (name,) in world.store.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        table
        for table in tables
        for row in world.store.rows(f"SELECT * FROM {table}")
        for cell in row
        if cell == digest or (isinstance(cell, str) and any(text in cell for text in texts))
    }
