"""A connection that breaks, a server that restarts, stops or says nothing: told in one line, bounded, and got over."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import pairwise

import pytest

from gateway.clock import FakeClock, SystemClock
from gateway.errors import StoreError, StoreUnavailable
from gateway.events import decision_id
from gateway.store.base import FoldStep
from gateway.store.postgres.session import Session
from gateway.store.postgres.store import PostgresStore
from tests.postgres import PostgresServer
from tests.unit.store.conftest import Nodes
from tests.unit.store.made import assignment


@pytest.fixture(scope="module")
def server(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """Another server, which may be stopped. `postgres` is there to skip where none is installed."""
    with PostgresServer() as another:
        yield another
        another.start()


def backend(store: PostgresStore) -> int:
    return store._session.db.info.backend_pid


def killed(nodes: Nodes, store: PostgresStore) -> None:
    nodes.execute(f"SELECT pg_terminate_backend({backend(store)}, 5000)")


def test_a_backend_that_is_killed_in_mid_transaction_loses_it_whole(nodes: Nodes) -> None:
    store = nodes.open()
    store.add_step(FoldStep(1, 1, 1, "{}"))

    def half() -> None:
        store.add_assignments(1, [assignment(1)])
        killed(nodes, store)
        store.add_step(FoldStep(2, 2, 2, "{}"))

    with pytest.raises(StoreUnavailable, match="terminating connection due to administrator command"):  # noqa: SIM117
        with store.transaction():
            half()
    assert store.last_step() == FoldStep(1, 1, 1, "{}"), "reading goes on"
    with pytest.raises(StoreUnavailable, match="must be started over"), store.transaction():
        pass
    store.recover()
    with store.transaction():
        store.add_assignments(1, [assignment(1)])
        store.add_step(FoldStep(2, 2, 2, "{}"))
    assert len(store.assignments_after(0, decision_id(2, 0))) == 1


def test_a_backend_that_is_killed_between_two_transactions_is_noticed(nodes: Nodes) -> None:
    """What was committed last may be gone with it, so who writes must look."""
    store = nodes.open()
    store.add_step(FoldStep(1, 1, 1, "{}"))
    killed(nodes, store)
    with pytest.raises(StoreUnavailable), store.transaction():
        pass
    with pytest.raises(StoreUnavailable), store.transaction():
        pass
    store.recover()
    with store.transaction():
        store.add_step(FoldStep(2, 2, 2, "{}"))


def test_an_error_that_was_passed_over_is_not_committed(nodes: Nodes) -> None:
    store = nodes.open()

    def careless() -> None:
        store.save_cursor("exp", "brier", 1)
        with pytest.raises(StoreError):
            store.write("SELECT nothing FROM nowhere")

    with pytest.raises(StoreError, match="a failed transaction was to be committed"), store.transaction():
        careless()
    assert store.cursors("exp") == {}
    with pytest.raises(StoreError, match="within a transaction"), store.transaction(), store.transaction():
        pass
    with store.transaction():
        pass


def test_errors_are_one_line_with_the_place(nodes: Nodes) -> None:
    store = nodes.open()
    with pytest.raises(StoreError) as caught:
        store.write("INSERT INTO cursor VALUES ('exp', 'brier', 'four\nfive')")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("postgresql://")
    assert 'invalid input syntax for type bigint: "four' in message


def test_a_server_that_is_away_is_asked_for_with_pauses(server: PostgresServer) -> None:
    clock = FakeClock()
    with closing(Session(server.dsn(), clock, jitter=lambda: 0.5)) as session:
        server.stop()
        refused = []
        for _ in range(400):
            clock.advance(0.05)
            with pytest.raises(StoreUnavailable) as caught:
                session.db  # noqa: B018
            refused.append(caught.value)
        tries = [number * 0.05 for number, error in enumerate(refused) if error.__cause__ is not None]
        pauses = [after - before for before, after in pairwise(tries)]
        assert pauses == pytest.approx([0.25, 0.5, 1, 2, 4, 5, 5], abs=0.06)
        assert all(str(error).startswith(str(refused[0])) for error in refused), "also between two tries it says why"
        assert str(refused[1]) == f"{refused[0]}; it is asked again in 0.2 s"
        assert "\n" not in str(refused[1])
        server.start()
        clock.advance(5)
        assert session.db.execute("SELECT 1").fetchone() == (1,)


def test_not_everybody_comes_back_at_the_same_moment(server: PostgresServer) -> None:
    pauses = []
    server.stop()
    for jitter in (0.0, 0.25, 0.999):
        clock = FakeClock()
        with closing(Session(server.dsn(), clock, jitter=partial(float, jitter))) as session:
            with pytest.raises(StoreUnavailable):
                session.db  # noqa: B018
            with pytest.raises(StoreUnavailable) as caught:
                session.db  # noqa: B018
        pauses.append(str(caught.value).partition("again in ")[2])
    assert pauses == ["0.1 s", "0.2 s", "0.4 s"]
    server.start()


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_store_outlives_its_server(server: PostgresServer, how: str) -> None:
    with closing(PostgresStore(server.dsn(server.create()))) as store:
        with store.transaction(durable=True):
            store.add_step(FoldStep(1, 1, 1, "{}"))
        server.stop(how)  # type: ignore[arg-type]
        with pytest.raises(StoreUnavailable), store.transaction():
            pass
        with pytest.raises(StoreUnavailable):
            store.recover()
        server.start()
        deadline = time.monotonic() + 30
        while True:
            try:
                store.recover()
                break
            except StoreUnavailable:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        assert store.last_step() == FoldStep(1, 1, 1, "{}")
        with store.transaction():
            store.add_step(FoldStep(2, 2, 2, "{}"))


def test_a_store_that_is_away_when_it_is_opened_is_used_when_it_comes(server: PostgresServer) -> None:
    database = server.create()
    server.stop()
    clock = FakeClock()
    with closing(PostgresStore(server.dsn(database), clock=clock)) as store:
        with pytest.raises(StoreUnavailable):
            store.last_step()
        server.start()
        clock.advance(10)
        assert store.last_step() is None


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(server: PostgresServer) -> None:
    with closing(Session(server.dsn(), SystemClock(), deadline=0.3)) as session:
        pid = session.db.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(Exception) as caught:  # noqa: PT011
                session.db.execute("SELECT 1")
            assert isinstance(session.failed(caught.value), StoreUnavailable)  # type: ignore[arg-type]
        finally:
            os.kill(pid, signal.SIGCONT)
        assert session.db.execute("SELECT 1").fetchone() == (1,), "by another connection"


def test_a_host_that_takes_no_connection_is_given_up_soon() -> None:
    """It listens, but nobody accepts what comes, as behind a firewall that drops packets."""
    with full_listener() as port:
        began = time.monotonic()
        with closing(PostgresStore(f"postgresql://u@127.0.0.1:{port}/db")) as store:
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                store.last_step()
            assert time.monotonic() - began < 6
            with pytest.raises(StoreUnavailable, match="cannot be reached: ") as caught:
                store.last_step()
            assert caught.value.__cause__ is None, "it is not tried again at once"


@contextmanager
def full_listener() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            yield port


def test_a_server_that_takes_no_writes_is_left_for_one_that_does(nodes: Nodes) -> None:
    """After a failover the same name leads to a standby for a while."""
    store = nodes.open()
    store.last_step()
    first = backend(store)

    def write() -> None:
        store.write("SET LOCAL transaction_read_only = on")
        store.save_cursor("exp", "brier", 1)

    with pytest.raises(StoreUnavailable, match="read-only transaction"), store.transaction():
        write()
    store.recover()
    assert backend(store) != first


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret@127.0.0.1:1/db",
        "postgresql://u:s3cret@127.0.0.1:1/db?application_name=x",
        "postgresql://u:s3cret%zz@127.0.0.1:1/db",
        "postgresql://u:s3cret@127.0.0.1:1/db?s3cret=1",
        "postgresql://u:p/s3cret@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?user=u&password=s3cret",
    ],
)
def test_no_message_holds_the_password(url: str) -> None:
    with pytest.raises(StoreError) as caught:  # noqa: PT012
        store = PostgresStore(url)
        with closing(store):
            store.last_step()
    error: BaseException | None = caught.value
    assert "s3cret" not in str(error)
    assert "\n" not in str(error)


def test_nothing_of_a_session_outlives_a_transaction(nodes: Nodes) -> None:
    """So a pooler may give each transaction to another connection."""
    store = nodes.join("a")
    usual = settings(store)
    store.lead(60)
    with store.transaction(leading=True):
        store.add_assignments(0, [assignment(1)])
        store.add_step(FoldStep(1, 1, 1, "{}"))
        list(store.steps())
        store.append_ledger(1, 1, "rank", "exp", "hold", {})
    store.ledger()
    assert settings(store) == usual
    db = store._session.db
    assert db.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
    assert db.execute("SELECT count(*) FROM pg_cursors").fetchone() == (0,)
    assert db.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)
    assert db.execute("SELECT count(*) FROM pg_listening_channels()").fetchone() == (0,)


def settings(store: PostgresStore) -> list[tuple[str, str]]:
    return store._session.db.execute("SELECT name, setting FROM pg_settings ORDER BY name").fetchall()


def test_who_only_looks_changes_nothing(nodes: Nodes) -> None:
    nodes.open().add_step(FoldStep(1, 1, 1, "{}"))
    with closing(PostgresStore(nodes.url, read_only=True)) as reader:
        assert reader.last_step() == FoldStep(1, 1, 1, "{}")
        with pytest.raises(StoreError, match="read-only"):
            reader.save_cursor("exp", "brier", 1)
        with pytest.raises(StoreError, match="read-only"), reader.transaction():
            reader.add_step(FoldStep(2, 2, 2, "{}"))
        with reader.transaction():
            assert list(reader.steps()) == [FoldStep(1, 1, 1, "{}")]
            nodes.open().add_step(FoldStep(2, 2, 2, "{}"))
            assert len(list(reader.steps())) == 1, "one moment of the store"
        assert len(list(reader.steps())) == 2
