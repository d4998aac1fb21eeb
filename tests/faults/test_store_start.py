"""S6: a store that cannot be used is refused in one line, and stays as it is."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import node_config
from gateway.store.sqlite import SqliteStore

pytestmark = pytest.mark.process


def _no_database(path: Path) -> None:
    path.write_bytes(b"seven years of results\n" * 1000)


def _cut(path: Path) -> None:
    _made(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def _scribbled(path: Path) -> None:
    """The header is right, what follows is not."""
    _made(path)
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(len(content) - 100))


def _newer(path: Path) -> None:
    _made(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 4711")


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE holidays (day TEXT)")
        db.commit()


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("spoil", [_no_database, _cut, _scribbled, _newer, _foreign, _folder])
def test_s6_a_store_that_is_none_or_is_damaged_is_refused_and_not_touched(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    document = node_config.document()
    config, store = tmp_path / "gateway.yaml", tmp_path / "data" / "gateway.db"
    config.write_text(json.dumps(document))
    store.parent.mkdir()
    spoil(store)
    before = _content(store)
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--shutdown-delay", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode not in (0, 1), "whoever starts it again and again must learn that it is no use"
    assert str(store) in done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert _content(store) == before
    assert not [path.name for path in store.parent.iterdir() if path.name.startswith("gateway.db") and path != store]


def _made(path: Path) -> None:
    """A store with rows in it, in one file."""
    with closing(SqliteStore(path)) as store:
        for number in range(200):
            store.add_experiment(f"experiment-{number}", "rank", "{}" * 200, number)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _content(path: Path) -> str:
    return "a folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
