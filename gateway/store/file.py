"""The file of a SQLite store: refused where it is another's, newer or damaged; else made, or brought up to date."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final

from gateway.clock import Clock
from gateway.errors import StoreError

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 5
APPLICATION_ID: Final = 0x41424757  # "ABGW" in the file's header: this database is ours
_MAGIC: Final = b"SQLite format 3\0"
_CACHE_KIB: Final = 32 << 10  # pages kept in memory: new units land all over their table
_BUSY: Final = 5.0  # seconds to wait for a reader that blocks a checkpoint
_TRIES: Final = 100
_LOG_KEPT: Final = 64 << 20  # bytes: what a log that had to grow is cut back to
_CHECKED: Final = 3.0  # seconds spent on looking for damage before the store is used
_INSTRUCTIONS: Final = 20_000  # of SQLite's, between two looks at the clock


def opened(path: Path | str, clock: Clock, *, read_only: bool) -> sqlite3.Connection:
    """Raises StoreError, in one line. Whoever only looks checks and migrates nothing."""
    _refuse_foreign(path)
    name = f"{Path(path).absolute().as_uri()}?mode=ro" if read_only else path
    try:
        db = sqlite3.connect(name, isolation_level=None, check_same_thread=False, timeout=_BUSY, uri=read_only)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error
    try:
        if read_only:
            _expect_schema(db, path)
        else:
            _known(db, path)
            _expect_whole(db, path, clock)
            _set_up(db)
            _migrate(db, path)
    except BaseException as error:
        db.close()
        if isinstance(error, sqlite3.Error):
            raise StoreError(f"{path}: {error}") from error
        raise
    return db


def say_which() -> None:
    """Log which library is loaded: it comes with Python or the system, not with this program."""
    log.info("SQLite %s", sqlite3.sqlite_version)


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


def _expect_schema(db: sqlite3.Connection, path: Path | str) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        found = f"its schema is {version}, this program's {SCHEMA_VERSION}"
        raise StoreError(f"{path}: {found}: start the gateway once")


def _known(db: sqlite3.Connection, path: Path | str) -> int:
    """The version of the schema, 0 for an empty file."""
    version, application, tables = (
        db.execute(sql).fetchone()[0]
        for sql in ("PRAGMA user_version", "PRAGMA application_id", "SELECT count(*) FROM sqlite_master")
    )
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreError(f"{path}: the database of another program; name another store")
    if version > SCHEMA_VERSION:
        raise StoreError(f"{path}: schema {version} is newer than this program's {SCHEMA_VERSION}")
    return int(version)


def _expect_whole(db: sqlite3.Connection, path: Path | str, clock: Clock) -> None:
    """Look for damage, for as long as a start may take; what is left unseen is found when it is read."""
    until = clock.monotonic() + _CHECKED
    db.set_progress_handler(lambda: clock.monotonic() > until, _INSTRUCTIONS)
    try:
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        log.info("%s: checked for damage for %g s, not to the end", path, _CHECKED)
        return
    finally:
        db.set_progress_handler(None, 0)
    if found != "ok":
        reason = " ".join(found.splitlines()[-1].split())
        raise StoreError(f"{path}: damaged ({reason}): restore a copy, or move it away to begin anew")


def _set_up(db: sqlite3.Connection) -> None:
    for left in range(_TRIES, 0, -1):
        try:
            db.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:  # another process opens a new file; here SQLite does not wait itself
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or left == 1:
                raise
            time.sleep(_BUSY / _TRIES)
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    db.execute(f"PRAGMA journal_size_limit = {_LOG_KEPT}")


def _migrate(db: sqlite3.Connection, path: Path | str) -> None:
    """All steps of an upgrade in one transaction. Whoever comes second finds it done."""
    if _known(db, path) == SCHEMA_VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    folder = resources.files("gateway.store") / "migrations" / "sqlite"
    for number in range(_known(db, path) + 1, SCHEMA_VERSION + 1):
        for statement in _statements((folder / f"{number:04d}.sql").read_text()):
            db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """A script's statements, one by one: `executescript` would commit what is open."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
