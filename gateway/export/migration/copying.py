"""Rows from one store into another: in key order, chunk by chunk, each committed with how far it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from gateway.errors import StoreError
from gateway.export.migration.heads import compared
from gateway.export.migration.tables import BY_DAY, DAY, KEYS, PROGRESS, columns_of, common, following, listed
from gateway.export.source import OpenStore
from gateway.store.keeping import DAY_US
from gateway.store.sqlite import SqliteStore

CHUNK = 5_000  # rows in one transaction
Row = tuple[Any, ...]
Tell = Callable[[str, int], None]


class Copied(NamedTuple):
    """How far a table has come."""

    position: str  # the last key, "" for none
    rows: int
    done: bool


class Copying:
    """One migration. Whoever comes back goes on where the target says; two at a time are found out."""

    def __init__(self, source: OpenStore, target: OpenStore) -> None:
        self._source, self._target = source, target
        there, here = columns_of(source), columns_of(target)
        self._columns = {table: common(there[table], here[table]) for table in KEYS}
        self._derive_day = {table for table in KEYS if DAY in here[table] and DAY not in there[table]}

    def compared(self, table: str) -> list[str]:
        """Columns that every engine has, in an order of their own: a table has one checksum wherever it is."""
        return sorted(name for name in self._columns[table] if table not in BY_DAY or name != DAY)

    def begin(self, fingerprint: str) -> bool:
        """True if this goes on with an earlier run; `fingerprint` is of the source.

        Raises StoreError if the target holds something, and nothing says that a migration of this source put it there.
        """
        if self._exists():
            if self._target.row(f"SELECT position FROM {PROGRESS} WHERE name = ''")[0] == fingerprint:
                return True
            raise StoreError(
                "the target holds a part of another source, or of this one before it went on: drop it and begin anew"
            )
        filled = [table for table in KEYS if self._target.row(f"SELECT 1 FROM {table} LIMIT 1") is not None]
        if not filled:
            self._note_beginning(fingerprint)
        elif not isinstance(self._target, SqliteStore):
            raise StoreError(f"the target is not empty: {compared(self._target, self._source)}")
        # Else a file without its name that was finished, and not given it any more.
        return bool(filled)

    def copy(self, tell: Tell) -> None:
        """Everything that is not there yet."""
        if self._exists():
            for table in KEYS:
                self._copy(table, tell)

    def finish(self) -> None:
        """From now on the target is a store."""
        with self._target.transaction(durable=True):
            if not isinstance(self._target, SqliteStore):
                # New draws get numbers behind those that were copied.
                last = "SELECT setval(pg_get_serial_sequence('draw', 'id'), max(id)) FROM draw HAVING max(id) > 0"
                self._target.row(last)
            self._target.write(f"DROP TABLE IF EXISTS {PROGRESS}")

    def _note_beginning(self, fingerprint: str) -> None:
        with self._target.transaction(durable=True):
            self._target.write(
                f"CREATE TABLE {PROGRESS} (name TEXT PRIMARY KEY, position TEXT NOT NULL, rows BIGINT NOT NULL,"
                " done BIGINT NOT NULL)"
            )
            insert = f"INSERT INTO {PROGRESS} (name, position, rows, done) VALUES (?, ?, 0, 0)"
            for name, position in (("", fingerprint), *((table, "") for table in KEYS)):
                self._target.write(insert, (name, position))

    def _copy(self, table: str, tell: Tell) -> None:
        progress = self._progress(table)
        while not progress.done:
            rows = self._read(table, progress)
            with self._target.transaction():
                self._write(table, rows)
                progress = self._advance(table, progress, rows)
            tell(table, progress.rows)

    def _read(self, table: str, after: Copied) -> list[Row]:
        """The next rows."""
        wanted = [f't."{name}"' for name in self._columns[table]]
        if table in self._derive_day:
            wanted.append(_assigned_at(table))
        behind: Row = tuple(msgspec.msgpack.decode(bytes.fromhex(after.position))) if after.position else ()
        end = following(table, behind, after.rows, CHUNK)
        rows = self._source.rows(f"SELECT {', '.join(wanted)} FROM {table} t {end}", behind)
        if table in self._derive_day:
            return [(*row[:-1], row[-1] // DAY_US) for row in rows]
        return [tuple(row) for row in rows]

    def _write(self, table: str, rows: list[Row]) -> None:
        if not rows:
            return
        columns = [*self._columns[table], *([DAY] if table in self._derive_day else [])]
        if not isinstance(self._target, SqliteStore) and table in BY_DAY:
            place = columns.index(DAY)
            self._target.ensure_days(table, {row[place] for row in rows})
        sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        if table != "stream":
            self._target.write_all(sql, rows)
            return
        for row in rows:  # one of its columns is a word of SQL, and must be quoted
            self._target.write(sql.replace(", ".join(columns), listed(columns)), row)

    def _advance(self, table: str, before: Copied, rows: list[Row]) -> Copied:
        key = KEYS[table]
        done = len(rows) < CHUNK
        position = before.position
        if rows and key:
            places = [self._columns[table].index(name) for name in key]
            position = msgspec.msgpack.encode([rows[-1][place] for place in places]).hex()
        after = Copied(position, before.rows + len(rows), done)
        changed = self._target.write(
            f"UPDATE {PROGRESS} SET position = ?, rows = ?, done = ? WHERE name = ? AND position = ? AND rows = ?"
            " AND done = 0",
            (after.position, after.rows, int(after.done), table, before.position, before.rows),
        )
        if changed != 1:
            raise StoreError("another migration into this target is running")
        return after

    def _progress(self, table: str) -> Copied:
        position, rows, done = self._target.row(f"SELECT position, rows, done FROM {PROGRESS} WHERE name = ?", (table,))
        return Copied(position, rows, bool(done))

    def _exists(self) -> bool:
        if isinstance(self._target, SqliteStore):
            return self._target.row("SELECT 1 FROM sqlite_master WHERE name = ?", (PROGRESS,)) is not None
        found: bool = self._target.row(f"SELECT to_regclass('{PROGRESS}') IS NOT NULL")[0]
        return found


def _assigned_at(table: str) -> str:
    """When the exposure was assigned that a row is about: facts of one exposure are kept on one day."""
    if table == "assignment":
        return "t.at"
    return "coalesce((SELECT a.at FROM assignment a WHERE a.decision = t.decision), t.at)"
