"""The engines under contract: SQLite in a file and in memory, PostgreSQL. Another engine joins by one more opener."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.store.base import Store
from gateway.store.postgres.store import PostgresStore
from gateway.store.sqlite import SqliteStore
from tests.postgres import fresh_database, migrated, postgres

__all__ = ["fresh_database", "migrated", "postgres"]

Open = Callable[[], Store]


def opener(engine: str, request: pytest.FixtureRequest) -> Open:
    """Opens the same store at every call; but what is in memory ends with its store."""
    if engine == "postgres":
        url: str = request.getfixturevalue("fresh_database")
        return lambda: PostgresStore(url)
    folder: Path = request.getfixturevalue("tmp_path")
    return lambda: SqliteStore(":memory:" if engine == "memory" else folder / "gateway.db")


@pytest.fixture(params=["sqlite", "postgres"])
def reopen(request: pytest.FixtureRequest) -> Open:
    return opener(request.param, request)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    opened = opener(request.param, request)()
    yield opened
    opened.close()
