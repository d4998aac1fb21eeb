"""How a day's requests leave: its partitions are dropped, which takes no longer for many rows than for few."""

from __future__ import annotations

from gateway.store.keeping import KeepTables
from gateway.store.postgres.days import BY_DAY, Days, partition


class PostgresKeeping(Days, KeepTables):
    """The engine's own half of `store.keeping.Keeping`."""

    def first_day(self) -> int | None:
        return min(self.days(), default=None)

    def drop_day(self, day: int, most: int) -> int:
        gone = 0
        for table in BY_DAY:
            for old in [old for old in self.days(table) if old <= day]:
                name = partition(table, old)
                with self.transaction():
                    # Whoever reads the table now is not waited for long: everybody else would wait behind us.
                    self.write("SET LOCAL lock_timeout = '200ms'")
                    gone += self.row(f"SELECT count(*) FROM {name}")[0] if table == "assignment" else 0
                    self.write(f"DROP TABLE {name}")
                self._partitions[table].discard(old)
        return gone
