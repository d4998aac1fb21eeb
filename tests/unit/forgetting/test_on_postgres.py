"""The same on PostgreSQL: what is forgotten there is forgotten as whole, and everything can be made again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.forgetting.retention import Retention
from gateway.store.postgres.store import PostgresStore
from tests.postgres import fresh_database, migrated, postgres
from tests.unit.audit.story import DAY, PLAIN, RICH, again, live, said, unit_hash
from tests.unit.evidence.world import World
from tests.unit.forgetting.forgetful import ask_knowing, erasures, settle

__all__ = ["fresh_database", "migrated", "postgres"]


@pytest.fixture(params=[PLAIN, RICH], ids=["plain", "rich"])
def shared(request: pytest.FixtureRequest, fresh_database: str, tmp_path: Path) -> Iterator[World]:
    store = PostgresStore(fresh_database)
    store.join("node", "here", "keys")
    store.lead(3600.0)
    made = World(tmp_path, define=request.param, store=store)
    for _ in range(2):
        made.shard()
    yield made
    made.close()


def test_everything_can_be_made_again(shared: World) -> None:
    live(shared, 1, days=2)
    replayed = again(shared)
    assert replayed.findings == ()
    assert replayed.readmitted == replayed.votes > 50
    assert said(shared) == []


def test_and_still_when_units_and_days_are_gone(shared: World) -> None:
    some, days, turn = erasures(shared), Retention(shared.store, shared.clock, 2.2 * DAY), 0

    def forget() -> None:
        nonlocal turn
        turn += 1
        if turn % 6 == 1:
            ask_knowing(shared, f"u{7 * turn % 60}")
        for _ in range(3):
            some.tick(shared.engine)
        days.tick(shared.engine.seen_through)

    live(shared, 2, days=4, requests=25, then=forget)
    settle(shared, some)
    assert days.dropped == 2
    assert shared.store.row("SELECT count(*) FROM vote WHERE decision = 0")[0] > 0
    replayed = again(shared)
    assert replayed.findings == ()
    assert 0 < replayed.readmitted < replayed.votes
    assert said(shared) == []


def test_nothing_holds_a_unit_that_is_erased(shared: World) -> None:
    for number in range(6):
        shared.whole(f"u{number}", number % 2 == 0, None, covariates=(0.5,) * shared.define.covariates)
    shared.step(1.0)
    ask_knowing(shared, "u3")
    settle(shared, erasures(shared))
    assert holding(shared, "u3") == {"erasure"}
    assert again(shared).findings == ()
    assert said(shared) == []


def holding(world: World, unit: str) -> set[Any]:
    """The tables in which a unit's hash is."""
    tables = ("assignment", "unit", "unit_outcome", "erasure")
    counted = {
        name: world.store.row(f"SELECT count(*) FROM {name} WHERE unit = ?", (unit_hash(unit),)) for name in tables
    }
    return {name for name, (number,) in counted.items() if number}
