"""Behind PgBouncer, each transaction on another connection: everything works, and a restart it hides is found out."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import psycopg
import pytest

from gateway.errors import StoreError
from gateway.events import decision_id
from gateway.spool.format import Position
from gateway.store.base import FoldStep, StreamCursor
from gateway.store.postgres.store import PostgresStore
from tests.postgres import PostgresServer, free_port
from tests.unit.store.conftest import Nodes
from tests.unit.store.made import REQUESTS, SECOND, assignment, completion, outcome, vote


@pytest.fixture
def pooled(postgres: PostgresServer, migrated: str) -> Iterator[str]:
    """The URL of a database behind a pooler that has two connections to it, and gives them out by transaction."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        pytest.skip("no PgBouncer here: apt-get install pgbouncer")
    port = free_port()
    settings = postgres.folder / f"pgbouncer-{port}.ini"
    settings.write_text(
        f"[databases]\n* = host={postgres.folder} port={postgres.port} user=postgres\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n"
        "default_pool_size = 2\nmax_client_conn = 50\nserver_round_robin = 1\n"
    )
    process = subprocess.Popen([program, settings], stderr=subprocess.DEVNULL, **postgres.as_somebody)
    url = postgres.tcp_dsn(postgres.create(migrated), port)
    try:
        deadline = time.monotonic() + 20
        while not answers(url):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    with suppress(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=5, prepare_threshold=None).close()
        return True
    return False


def test_nodes_ship_fold_and_lead_through_a_pooler(pooled: str) -> None:
    with closing(Nodes(pooled)) as nodes:
        stores = [nodes.join(id) for id in "abcd"]
        for number, store in enumerate(stores):
            with store.transaction():
                store.note_through(100)
                store.add_assignments(0, [assignment(number, at=5)])
                store.add_completions(0, [completion(number, at=6)])
                store.add_outcomes(0, [outcome(number, 0.5, at=7)])
        a, b, *_ = stores
        assert a.lead(60).holder == 1
        assert b.lead(60).holder == 1
        with a.transaction(leading=True):
            b.append_ledger(1, 1, "rank", "exp", "start", {})
            a.add_votes([vote(number, at=5) for number in range(1, 4)])
            rows = a.outcome_values("exp", "brier", [("brier", "first")], 0, SECOND)
            assert next(rows).value == 0.5
            assert len(a.assignments_after(0, decision_id(2, 0))) == 4
            assert [row.value for row in rows] == [0.5, 0.5]
            a.add_step(FoldStep(1, 1, 1, "{}"))
        assert [store.last_step() for store in stores] == [FoldStep(1, 1, 1, "{}")] * 4


def test_a_database_is_set_up_through_a_pooler(pooled: str, postgres: PostgresServer) -> None:
    database = postgres.create()
    url = pooled.rpartition("/")[0] + "/" + database
    with closing(PostgresStore(url)) as store:
        assert store.last_step() is None


def test_a_crash_that_the_pooler_hides_is_found_out(pooled: str) -> None:
    """The connection to the pooler stays; what the server had committed last is gone."""
    with closing(Nodes(pooled)) as nodes:
        store = nodes.join("a")
        for through in (100, 200):
            with store.transaction():
                store.note_through(through)
                store.save_stream(REQUESTS, at(through - 100), StreamCursor(Position(0, through)))
        nodes.execute('UPDATE node SET through = 100, shipments = 1; UPDATE stream SET "offset" = 100')

        def ship() -> None:
            store.note_through(300)
            store.save_stream(REQUESTS, at(200), StreamCursor(Position(0, 300)))

        with pytest.raises(StoreError), store.transaction():
            ship()
        store.recover()
        assert store.streams() == {REQUESTS: StreamCursor(Position(0, 100))}


def at(offset: int) -> StreamCursor | None:
    return StreamCursor(Position(0, offset)) if offset else None
