"""The SQLite file itself: what is refused at opening, who may read beside us, what an altered row gives away."""

from __future__ import annotations

import logging
import re
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.clock import FakeClock
from gateway.errors import StoreError
from gateway.store.base import FoldStep, KnownUnit, UnitKey
from gateway.store.connection import APPLICATION_ID, SCHEMA_VERSION
from gateway.store.sqlite import SqliteStore
from tests.unit.store.made import vote


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


def tampered(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as other:
        for statement in statements:
            other.execute(statement)
    other.close()


def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        SqliteStore(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_the_file_says_whose_it_is(path: Path) -> None:
    SqliteStore(path).close()
    with sqlite3.connect(path) as other:
        assert other.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert other.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    other.close()


def test_a_newer_schema_is_refused(path: Path) -> None:
    SqliteStore(path).close()
    tampered(path, "PRAGMA user_version = 99")
    assert refusal(path) == f"schema 99 is newer than this program's {SCHEMA_VERSION}"


@pytest.mark.parametrize("content", [b"hello", b"version: 1\n" * 100])
def test_a_file_that_is_no_database_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert refusal(path) == "not a SQLite file; move it away or name another store"
    assert path.read_bytes() == content


def test_another_programs_database_is_refused_and_kept(path: Path) -> None:
    tampered(path, "CREATE TABLE theirs (a)")
    before = path.read_bytes()
    assert refusal(path) == "the database of another program; name another store"
    assert path.read_bytes() == before


@pytest.mark.parametrize("kept", [100, 4096 * 3 + 1000, -2000])
def test_a_damaged_file_is_refused(path: Path, kept: int) -> None:
    written(path, 200)
    data = path.read_bytes()
    kept %= len(data)
    path.write_bytes(data[:kept] + b"\xff" * (len(data) - kept))
    before = path.read_bytes()
    assert re.search("malformed|damaged", refusal(path))
    assert path.read_bytes() == before


def test_a_truncated_file_is_refused(path: Path) -> None:
    written(path, 200)
    path.write_bytes(path.read_bytes()[: -4096 * 2])
    assert re.search("malformed|damaged", refusal(path))


def test_the_search_for_damage_ends_in_time_and_says_so(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(path, 2000)

    class Fast(FakeClock):
        def monotonic(self) -> float:
            self.advance(2.0)
            return super().monotonic()

    with caplog.at_level(logging.INFO):
        SqliteStore(path, clock=Fast()).close()
    assert f"{path}: checked for damage for 3 s, not to the end" in caplog.messages


def test_the_log_says_which_library_it_is(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        SqliteStore(path).close()
    assert any(line.startswith(f"SQLite {sqlite3.sqlite_version}") for line in caplog.messages)


def written(path: Path, votes: int) -> None:
    store = SqliteStore(path)
    with store.transaction():
        store.add_votes(vote(number) for number in range(1, votes + 1))
    store.close()


def test_an_error_of_the_disk_is_remembered_until_the_file_was_opened_anew(path: Path) -> None:
    store = SqliteStore(path)
    store.add_step(FoldStep(1, 1, 1, "{}"))
    with writes_fail_beyond(path.with_name(path.name + "-wal").stat().st_size), pytest.raises(StoreError, match="disk"):
        store.add_step(FoldStep(2, 2, 2, "{}"))
    with pytest.raises(StoreError, match=r"disk I/O error: must be opened anew$"):
        store.last_step()
    with pytest.raises(StoreError, match=r"must be opened anew$"), store.transaction():
        pass
    store.recover()
    assert store.last_step() == FoldStep(1, 1, 1, "{}")
    store.add_step(FoldStep(2, 2, 2, "{}"))
    store.close()


@contextmanager
def writes_fail_beyond(size: int) -> Iterator[None]:
    """No file of this process can grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_was_lost_meanwhile_does_not_recover(path: Path) -> None:
    store = SqliteStore(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match="Is a directory"):
        store.recover()
    with pytest.raises(StoreError, match="must be opened anew"):
        store.last_step()
    store.close()


def test_a_reader_makes_the_log_grow_and_nothing_else(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.file._LOG_KEPT", 100_000)
    monkeypatch.setattr("gateway.store.connection.LARGE_LOG", 10 << 20)
    monkeypatch.setattr("gateway.store.connection._LOOK", 1)
    store = SqliteStore(path)
    reader = SqliteStore(path, read_only=True)
    with reader.transaction():
        assert reader.last_step() is None
        grow(store, 60)
        assert store.wal_bytes > 10 << 20
        assert reader.last_step() is None
    grow(store, 3)
    assert store.wal_bytes < 5 << 20
    assert caplog.messages == [f"{path}-wal: over 10 MiB, for a reader keeps the store at one moment"]
    reader.close()
    store.close()
    assert store.wal_bytes == 0


def grow(store: SqliteStore, times: int) -> None:
    for number in range(times):
        with store.transaction():
            store.save_evidence("exp", 1, {"cell": bytes([number]) * 300_000})


def test_two_that_open_an_old_file_at_once_migrate_it_once(tmp_path: Path) -> None:
    """Each is a process of its own; `go` lets all of them begin at the same moment."""
    old = Path(__file__).with_name("version_1.sql").read_text()
    script = (
        "import sys, time, pathlib\nfrom gateway.store.sqlite import SqliteStore\n"
        "folder = pathlib.Path(sys.argv[1])\nprint('ready', flush=True)\n"
        "while not (folder / 'go').exists(): pass\n"
        "store = SqliteStore(folder / 'gateway.db')\nprint(store.vote_count('exp'))\nstore.close()"
    )
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with sqlite3.connect(folder / "gateway.db") as db:
            db.executescript(old)
        db.close()
        command = [sys.executable, "-c", script, str(folder)]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        (folder / "go").touch()
        assert [process.communicate(timeout=60) for process in both] == [("56\n", "")] * 2


def test_a_folder_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path)
    assert refusal(tmp_path / "missing" / "gateway.db")


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    store = SqliteStore(path)
    assert store.last_step() is None
    store.close()


def test_readers_read_while_we_write(path: Path) -> None:
    store = SqliteStore(path)
    store.add_step(FoldStep(1, 1, 1, "{}"))
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    with store.transaction():
        store.add_step(FoldStep(2, 2, 2, "{}"))
        assert reader.execute("SELECT max(step) FROM fold_step").fetchone() == (1,)
    assert reader.execute("SELECT max(step) FROM fold_step").fetchone() == (2,)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM fold_step")
    reader.close()
    store.close()


def test_an_engine_that_breaks_in_mid_transaction_raises_one_line(path: Path) -> None:
    store = SqliteStore(path)
    store.add_step(FoldStep(1, 1, 1, "{}"))
    with pytest.raises(StoreError, match=f"^{path}: disk I/O error$"), store.transaction():
        raise sqlite3.OperationalError("disk I/O error")  # as a row is read
    with pytest.raises(StoreError), store.transaction():
        store.stream("SELECT nothing")
    with pytest.raises(StoreError, match="closed"), store.transaction():
        store.close()


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("UPDATE ledger SET body = replace(body, '1', '7') WHERE id = 2", 2),
        ("UPDATE ledger SET kind = 'promote' WHERE id = 1", 1),
        ("UPDATE ledger SET at = at + 1 WHERE id = 3", 3),
        ("UPDATE ledger SET hash = '' WHERE id = 2", 2),
        ("DELETE FROM ledger WHERE id = 2", 2),
        ("DELETE FROM ledger WHERE id = 1", 1),
    ],
)
def test_an_altered_ledger_gives_itself_away(path: Path, change: str, broken: int) -> None:
    store = SqliteStore(path)
    for number in range(3):
        store.append_ledger(number, 1, "rank", "exp", "hold", {"n": number})
    assert store.broken_link() is None
    tampered(path, change)
    assert store.broken_link() == broken
    store.close()


def test_the_ledger_of_an_experiment_is_found_without_reading_the_others(path: Path) -> None:
    store = SqliteStore(path)
    newest = "SELECT * FROM ledger WHERE experiment = ? ORDER BY id DESC LIMIT 1"
    ((*_, how),) = store.rows(f"EXPLAIN QUERY PLAN {newest}", ("x",))
    assert how == "SEARCH ledger USING INDEX ledger_of_experiment (experiment=?)"
    store.close()


class Counted(list[UnitKey]):
    """Keys that count how often somebody goes through them."""

    times = 0

    def __iter__(self) -> Iterator[UnitKey]:
        self.times += 1
        return super().__iter__()


def test_units_of_many_experiments_are_found_without_going_through_all_of_them_for_each(path: Path) -> None:
    store = SqliteStore(path)
    keys = Counted(UnitKey(f"e{number % 10}", number, b"u" * 16) for number in range(100))
    known = [KnownUnit(number, 5, "1:a") for number in range(100)]
    with store.transaction():
        store.save_units(dict(zip(keys, known, strict=True)))
    keys.times = 0
    assert store.known_units(keys) == known
    assert keys.times == 2, "to ask and to answer"
    store.close()
