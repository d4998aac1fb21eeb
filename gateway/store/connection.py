"""One SQLite file, opened, checked, migrated; and the only place where the engine's errors become StoreError."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

from gateway.errors import StoreError
from gateway.store.tables import Parameters, Tables

SCHEMA_VERSION = 5
APPLICATION_ID = 0x41424757  # "ABGW" in the file's header: this database is ours
_MAGIC = b"SQLite format 3\0"
_CACHE_KIB = 32 << 10  # pages kept in memory: new units land all over their table
_BUSY = 5.0  # seconds to wait for a reader that blocks a checkpoint


class Connection(Tables):
    """The one writing connection of a file, or one that only looks. Use from one thread at a time."""

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self._path = path
        self._begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
        self._read_only = read_only
        self._db = self._opened()

    def recover(self) -> None:
        """Open the file anew: after an error of the disk, what a connection remembers of it may be wrong."""
        if self._path != ":memory:":
            self._db.close()
            self._db = self._opened()

    def _opened(self) -> sqlite3.Connection:
        _refuse_foreign(self._path)
        name = f"{Path(self._path).absolute().as_uri()}?mode=ro" if self._read_only else self._path
        try:
            db = sqlite3.connect(
                name, isolation_level=None, check_same_thread=False, timeout=_BUSY, uri=self._read_only
            )
        except sqlite3.Error as error:
            raise self._failed(error) from error
        try:
            if self._read_only:
                self._expect_schema(db)
            else:
                self._migrate(db)
        except sqlite3.Error as error:
            db.close()
            raise self._failed(error) from error
        except StoreError:
            db.close()
            raise
        return db

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

    def close(self) -> None:
        self._db.close()

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Any]:
        try:
            return self._db.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def row(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first row, or None."""
        try:
            return self._db.execute(sql, parameters).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def stream(self, sql: str, parameters: Parameters = ()) -> Iterator[Any]:
        """Rows read as they are asked for; inside a transaction only, which turns errors on the way."""
        try:
            return self._db.execute(sql, parameters)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def write(self, sql: str, parameters: Parameters = ()) -> int:
        """Returns the number of rows changed."""
        try:
            return self._db.execute(sql, parameters).rowcount
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def write_all(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Returns the number of rows changed in all."""
        before = self._db.total_changes
        try:
            self._db.executemany(sql, rows)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return self._db.total_changes - before

    def _failed(self, error: sqlite3.Error) -> StoreError:
        return StoreError(f"{self._path}: {error}")

    def _expect_schema(self, db: sqlite3.Connection) -> None:
        """Whoever only looks migrates nothing."""
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            found = f"its schema is {version}, this program's {SCHEMA_VERSION}"
            raise StoreError(f"{self._path}: {found}: start the gateway once")

    def _migrate(self, db: sqlite3.Connection) -> None:
        version, application, tables = (
            db.execute(sql).fetchone()[0]
            for sql in ("PRAGMA user_version", "PRAGMA application_id", "SELECT count(*) FROM sqlite_master")
        )
        if application != APPLICATION_ID and (application or version or tables):
            raise StoreError(f"{self._path}: the database of another program; name another store")
        if version > SCHEMA_VERSION:
            raise StoreError(f"{self._path}: schema {version} is newer than this program's {SCHEMA_VERSION}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        folder = resources.files("gateway.store") / "migrations" / "sqlite"
        for number in range(version + 1, SCHEMA_VERSION + 1):
            script = (folder / f"{number:04d}.sql").read_text()
            marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}"
            db.executescript(f"BEGIN IMMEDIATE; {script}; {marks}; COMMIT;")


def _refuse_foreign(path: Path | str) -> None:
    """A file that is no database is never overwritten, and never ignored in favour of a new one."""
    if not isinstance(path, Path):
        return
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    if head and head != _MAGIC:
        raise StoreError(f"{path}: not a SQLite file; move it away or name another store")
