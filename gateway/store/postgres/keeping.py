"""How a day's requests leave: its partitions are dropped, which takes no longer for many rows than for few."""

from __future__ import annotations

from typing import Final

import psycopg

from gateway.errors import StoreError
from gateway.store.keeping import KeepTables
from gateway.store.postgres.days import BY_DAY, Days, partition

_AGAIN: Final = 30.0  # seconds until another try to drop what somebody used


class PostgresKeeping(Days, KeepTables):
    """The engine's own half of `store.keeping.Keeping`."""

    _drop_at = 0.0  # monotonic seconds

    def first_day(self) -> int | None:
        return min((day for table in BY_DAY for day in self.days(table)), default=None)

    def drop_day(self, day: int, most: int) -> int:
        """Where somebody reads the day, it stays for now: returns 1, and does so without another try for a while."""
        now = self._clock.monotonic()
        if now < self._drop_at:
            return 1
        gone = 0
        for table in BY_DAY:
            for old in [old for old in self.days(table) if old <= day]:
                try:
                    gone += self._drop(table, old)
                except StoreError as error:
                    if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                        raise
                    self._drop_at = now + _AGAIN
                    return max(1, gone)
        return gone

    def _drop(self, table: str, day: int) -> int:
        """Returns how many rows went, roughly; at least 1."""
        name = partition(table, day)
        with self.transaction():
            # Whoever uses the table now is not waited for long, for everybody else waits behind us.
            self.write("SET LOCAL lock_timeout = '50ms'")
            (rows,) = self.row(
                "SELECT CAST(reltuples AS BIGINT) FROM pg_class WHERE oid = CAST(? AS regclass)", (name,)
            )
            self.write(f"DROP TABLE {name}")
        self._partitions[table].discard(day)
        return int(max(1, rows))
