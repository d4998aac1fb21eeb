"""Every table of a store, by what its rows are ordered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gateway.errors import StoreError
from gateway.export.source import OpenStore
from gateway.store.sqlite import SqliteStore

PROGRESS: Final = "migration_progress"
DAY: Final = "day"  # the column that only PostgreSQL has
# In the order in which they are copied: of what was copied first most is asked.
KEYS: Final[dict[str, tuple[str, ...]]] = {
    "draw": ("id",),
    "assignment": ("decision",),
    "completion": ("decision",),
    "shadow": ("decision", "variant"),
    "outcome": ("decision", "metric", "id"),
    "unit_outcome": ("at", "experiment", "bucket", "unit", "metric", "id"),
    "late_fact": (),  # has no key, and few rows
    "unit": ("experiment", "bucket", "unit"),
    "vote": ("experiment", "ordinal"),
    "revisit": ("experiment", "vote", "decision"),
    "settled": ("experiment", "ordinal", "metric"),
    "settling": ("experiment",),
    "erasure": ("unit", "endpoint"),
    "erased": ("decision",),
    "expired": ("day",),
    "experiment": ("id",),
    "cursor": ("experiment", "metric"),
    "evidence": ("experiment", "key"),
    "counter": ("experiment", "variant", "name", "node"),
    "lag": ("experiment", "variant", "metric", "bucket", "node"),
    "plan": ("revision",),
    "release": ("endpoint",),
    "quarantine": ("endpoint", "artifact"),
    "ledger": ("id",),
    "stream": ("spool", "stream"),
    "admission": ("spool",),
    "fold_step": ("step",),
}
BY_DAY: Final = ("assignment", "completion", "shadow", "outcome")
# Who is there and who leads is of the nodes on this one database, and of no log.
OF_ONE_DATABASE: Final = frozenset({"node", "lease", "cluster", "gateway_schema", PROGRESS})


def columns_of(store: OpenStore) -> dict[str, list[str]]:
    """Columns by table, in the tables' own order. Raises StoreError for a table that nobody knows how to copy."""
    if isinstance(store, SqliteStore):
        rows = store.rows(
            "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c"
            " WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' ORDER BY m.name, c.cid"
        )
    else:
        # Not those of single days, which are parts of others.
        rows = store.rows(
            "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relnamespace = CAST(current_schema() AS regnamespace) AND c.relkind IN ('r', 'p')"
            " AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum"
        )
    found: dict[str, list[str]] = {}
    for table, column in rows:
        if table not in OF_ONE_DATABASE:
            found.setdefault(table, []).append(column)
    if unknown := found.keys() ^ KEYS.keys():
        raise StoreError(f"tables that this program cannot migrate: {', '.join(sorted(unknown))}")
    return found


def common(source: list[str], target: list[str]) -> list[str]:
    """Columns to copy, in the order of the target. Raises StoreError where one side has others than `day` alone."""
    if odd := (set(source) ^ set(target)) - {DAY}:
        raise StoreError(f"columns that only one side has: {', '.join(sorted(odd))}")
    return [name for name in target if name in source]


def following(table: str, behind: tuple[Any, ...], rows: int, most: int) -> str:
    """The end of a query for the rows behind a key, () at the beginning, and behind so many rows."""
    key = KEYS[table]
    if not key:
        return f"ORDER BY decision, kind, at, body LIMIT {most} OFFSET {rows}"
    where = f"WHERE ({listed(key)}) > ({', '.join('?' * len(key))}) " if behind else ""
    return f"{where}ORDER BY {listed(key)} LIMIT {most}"


def listed(columns: Sequence[str]) -> str:
    """For a statement: quoted, as one of them is a word of SQL."""
    return ", ".join(f'"{name}"' for name in columns)
