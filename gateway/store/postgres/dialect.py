"""Statements as PostgreSQL takes them: parameters, and columns of rows as arrays.

Statements that engines share have `?` and `:name` where psycopg has `%s` and `%(name)s`. Many rows go as one array per
column: a few long texts, made in a fraction of the time that rows of parameters take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

_PIECE = re.compile(r"'(?:[^']|'')*'|\?|%|(?<!:):(?!:)([a-z_][a-z0-9_]*)")
_INSERT = re.compile(r"INSERT INTO (\w+) \(([^)]*)\) VALUES \([?, ]+\)(.*)", re.DOTALL)


@lru_cache(maxsize=1024)
def translated(sql: str) -> str:
    """A shared statement in psycopg's form. What is quoted stays, but for `%`, which psycopg wants twice."""
    return _PIECE.sub(_translate, sql)


def _translate(match: re.Match[str]) -> str:
    if match[1]:
        return f"%({match[1]})s"
    return "%s" if match[0] == "?" else match[0].replace("%", "%%")


class Inserted:
    """An INSERT of one row, taken apart: into which columns, and what follows on a conflict."""

    def __init__(self, table: str, columns: Sequence[str], rest: str) -> None:
        self.table = table
        self.columns = columns
        self._rest = rest

    def of_arrays(self, types: Sequence[str]) -> str:
        """The same for many rows: one parameter for each column, an array of that type as text."""
        arrays = ", ".join(f"CAST(%s AS {kind}[])" for kind in types)
        return f"INSERT INTO {self.table} ({', '.join(self.columns)}) SELECT * FROM unnest({arrays}){self._rest}"


@lru_cache(maxsize=256)
def insert(sql: str) -> Inserted | None:
    """What a shared INSERT says; None for another statement."""
    match = _INSERT.fullmatch(sql)
    if match is None:
        return None
    return Inserted(match[1], [column.strip() for column in match[2].split(",")], translated(match[3]))


def array(values: Iterable[Any], kind: str) -> str:
    """A column as the text of an array."""
    return "{" + ",".join(_ITEMS[kind](values)) + "}"


def _numbers(values: Iterable[Any]) -> list[str]:
    return ["NULL" if value is None else repr(value) for value in values]


def _texts(values: Iterable[str | None]) -> list[str]:
    return ["NULL" if value is None else _quoted(value) for value in values]


@lru_cache(maxsize=4096)
def _quoted(value: str) -> str:
    """PostgreSQL keeps no NUL in a text; a fact that has one all the same must not stop everybody's facts."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\0", "\N{REPLACEMENT CHARACTER}")
    return f'"{escaped}"'


def _bytes(values: Iterable[bytes | None]) -> list[str]:
    return ["NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values]


_ITEMS: Final[dict[str, Callable[[Iterable[Any]], list[str]]]] = {
    "bigint": _numbers,
    "double precision": _numbers,
    "text": _texts,
    "bytea": _bytes,
}
