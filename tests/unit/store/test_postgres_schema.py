"""The schema in PostgreSQL: made once whoever comes first, refused where it is newer, the same tables as in SQLite."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store.postgres.migrating import SCHEMA_VERSION
from gateway.store.postgres.store import PostgresStore
from gateway.store.sqlite import SqliteStore
from tests.postgres import PostgresServer
from tests.unit.store.conftest import Nodes

OPEN = (
    "import sys\nfrom gateway.store.postgres.store import PostgresStore\n"
    "store = PostgresStore(sys.argv[1])\nprint('ready', flush=True)\nsys.stdin.readline()\n"
    "store.recover()\nprint(store.last_step())\nstore.close()"
)
OF_SEVERAL = {"node", "lease", "cluster", "gateway_schema"}  # tables of PostgreSQL alone
BY_DAY = {"assignment", "completion", "shadow", "outcome", "request", "exposure", "exposure_outcome"}


def test_processes_that_find_an_empty_database_at_once_make_one_schema(postgres: PostgresServer) -> None:
    url = postgres.dsn(postgres.create())
    command = [sys.executable, "-c", OPEN, url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    several = [subprocess.Popen(command, text=True, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    for process in several:
        assert process.stdout.readline() == "ready\n"
    for process in several:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60) for process in several] == [("None\n", "")] * 3


def test_a_migration_that_fails_leaves_nothing(postgres: PostgresServer) -> None:
    """A table of somebody else's has a name that is needed."""
    database = postgres.create()
    postgres.execute("CREATE TABLE ledger (theirs INTEGER)", database)
    with closing(PostgresStore(postgres.dsn(database))) as store, pytest.raises(StoreError, match=r"ledger.* exists$"):
        store.recover()
    with closing(Nodes(postgres.dsn(database))) as nodes:
        nodes.execute("DROP TABLE ledger")
        assert nodes.open().last_step() is None


def test_a_newer_schema_is_refused(nodes: Nodes) -> None:
    nodes.execute("UPDATE gateway_schema SET version = 99")
    with pytest.raises(StoreError, match=f"schema 99 is newer than this program's {SCHEMA_VERSION}$"):
        nodes.open().last_step()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("DROP TABLE gateway_schema", "there is no store in it: start the gateway once"),
        ("UPDATE gateway_schema SET version = 0", "there is no store in it"),
        ("UPDATE gateway_schema SET version = 99", f"its schema is 99, this program's {SCHEMA_VERSION}"),
    ],
)
def test_who_only_looks_makes_nothing(nodes: Nodes, change: str, why: str) -> None:
    nodes.execute(change)
    with closing(PostgresStore(nodes.url, read_only=True)) as reader, pytest.raises(StoreError, match=why):
        reader.last_step()


def test_both_engines_have_the_same_tables_and_columns(nodes: Nodes) -> None:
    """But for what only several nodes need, and the day by which PostgreSQL keeps facts."""
    with closing(SqliteStore(":memory:")) as sqlite:
        ours = {name: columns_of_sqlite(sqlite, name) for name in names_of_sqlite(sqlite)}
    rows = nodes.open().rows(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
        " AND table_name !~ '_[0-9]{8}$'"
    )
    theirs: dict[str, set[str]] = {}
    for table, column in rows:
        theirs.setdefault(table, set()).add(column)
    assert theirs.keys() - ours.keys() == OF_SEVERAL
    assert ours.keys() <= theirs.keys()
    for table, columns in ours.items():
        assert theirs[table] - columns == ({"day"} if table in BY_DAY else set()), table
        assert columns <= theirs[table], table


def names_of_sqlite(store: SqliteStore) -> list[str]:
    return [name for (name,) in store.rows("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]


def columns_of_sqlite(store: SqliteStore, table: str) -> set[str]:
    return {name for (name,) in store.rows("SELECT name FROM pragma_table_info(?)", (table,))}


def test_every_migration_is_counted() -> None:
    folder = Path(__file__).parents[3] / "gateway" / "store" / "migrations" / "postgres"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{number:04d}.sql" for number in range(1, SCHEMA_VERSION + 1)
    ]
