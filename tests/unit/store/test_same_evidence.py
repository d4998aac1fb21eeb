"""The same spools give the same votes, evidence and counts in every engine, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.store.postgres.store import PostgresStore
from tests.unit.evidence.test_whole_story import DEFINE, play, seen
from tests.unit.evidence.world import World


@pytest.fixture
def worlds(tmp_path: Path, fresh_database: str) -> Iterator[dict[str, World]]:
    made = {
        "sqlite": World(tmp_path / "sqlite", define=DEFINE),
        "postgres": World(tmp_path / "postgres", define=DEFINE, store=PostgresStore(fresh_database)),
    }
    for world in made.values():
        for _ in range(2):
            world.shard()
    yield made
    for world in made.values():
        world.close()


@pytest.mark.parametrize("restarts", [0, 4])
def test_every_engine_folds_the_same(worlds: dict[str, World], restarts: int) -> None:
    told: list[Any] = [seen(play(world, restarts=restarts)) for world in worlds.values()]
    assert told[0] == told[1]
    sqlite, postgres = worlds.values()
    assert sqlite.report == postgres.report
    tables = ("fold_step", "cursor", "vote", "revisit", "unit", "admission", "counter", "lag", "outcome", "settled")
    for table in tables:
        columns = [name for (name,) in sqlite.store.rows("SELECT name FROM pragma_table_info(?)", (table,))]
        query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {', '.join(columns)}"
        assert sqlite.store.rows(query) == postgres.store.rows(query), table
    assert len(sqlite.votes) > 30
