"""One SQLite file as statements and transactions; and the only place where the engine's errors become StoreError."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.store.file import APPLICATION_ID, SCHEMA_VERSION, opened, say_which
from gateway.store.tables import Parameters, Tables

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "Connection"]

log = logging.getLogger(__name__)

LARGE_LOG: Final = 256 << 20  # bytes of the write-ahead log of which a person should know
_LOOK: Final = 256  # transactions between two looks at it
_MEMORY: Final = ":memory:"
# After these nothing that the connection remembers may be trusted: a page that was not written counts as written.
_UNTRUSTED: Final = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Connection(Tables):
    """The one writing connection of a file, or one that only looks. Use from one thread at a time.

    After an error of the disk it does nothing more until `recover` has opened and checked the file anew.
    """

    def __init__(self, path: Path | str, clock: Clock, *, read_only: bool = False) -> None:
        self._path = path
        self._clock = clock
        self._begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
        self._read_only = read_only
        self._untrusted = ""  # why
        self._closed = False
        self._commits = 0
        self._large = False
        self._db = opened(path, clock, read_only=read_only)
        if not read_only:
            say_which()

    def recover(self) -> None:
        if self._closed:
            raise StoreError(f"{self._path}: closed")
        if self._path != _MEMORY:
            self._db.close()
            self._untrusted = "could not be opened again"
            self._db = opened(self._path, self._clock, read_only=self._read_only)
            self._untrusted = ""
        self._forget()

    def _forget(self) -> None:
        """What was learned from rows that may be gone."""

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """All or nothing. `durable` waits for the disk: what follows from it may outlive a power cut.

        Facts need not: after a power cut the store falls back to an earlier step, and the spools are read again.
        Whoever only looks sees one moment of the store until the end.
        """
        self.write(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        try:
            self.write(self._begin)
            yield
            self.write("COMMIT")
        except BaseException as error:
            # An engine that lost its disk may have rolled back by itself, or be unable to: the file decides.
            with suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._failed(error) from error
            raise
        self._commits += 1
        if self._commits % _LOOK == 0 and not self._read_only:
            self._look_at_log()

    def close(self) -> None:
        self._closed = True
        self._db.close()

    @property
    def wal_bytes(self) -> int:
        """The size of the write-ahead log. It grows while a reader stays at one moment, and is cut back after that."""
        try:
            return Path(f"{self._path}-wal").stat().st_size
        except OSError:
            return 0

    def _look_at_log(self) -> None:
        large = self.wal_bytes > LARGE_LOG
        if large and not self._large:
            log.warning("%s-wal: over %d MiB, for a reader keeps the store at one moment", self._path, LARGE_LOG >> 20)
        self._large = large

    # ------------------------------------------------------------------ statements

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Any]:
        try:
            return self._trusted().execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def row(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first row, or None."""
        try:
            return self._trusted().execute(sql, parameters).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def stream(self, sql: str, parameters: Parameters = ()) -> Iterator[Any]:
        """Rows read as they are asked for; inside a transaction only, which turns errors on the way."""
        try:
            return self._trusted().execute(sql, parameters)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def write(self, sql: str, parameters: Parameters = ()) -> int:
        """Returns the number of rows changed."""
        try:
            return self._trusted().execute(sql, parameters).rowcount
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def write_all(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Returns the number of rows changed in all."""
        try:
            before = self._trusted().total_changes
            self._db.executemany(sql, rows)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return self._db.total_changes - before

    def _trusted(self) -> sqlite3.Connection:
        if self._untrusted:
            raise StoreError(f"{self._path}: {self._untrusted}: must be opened anew")
        return self._db

    def _failed(self, error: sqlite3.Error) -> StoreError:
        if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in _UNTRUSTED:
            self._untrusted = str(error)
        return StoreError(f"{self._path}: {error}")
