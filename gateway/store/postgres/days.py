"""Facts about requests lie by the day of their assignment: one partition of each table for each day.

A partition is made by whoever first needs it, outside of the table and then attached, which holds up neither readers
nor writers of the others. An old day is dropped whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Final

from gateway.store.keeping import DAY_US
from gateway.store.postgres.connection import Connection

BY_DAY: Final = ("assignment", "completion", "shadow", "outcome")
LOCK: Final = 0x41424757_0000_0002  # of pg_advisory_xact_lock
_EPOCH: Final = date(1970, 1, 1)
_LAST: Final = (date.max - _EPOCH).days - 1  # there is a day behind it


def day_of(at: int) -> int:
    """Days since the epoch (UTC) of a time in microseconds; a time that cannot be is on the first or the last day."""
    day = at // DAY_US
    return day if 0 <= day < _LAST else max(0, min(day, _LAST))


class Days(Connection):
    """Partitions, made as they are needed and remembered."""

    def ensure_days(self, table: str, days: Iterable[int]) -> None:
        """Partitions of a table for rows of these days; inside a transaction."""
        self._ensure(table, days)

    def _ensure(self, table: str, days: Iterable[int]) -> None:
        """Partitions of a table for these days; inside a transaction."""
        missing = set(days) - self._partitions[table]
        if not missing:
            return
        # The next day's too: at midnight everybody needs it at once.
        for day in sorted(missing | {max(missing) + 1} - self._partitions[table]):
            self._make(table, day)
            self._fresh_partitions.append((table, day))
            self._partitions[table].add(day)

    def _make(self, table: str, day: int) -> None:
        name = partition(table, day)
        if self._exists(name):
            return
        self.row(f"SELECT pg_advisory_xact_lock({LOCK})")
        if not self._exists(name):
            self.write(f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS, CHECK (day = {day}))")
            self.write(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES IN ({day})")

    def _exists(self, name: str) -> bool:
        """Asks the table, for to_regclass would remember its last answer."""
        here = "relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
        return self.row(f"SELECT 1 FROM pg_class WHERE relname = ? AND {here}", (name,)) is not None

    def _forget(self) -> None:
        super()._forget()
        self._partitions: dict[str, set[int]] = {table: set() for table in BY_DAY}
        self._fresh_partitions: list[tuple[str, int]] = []

    def _committed(self) -> None:
        super()._committed()
        self._fresh_partitions.clear()

    def _rolled_back(self) -> None:
        super()._rolled_back()
        for table, day in self._fresh_partitions:
            self._partitions[table].discard(day)
        self._fresh_partitions.clear()

    def days(self, table: str = "assignment") -> list[int]:
        """For which days there are partitions, ascending."""
        rows = self.rows(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = CAST(? AS regclass)",
            (table,),
        )
        return sorted((date.fromisoformat(name.removeprefix(f"{table}_")) - _EPOCH).days for (name,) in rows)


def partition(table: str, day: int) -> str:
    """The partition's name: table_YYYYMMDD."""
    return f"{table}_{_EPOCH + timedelta(days=day):%Y%m%d}"
