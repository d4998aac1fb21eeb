"""`gateway export`: the log as files, of one moment, whole or not there at all.

Everything is written into a hidden folder beside the wanted one, which gets its name when the manifest is in it.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from gateway import files
from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.export.catalog import TABLES, Rows, Table
from gateway.export.facts import Selection
from gateway.export.manifest import Manifest, WrittenFile, WrittenTable, described
from gateway.export.moment import Moment
from gateway.export.source import OpenStore
from gateway.export.writers import FORMATS, CsvWriter, HashedFile, ParquetWriter

_LOCK = "export.lock"
_DAY_US = 86_400_000_000
_OFTEN = 1_000  # rows between two reports of progress


class ExportError(GatewayError):
    """The files cannot be written there."""

    reason = "export"


class Wanted(NamedTuple):
    """What is to be written, and how."""

    tables: tuple[str, ...]
    format: str
    selected: Selection


def export(
    store: OpenStore,
    now: Moment,
    wanted: Wanted,
    folder: Path,
    clock: Clock,
    tell: Callable[[str, int], None] = lambda *_: None,
) -> Manifest:
    """Write the tables into a new folder. `tell` hears of the table and the rows so far, again and again.

    Raises ExportError where the files cannot be written, StoreError where rows cannot be read; nothing is left then.
    """
    with made_whole(folder) as hidden:
        written = tuple(_table(store, now, wanted, TABLES[name], hidden, tell) for name in wanted.tables)
        manifest = described(now, wanted.format, wanted.selected, written, clock.wall_us())
        manifest.write(hidden)
    return manifest


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """A hidden folder that becomes `folder` at the end; what a killed predecessor left is taken away."""
    parent = folder.absolute().parent
    hidden: Path | None = None
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ExportError(f"{folder}: is there already; name another folder")
        parent.mkdir(parents=True, exist_ok=True)
        _clear(parent, folder.name)
        hidden = parent / f".{folder.name}.{secrets.token_hex(8)}.part"
        hidden.mkdir()
        with ExitStack() as held:
            held.callback(os.close, files.create_locked(hidden / _LOCK, b""))
            yield hidden
            (hidden / _LOCK).unlink()
            _sync(hidden)
            hidden.rename(folder)  # an empty folder of that name gives way
            _sync(parent)
    except OSError as error:
        raise ExportError(f"{error.filename or folder}: {error.strerror}") from error
    finally:
        if hidden is not None:
            shutil.rmtree(hidden, ignore_errors=True)


def _table(
    store: OpenStore, now: Moment, wanted: Wanted, table: Table, folder: Path, tell: Callable[[str, int], None]
) -> WrittenTable:
    rows = table.rows(store, now, wanted.selected)
    told = _told(rows, lambda number: tell(table.name, number))
    if not table.daily:
        return WrittenTable(table, (_file(table.name, told, table, wanted.format, folder),))
    by_day = _Days(told)
    written = [_file(f"{table.name}-{day}", of_day, table, wanted.format, folder) for day, of_day in by_day]
    # Of no rows there is a file all the same: it has the columns, and whoever reads by pattern finds it.
    return WrittenTable(table, tuple(written) or (_file(table.name, iter(()), table, wanted.format, folder),))


def _file(name: str, rows: Rows, table: Table, format: str, folder: Path) -> WrittenFile:
    path = folder / f"{name}.{format}"
    file = HashedFile(path)
    number = 0
    try:
        writer: CsvWriter | ParquetWriter = FORMATS[format](file, table.columns)
        for _, row in rows:
            writer.write(row)
            number += 1
        writer.close()
    finally:
        file.close()
    return WrittenFile(path.name, number, file.size, file.sha256)


class _Days:
    """Rows in the order of their times, day by day; a day must be read to its end before the next one is asked for."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def __iter__(self) -> Iterator[tuple[str, Rows]]:
        while self._next is not None:
            day = self._next[0] // _DAY_US
            yield date_of(day), self._of(day)

    def _of(self, day: int) -> Rows:
        while self._next is not None and self._next[0] // _DAY_US <= day:
            yield self._next
            self._next = next(self._rows, None)


def date_of(day: int) -> str:
    """A day since the epoch, as ISO 8601 has it."""
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _told(rows: Rows, tell: Callable[[int], None]) -> Rows:
    number = 0
    for number, row in enumerate(rows, 1):
        if number % _OFTEN == 0:
            tell(number)
        yield row
    tell(number)


def _clear(parent: Path, name: str) -> None:
    """Folders whose makers were killed: nobody holds their lock."""
    for left in parent.glob(f".{name}.*.part"):
        lock = left / _LOCK
        if lock.exists() and not files.is_locked(lock):
            shutil.rmtree(left, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def chosen(names: Iterable[str]) -> tuple[str, ...]:
    """Names of tables, checked; all if there are none. Raises ValueError."""
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name not in TABLES:
            raise ValueError(f"there is no table {name!r}; there are {', '.join(TABLES)}")
    return names or tuple(TABLES)
