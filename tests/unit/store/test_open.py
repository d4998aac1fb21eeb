"""A store by its URL: which engine, which variables of the environment, what is missing."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import pytest

from gateway.clock import FakeClock
from gateway.errors import StoreError
from gateway.store.open import open_store
from gateway.store.postgres.store import PostgresStore
from gateway.store.sqlite import SqliteStore


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    with closing(open_store(f"sqlite:///{path}")) as store:
        assert isinstance(store, SqliteStore)
        store.append_ledger(1, 1, "rank", "exp", "hold", {})
    with closing(open_store(f"sqlite:///{path}", read_only=True)) as reader:
        assert len(reader.ledger()) == 1
        with pytest.raises(StoreError, match="readonly"):
            reader.append_ledger(1, 1, "rank", "exp", "hold", {})
    with pytest.raises(StoreError, match="unable to open"):
        open_store(f"sqlite:///{tmp_path}/none.db", read_only=True)


def test_a_database(fresh_database: str) -> None:
    with closing(open_store(fresh_database)) as store:
        assert isinstance(store, PostgresStore)
        store.append_ledger(1, 1, "rank", "exp", "hold", {})
    with closing(open_store(fresh_database, read_only=True)) as reader:
        assert len(reader.ledger()) == 1


def test_variables_come_from_the_environment_and_are_spelled_as_urls_want_it(fresh_database: str) -> None:
    url = fresh_database.replace("postgres@", "${NAME}:${PASSWORD}@", 1)
    environment = {"NAME": "postgres", "PASSWORD": "a/b@c:d?e#f%g h"}
    with closing(open_store(url, environment=environment)) as store:
        assert store.last_step() is None
    with pytest.raises(StoreError, match="needs the variable PASSWORD in the environment"):
        open_store(url, environment={"NAME": "postgres"})


@pytest.mark.parametrize("url", ["", "gateway.db", "mysql://u:s3cret@h/db", "sqlite:gateway.db"])
def test_what_is_no_store(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert str(caught.value) == "expected sqlite:///path or postgresql://user@host/database"


def test_without_psycopg_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("gateway.store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install 'ab-gateway\[postgres\]'"):
        open_store("postgresql://db/ab", clock=FakeClock())
