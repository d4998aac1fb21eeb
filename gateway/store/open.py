"""A store by its URL."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import quote

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from gateway.store.postgres.store import PostgresStore

    AnyStore: TypeAlias = SqliteStore | PostgresStore

SQLITE: Final = "sqlite:///"
POSTGRES: Final = ("postgresql://", "postgres://")
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def open_store(
    url: str, *, read_only: bool = False, clock: Clock | None = None, environment: Mapping[str, str] = os.environ
) -> AnyStore:
    """`sqlite:///path` or `postgresql://user:${NAME}@host/database`, where ${NAME} is a variable of the environment.

    Raises StoreError if there is no such store and it cannot be made, or if its schema is another. A PostgreSQL server
    that cannot be reached now raises StoreUnavailable when the store is first used, and is tried again later.
    """
    if url.startswith(SQLITE):
        return SqliteStore(Path(url.removeprefix(SQLITE)), read_only=read_only, clock=clock)
    if not url.startswith(POSTGRES):
        raise StoreError("expected sqlite:///path or postgresql://user@host/database")
    try:
        from gateway.store.postgres.store import PostgresStore
    except ImportError as error:
        raise StoreError("a store in PostgreSQL needs psycopg: pip install 'ab-gateway[postgres]'") from error
    return PostgresStore(filled(url, environment), read_only=read_only, clock=clock)


def filled(url: str, environment: Mapping[str, str]) -> str:
    """The URL with its variables, spelled as URLs want it; raises StoreError for one that is not set."""
    try:
        return _VARIABLE.sub(lambda match: quote(environment[match[1]], safe=""), url)
    except KeyError as error:
        raise StoreError(f"the store's URL needs the variable {error.args[0]} in the environment") from error
