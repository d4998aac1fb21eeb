"""The store of many machines: one PostgreSQL database that they share."""

from __future__ import annotations

from gateway.clock import Clock, SystemClock
from gateway.store.folding import FoldTables
from gateway.store.postgres.facts import PostgresFacts
from gateway.store.postgres.keeping import PostgresKeeping
from gateway.store.postgres.nodes import PostgresNodes


class PostgresStore(PostgresNodes, PostgresFacts, FoldTables, PostgresKeeping):
    """Implements `store.cluster.SharedStore` and `store.keeping.Keeping`. Use from one thread at a time."""

    def __init__(self, url: str, *, read_only: bool = False, clock: Clock | None = None) -> None:
        """Connects when it is first used, or with `recover`. Raises StoreError for what is no URL of a database."""
        super().__init__(url, clock or SystemClock(), read_only=read_only)
