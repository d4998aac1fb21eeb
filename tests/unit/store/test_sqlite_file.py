"""The SQLite file itself: what is refused at opening, who may read beside us, what an altered row gives away."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store.base import FoldStep, KnownUnit, UnitKey
from gateway.store.connection import APPLICATION_ID, SCHEMA_VERSION
from gateway.store.sqlite import SqliteStore


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


def test_a_damaged_file_is_refused(path: Path) -> None:
    SqliteStore(path).close()
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xff" * (len(data) - 100))
    assert refusal(path)


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
