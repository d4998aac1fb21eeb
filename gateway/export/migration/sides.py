"""Source and target of a migration: neither may be served from, and the target is not there before it is whole."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from gateway import files
from gateway.errors import StoreError
from gateway.export.migration.heads import compared
from gateway.export.source import Named, OpenStore, open_readable, path_of, without_password
from gateway.store.open import open_store
from gateway.store.sqlite import SqliteStore

_SILENT = 60.0  # seconds after which a node that does not report is not there


@contextmanager
def source_of(origin: Named) -> Iterator[OpenStore]:
    """Raises StoreError while a gateway serves from it."""
    if origin.folder is not None:
        _refuse_served(origin.folder)
    with closing(open_readable(origin.url)) as store:
        _refuse_living(store, origin.url)
        yield store


@contextmanager
def target_of(url: str, source: OpenStore) -> Iterator[OpenStore]:
    """Raises StoreError where there is a store already, or nodes are. One that is given up stays as it is."""
    path = path_of(url)
    if path is not None:
        if path.exists():
            raise StoreError(f"{path}: is there already; name another file{_known(url, source)}")
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        _refuse_served(path.absolute().parent)
        with _alone(path), closing(SqliteStore(_hidden(path))) as file:
            yield file
        return
    with closing(open_store(url)) as store:
        assert not isinstance(store, SqliteStore)
        store.expects_whole = False  # but a migration that goes on
        if store.nodes():
            raise StoreError(f"{without_password(url)}: is there already, and nodes have joined it")
        yield store


def publish(url: str, next_spool: int) -> None:
    """Of a SQLite file: it gets its name, and workers beside it numbers that no spool in it has."""
    path = path_of(url)
    if path is None:
        return
    _hidden(path).rename(path)
    numbers = path.absolute().parent / "spool.next"
    if not numbers.exists() or int(numbers.read_text()) < next_spool:
        temporary = numbers.with_suffix(".new")
        temporary.write_text(str(next_spool))
        temporary.replace(numbers)
    descriptor = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _known(url: str, source: OpenStore) -> str:
    """What to say of a file that is there, if it is a store."""
    try:
        with closing(open_readable(url)) as there:
            return f": {compared(there, source)}"
    except StoreError:
        return ""


def _hidden(path: Path) -> Path:
    return path.with_name(f"{path.name}.migrating")


def _refuse_served(folder: Path) -> None:
    """A data directory's lock is held as long as a process of its gateway lives."""
    lock = folder / "lock"
    if lock.exists() and files.is_locked(lock):
        raise StoreError(f"{folder}: a gateway serves from this folder: stop it first")


def _refuse_living(store: OpenStore, url: str) -> None:
    if isinstance(store, SqliteStore):
        return
    living = [node for node in store.nodes() if node.silent < _SILENT]
    if living:
        names = ", ".join(f"{node.number} ({node.name})" for node in living)
        raise StoreError(f"{without_password(url)}: nodes serve from it: {names}: stop them, and wait a minute")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """A SQLite file has one writing connection."""
    lock = path.with_name(f"{path.name}.migrating.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
        lock.unlink()
    except BlockingIOError:
        raise StoreError(f"{path}: another migration into it is running") from None
    finally:
        os.close(descriptor)
