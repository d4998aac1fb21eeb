"""Who leads: one at a time, by the clock of the database, and never somebody who was stopped and wakes up."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from gateway.errors import LeaseLost, StoreError, StoreUnavailable
from gateway.store.base import FoldStep
from gateway.store.postgres.store import PostgresStore
from tests.unit.store.conftest import Nodes

RUN_OUT = "UPDATE lease SET until = clock_timestamp() - interval '1 second'"
STEP = FoldStep(1, 1, 1, "{}")


def test_nodes_lead_by_turns_and_the_epoch_grows_with_each(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    assert a.lead(60)[:2] == (1, 1)
    assert a.lead(60)[:2] == (1, 1), "extended"
    assert b.lead(60)[:2] == (1, 1), "it is another's"
    nodes.execute(RUN_OUT)
    assert b.lead(60)[:2] == (2, 2)
    assert a.lead(60)[:2] == (2, 2)
    a.resign()
    assert a.lead(60)[:2] == (2, 2), "only who leads can resign"
    b.resign()
    assert a.lead(60)[:2] == (1, 3)


def test_a_lease_lasts_as_long_as_it_was_asked_for(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    assert 58 < a.lead(60).seconds <= 60
    assert 58 < b.lead(5).seconds <= 60
    assert 4 < a.lead(5).seconds <= 5


def test_whoever_let_its_own_lease_run_out_leads_under_a_new_epoch(nodes: Nodes) -> None:
    a = nodes.join("a")
    a.lead(60)
    nodes.execute(RUN_OUT)
    assert a.lead(60)[:2] == (1, 2)


def test_a_node_that_was_started_again_need_not_wait_for_its_lease_and_its_former_self_is_out(nodes: Nodes) -> None:
    former = nodes.join("a")
    former.lead(60)
    again = nodes.join("a")
    assert again.lead(60)[:2] == (1, 2)
    with pytest.raises(LeaseLost), former.transaction(leading=True):
        pass


def test_only_the_holder_writes_as_the_leader(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    with pytest.raises(LeaseLost), a.transaction(leading=True):
        pass
    a.lead(60)
    b.lead(60)
    with a.transaction(leading=True):
        a.add_step(STEP)
    with pytest.raises(LeaseLost), b.transaction(leading=True):
        b.add_step(FoldStep(2, 1, 1, "{}"))
    assert b.last_step() == STEP


def test_a_leader_that_was_overtaken_writes_nothing(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    a.lead(60)
    nodes.execute(RUN_OUT)
    b.lead(60)
    with pytest.raises(LeaseLost), a.transaction(leading=True):
        a.add_step(STEP)
    assert a.last_step() is None
    with pytest.raises(LeaseLost, match="does not lead any more"), a.transaction(leading=True):
        pass
    with a.transaction():
        a.save_cursor("exp", "brier", 1)


def test_nobody_takes_over_in_the_midst_of_a_leading_transaction(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    a.lead(0)
    with a.transaction(leading=True):
        began = time.monotonic()
        assert b.lead(60)[:2] == (1, 1)
        assert time.monotonic() - began < 2, "who would lead is not kept waiting"
        a.add_step(STEP)
    assert b.lead(60)[:2] == (2, 2)
    assert b.last_step() == STEP


def test_a_leader_sees_one_moment_of_the_store(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    a.lead(60)
    with a.transaction(leading=True):
        assert a.streams() == {}
        b.save_cursor("exp", "brier", 5)
        assert a.cursors("exp") == {}
    assert a.cursors("exp") == {"brier": 5}


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "too late"
        time.sleep(0.02)


def leads(store: PostgresStore) -> bool:
    return store.lead(60).holder == store.node


def test_a_leader_that_is_stopped_in_mid_transaction_loses_its_lock(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    a._settings = a._settings.replace("session_timeout = '5s'", "session_timeout = '200ms'")
    a.lead(0)

    def stopped() -> None:
        a.add_step(STEP)
        until(lambda: leads(b), 10)
        a.add_votes([])
        a.save_cursor("exp", "brier", 1)

    with pytest.raises(StoreUnavailable, match="idle-in-transaction"), a.transaction(leading=True):
        stopped()
    assert b.last_step() is None
    a.recover()
    with pytest.raises(LeaseLost), a.transaction(leading=True):
        pass


def test_a_leader_that_is_stopped_while_it_reads_an_answer_loses_its_lock_too(nodes: Nodes) -> None:
    """The server cannot go on before the answer is read, and ends such a transaction for none of its timeouts."""
    a, b = nodes.join("a"), nodes.join("b")
    a.lead(-3600)

    def stopped() -> None:
        a.add_step(STEP)
        a._session.db.pgconn.send_query(b"SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")
        a._session.db.pgconn.flush()
        until(lambda: leads(b), 10)

    with pytest.raises(StoreError), a.transaction(leading=True):
        stopped()
    assert b.last_step() is None
