"""Queries of other people: with the names of the columns, on a connection of their own that cannot write."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from gateway.errors import StoreError
from gateway.export.source import path_of, without_password


def columns_and_rows(
    url: str, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """What a query gives. Raises StoreError where the engine refuses it."""
    path = path_of(url)
    if path is None:
        raise StoreError(f"{without_password(url)}: PostgreSQL is not supported by this version")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            cursor = connection.execute(query, parameters)
            return [column[0] for column in cursor.description or ()], cursor.fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error
