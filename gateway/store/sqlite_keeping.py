"""How a day's requests leave one SQLite file: in short transactions, spool by spool.

There is no index on time, and none is needed: a spool's decision ids ascend with its times, so the oldest requests are
the first rows of each spool.
"""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import takewhile
from typing import Final, NamedTuple

from gateway.errors import StoreError
from gateway.events import SEQUENCE_BITS, decision_id, spool_of
from gateway.store.keeping import DAY_US, KeepTables

_FOREIGN: Final = "PRAGMA foreign_key_check"
_BY_DECISION: Final = ("assignment", "completion", "shadow", "outcome")


class _First(NamedTuple):
    """The first assignment that is left of a spool."""

    decision: int
    at: int


class SqliteKeeping(KeepTables):
    """The engine's own half of `store.keeping.Keeping`."""

    @abstractmethod
    def transaction(self, *, durable: bool = False, leading: bool = False) -> AbstractContextManager[None]: ...

    def integrity(self) -> list[str]:
        try:
            found = [text for (text,) in self.rows("PRAGMA integrity_check") if text != "ok"]
            orphans = [f"{table}: row {row} names no {parent}" for table, row, parent, _ in self.rows(_FOREIGN)]
        except StoreError as error:
            if isinstance(error.__cause__, sqlite3.OperationalError):  # it could not be asked
                raise
            return [str(error)]
        return [*found, *orphans]

    def first_day(self) -> int | None:
        oldest = min((first.at for first in self._firsts()), default=None)
        return None if oldest is None else oldest // DAY_US

    def drop_day(self, day: int, most: int) -> int:
        end = (day + 1) * DAY_US
        for first in self._firsts():
            if first.at < end:
                return self._drop(first, end, most)
        with self.transaction():
            self._drop_orphans()
        return 0

    def _firsts(self) -> Iterator[_First]:
        """One row of each spool, found by jumping from spool to spool."""
        after = 0
        while row := self.row(
            "SELECT decision, at FROM assignment WHERE decision > ? ORDER BY decision LIMIT 1", (after,)
        ):
            yield (first := _First(*row))
            after = decision_id(spool_of(first.decision) + 1, 0)

    def _drop(self, first: _First, end: int, most: int) -> int:
        """The oldest requests of one spool, and whatever else has their decision ids, or lower ones."""
        begin = decision_id(spool_of(first.decision), 0)
        rows = self.rows(
            "SELECT decision, at FROM assignment WHERE decision >= ? AND decision < ? ORDER BY decision LIMIT ?",
            (first.decision, begin + (1 << SEQUENCE_BITS), most),
        )
        old = [decision for decision, _ in takewhile(lambda row: row[1] < end, rows)]
        with self.transaction():
            self._delete(begin, old[-1] + 1)
        return len(old)

    def _drop_orphans(self) -> None:
        """What came for requests that had gone already. What came for requests that are not here yet must stay."""
        for spool, finished in self.rows("SELECT spool, finished FROM stream WHERE stream = 'requests'"):
            begin, end = decision_id(spool, 0), decision_id(spool + 1, 0)
            row = self.row("SELECT min(decision) FROM assignment WHERE decision >= ? AND decision < ?", (begin, end))
            if row[0] is not None:
                self._delete(begin, row[0])
            elif finished:
                self._delete(begin, end)

    def _delete(self, begin: int, end: int) -> None:
        for table in _BY_DECISION:
            self.write(f"DELETE FROM {table} WHERE decision >= ? AND decision < ?", (begin, end))
