"""The engines under contract: SQLite in a file and in memory, PostgreSQL. Another engine joins by one more opener."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
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


class Nodes:
    """Stores of several nodes on one database, and a hand on its clock."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._stores: list[PostgresStore] = []

    def join(self, id: str, keys: str = "keys") -> PostgresStore:
        store = self.open()
        store.join(id, f"{id}:8081", keys)
        return store

    def open(self) -> PostgresStore:
        self._stores.append(PostgresStore(self.url))
        return self._stores[-1]

    def execute(self, sql: str) -> None:
        """As somebody else."""
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute(sql.encode())

    def close(self) -> None:
        for store in self._stores:
            store.close()


@pytest.fixture
def nodes(fresh_database: str) -> Iterator[Nodes]:
    opened = Nodes(fresh_database)
    yield opened
    opened.close()
