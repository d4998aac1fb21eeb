"""Queries of other people: with the names of the columns, on a connection of their own that cannot write."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from gateway.errors import StoreError
from gateway.export.source import path_of, without_password
from gateway.store.open import filled


def columns_and_rows(
    url: str, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """What a query gives. Raises StoreError where the engine refuses it."""
    path = path_of(url)
    if path is None:
        return _from_postgres(url, query, parameters)
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            cursor = connection.execute(query, parameters)
            return [column[0] for column in cursor.description or ()], cursor.fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error


def _from_postgres(
    url: str, query: str, parameters: Sequence[Any] | Mapping[str, Any]
) -> tuple[list[str], list[tuple[Any, ...]]]:
    import psycopg  # the store on it has found it, or said what is missing

    from gateway.store.postgres.dialect import translated

    try:
        with psycopg.connect(filled(url, os.environ), cursor_factory=psycopg.ClientCursor) as connection:
            connection.read_only = True
            cursor = connection.execute(
                translated(query).encode() if parameters else query.encode(), parameters or None
            )
            return [column.name for column in cursor.description or ()], cursor.fetchall() if cursor.description else []
    except psycopg.Error as error:
        raise StoreError(f"{without_password(url)}: {error}") from error
