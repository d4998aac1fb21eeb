"""A store by its URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from gateway.store.postgres.store import PostgresStore

    AnyStore: TypeAlias = SqliteStore | PostgresStore

SQLITE: Final = "sqlite:///"
POSTGRES: Final = ("postgresql://", "postgres://")


def open_store(url: str, *, read_only: bool = False, clock: Clock | None = None) -> AnyStore:
    """`sqlite:///path` or `postgresql://user@host/database`.

    Raises StoreError if there is no such store and it cannot be made, or if its schema is another. A PostgreSQL server
    that cannot be reached now raises StoreUnavailable when the store is first used, and is tried again later.
    """
    if url.startswith(SQLITE):
        return SqliteStore(Path(url.removeprefix(SQLITE)), read_only=read_only)
    if not url.startswith(POSTGRES):
        raise StoreError("expected sqlite:///path or postgresql://user@host/database")
    try:
        from gateway.store.postgres.store import PostgresStore
    except ImportError as error:
        raise StoreError("a store in PostgreSQL needs psycopg: pip install 'ab-gateway[postgres]'") from error
    return PostgresStore(url, read_only=read_only, clock=clock)
