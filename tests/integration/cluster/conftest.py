"""Nodes on one real PostgreSQL, each with data directory, spools, status page and controller of its own.

Clocks are told, but for the lease's, which is the database's: a test ends a lease by saying so there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import FakeClock
from tests.postgres import PostgresServer, fresh_database, migrated, postgres
from tests.unit.release.rig import Rig

__all__ = ["fresh_database", "migrated", "postgres"]


class Cluster:
    """Nodes that share a clock and a database."""

    def __init__(self, folder: Path, server: PostgresServer, url: str) -> None:
        self._folder = folder
        self._server = server
        self.url = url
        self.clock = FakeClock()
        self.nodes: list[Rig] = []

    def node(self, **named: Any) -> Rig:
        """Another node joins."""
        folder = self._folder / f"node-{len(self.nodes) + 1}"
        folder.mkdir()
        self.nodes.append(Rig(folder, url=self.url, clock=self.clock, **named))
        return self.nodes[-1]

    def tick(self, *nodes: Rig, seconds: float = 1.1) -> None:
        """One round of these nodes, or of all, in their order."""
        self.clock.advance(seconds)
        for rig in nodes or self.nodes:
            rig.requests.heartbeat()
            rig.outcomes.heartbeat()
            rig.control.tick()

    def settle(self, rounds: int = 3) -> None:
        for _ in range(rounds):
            self.tick()

    def end_lease(self) -> None:
        """As if the holder had said nothing for long enough."""
        self._server.execute("UPDATE lease SET until = clock_timestamp() - interval '1 second'", self._database)

    def query(self, sql: str) -> list[Any]:
        return self.nodes[0].sqlite.rows(sql)

    @property
    def _database(self) -> str:
        return self.url.partition("?")[0].rpartition("/")[2]

    def close(self) -> None:
        for rig in self.nodes:
            rig.close()


@pytest.fixture
def cluster(tmp_path: Path, postgres: PostgresServer, fresh_database: str) -> Iterator[Cluster]:
    made = Cluster(tmp_path, postgres, fresh_database)
    yield made
    made.close()
