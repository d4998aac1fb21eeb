"""Several nodes on one database: nothing is given out or counted twice, and nobody waits for who is lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import msgspec
import pytest

from gateway.errors import StoreError
from gateway.events import Shadow, decision_id
from gateway.spool.format import Position
from gateway.store.base import FoldStep, Lag, PlanRow, StreamCursor
from gateway.store.cluster import NODE_BITS, SPOOLS
from gateway.store.postgres.dialect import translated
from gateway.store.postgres.store import PostgresStore
from tests.unit.store.conftest import Nodes
from tests.unit.store.made import REQUESTS, assignment, completion, outcome, vote

T = TypeVar("T")
DAY = 86_400_000_000


def at_once(*works: Callable[[], T]) -> list[T]:
    """Run on threads of their own, all beginning at the same moment."""
    barrier = Barrier(len(works))

    def run(work: Callable[[], T]) -> T:
        barrier.wait(10)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


# ---------------------------------------------------------------------- joining


def test_a_node_has_the_same_number_whenever_it_joins(nodes: Nodes) -> None:
    assert [nodes.join(id).node for id in ("a", "b", "a", "c", "b")] == [1, 2, 1, 3, 2]


def test_nodes_that_join_at_once_get_different_numbers(nodes: Nodes) -> None:
    stores = [nodes.open() for _ in range(6)]
    numbers = at_once(*(lambda store=store, id=id: store.join(f"n{id}", "", "keys") for id, store in enumerate(stores)))
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]


def test_nodes_know_of_each_other(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    a.report("a:9", "digest", 7 << NODE_BITS | 1, "a spool is damaged")
    nodes.execute("UPDATE node SET reported_at = reported_at - interval '90 seconds' WHERE number = 2")
    first, second = b.nodes()
    assert first[:8] == (1, "a", "a:9", 0, 0, "digest", 7 << NODE_BITS | 1, "a spool is damaged")
    assert 0 <= first.silent < 30
    assert second[:8] == (2, "b", "b:8081", 0, 0, "", 0, "")
    assert 90 <= second.silent < 120


def test_all_nodes_need_the_same_keys(nodes: Nodes) -> None:
    nodes.join("a", keys="one")
    with pytest.raises(StoreError, match=r"node 1 \(a:8081\) has other keys"):
        nodes.join("b", keys="two")
    assert nodes.join("b", keys="one").node == 2


def test_keys_may_change_when_nobody_else_is_there(nodes: Nodes) -> None:
    a = nodes.join("a", keys="one")
    nodes.join("b", keys="one")
    a.forget(2)
    assert nodes.join("a", keys="two").node == 1
    with pytest.raises(StoreError, match="other keys"):
        nodes.join("b", keys="one")


def test_a_node_that_left_is_not_waited_for_until_it_comes_back(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    with b.transaction():
        b.note_through(50)
    b.forget(b.node)
    assert [node.id for node in a.nodes()] == ["a"]
    for word in (lambda: b.report("", "", 0, ""), lambda: b.note_through(60)):
        with pytest.raises(StoreError, match="node 2 was forgotten: it must join anew"):
            word()
    a.add_step(FoldStep(1, 900, 800, "{}"))
    again = nodes.join("b")
    assert again.node == 2
    assert [node.through for node in a.nodes()] == [0, 800]
    with again.transaction():
        assert again.note_through(900) == 800, "others have gone on without it"


def test_whoever_joins_begins_where_the_others_are(nodes: Nodes) -> None:
    nodes.join("a").add_step(FoldStep(1, 900, 800, "{}"))
    late = nodes.join("b")
    with late.transaction():
        assert late.note_through(850) == 800


def test_whoever_joins_while_a_leader_folds_is_behind_what_that_comes_to(nodes: Nodes) -> None:
    """The leader did not see it; it may not bring anything from before the watermark of the leader's step."""
    a, b = nodes.join("a"), nodes.open()
    a.lead(60)
    with ThreadPoolExecutor(1) as pool:
        with a.transaction(leading=True):
            assert len(a.nodes()) == 1
            joining = pool.submit(b.join, "b", "", "keys")
            with pytest.raises(TimeoutError):
                joining.result(0.3)
            a.add_step(FoldStep(1, 900, 800, "{}"))
        joining.result(10)
    assert [node.through for node in a.nodes()] == [0, 800]


# ---------------------------------------------------------------------- giving out


def test_no_two_nodes_get_the_same_spools(nodes: Nodes) -> None:
    stores = [nodes.join(id) for id in "abcd"]
    blocks = at_once(*(lambda store=store: [store.claim_spools() for _ in range(5)] for store in stores))
    firsts = sorted(first for block in blocks for first in block)
    assert firsts == list(range(1, 1 + 20 * SPOOLS, SPOOLS))


def test_spools_that_came_from_elsewhere_are_not_given_out(nodes: Nodes) -> None:
    a = nodes.join("a")
    nodes.execute("INSERT INTO stream VALUES (500, 'requests', 0, 0, 0, 1, '')")
    assert a.claim_spools() == 501
    assert a.claim_spools() == 501 + SPOOLS


def test_no_two_plans_have_the_same_revision(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    mine = a.next_revision(0)
    assert mine == 1 << NODE_BITS | 1
    assert b.next_revision(0) == 1 << NODE_BITS | 2
    a.add_plan(PlanRow(mine, 5, 0, "digest", "{}"))
    assert b.next_revision(0) == 2 << NODE_BITS | 2
    assert a.next_revision(9 << NODE_BITS) == 10 << NODE_BITS | 1


# ---------------------------------------------------------------------- shipping


def test_a_node_that_was_not_given_up_is_late_only_behind_what_it_has_declared_itself(nodes: Nodes) -> None:
    a = nodes.join("a")
    with a.transaction():
        assert a.note_through(100) == 0
    with a.transaction():
        assert a.note_through(70) == 100
    assert a.nodes()[0].through == 100, "a time that was reached stays"


def test_a_node_that_was_given_up_is_told_from_where_on_its_facts_are_late(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    a.lead(60)
    with b.transaction():
        b.note_through(100)
    with a.transaction(leading=True):
        a.give_up(b.node, 500)
    with a.transaction(leading=True):
        a.give_up(b.node, 400)
    with b.transaction():
        assert b.note_through(450) == 500
    with b.transaction():
        assert b.note_through(600) == 500


def test_a_node_that_says_something_is_not_given_up_at_that_moment(nodes: Nodes) -> None:
    """The leader has looked; then the node ships; the leader must look again."""
    a, b = nodes.join("a"), nodes.join("b")
    a.lead(60)

    def meanwhile() -> None:
        assert a.nodes()[1].through == 0
        with b.transaction():
            b.note_through(100)
        a.give_up(b.node, 500)

    with pytest.raises(StoreError, match="could not serialize"), a.transaction(leading=True):
        meanwhile()
    with b.transaction():
        assert b.note_through(200) == 100


def test_a_node_waits_until_the_leader_has_given_it_up_or_has_not(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    a.lead(60)
    with ThreadPoolExecutor(1) as pool:
        with a.transaction(leading=True):
            a.give_up(b.node, 500)

            def ship() -> int:
                with b.transaction():
                    return b.note_through(100)

            shipping = pool.submit(ship)
            with pytest.raises(TimeoutError):
                shipping.result(0.3)
        assert shipping.result(10) == 500


def test_a_node_that_was_given_up_is_late_behind_whatever_was_folded_since(nodes: Nodes) -> None:
    """The leader goes on without a word to it, and may be about to go on further."""
    a, b = nodes.join("a"), nodes.join("b")
    a.lead(60)
    with b.transaction():
        b.note_through(100)
    with a.transaction(leading=True):
        a.give_up(b.node, 500)
        a.add_step(FoldStep(1, 900, 500, "{}"))
    with ThreadPoolExecutor(1) as pool:
        with a.transaction(leading=True):
            a.add_step(FoldStep(2, 900, 700, "{}"))

            def ship(through: int) -> int:
                with b.transaction():
                    return b.note_through(through)

            shipping = pool.submit(ship, 650)
            with pytest.raises(TimeoutError):
                shipping.result(0.3)
        assert shipping.result(10) == 700
    assert ship(900) == 650, "now it is waited for again"


def test_a_leader_that_waited_for_a_node_to_come_back_has_it_in_view(nodes: Nodes) -> None:
    """Its view of the store would be of the moment at which it began to wait."""
    a, b = nodes.join("a"), nodes.join("b")
    a.lead(60)
    with a.transaction(leading=True):
        a.give_up(b.node, 500)

    def look() -> list[int]:
        with a.transaction(leading=True):
            return [node.through for node in a.nodes()]

    with ThreadPoolExecutor(1) as pool:
        with b.transaction():
            b.note_through(650)
            looking = pool.submit(look)
            with pytest.raises(TimeoutError):
                looking.result(0.3)
        assert looking.result(10) == [0, 650]
    assert a.lead(60)[:2] == (1, 1), "it leads as before"


def test_what_a_crash_has_undone_is_not_gone_on_from(nodes: Nodes) -> None:
    """Shipments wait for no disk: a server that crashes has lost the last of them, and a pooler hides that it did."""
    a = nodes.join("a")
    for through in (100, 200):
        with a.transaction():
            a.note_through(through)
    nodes.execute("UPDATE node SET through = 100, shipments = 1")
    with pytest.raises(StoreError, match="must start over"), a.transaction():
        a.note_through(300)
    a.recover()
    with a.transaction():
        assert a.note_through(300) == 100


def test_a_shipment_that_was_rolled_back_was_none(nodes: Nodes) -> None:
    a = nodes.join("a")
    with pytest.raises(ZeroDivisionError), a.transaction():
        raise ZeroDivisionError(a.note_through(100))
    with a.transaction():
        assert a.note_through(100) == 0


def test_the_same_outcome_at_two_nodes_at_once_is_one(nodes: Nodes) -> None:
    stores = [nodes.join(id) for id in "abc"]
    stores[0].add_outcomes(0, [outcome(9999, 0.5)])  # the day is there already
    facts = [outcome(number % 40, float(number // 40), id=str(number % 40)) for number in range(1000)]

    def ship(store: PostgresStore) -> int:
        repeated = 0
        for begin in range(0, 1000, 100):
            with store.transaction():
                repeated += len(store.add_outcomes(0, facts[begin : begin + 100]))
        return repeated

    repeated = at_once(*(lambda store=store: ship(store) for store in stores))
    assert 3 * 1000 - sum(repeated) == 40
    assert stores[0].row("SELECT count(*) FROM outcome")[0] == 40 + 1


def test_nodes_that_write_the_same_in_other_orders_do_not_end_in_a_deadlock(nodes: Nodes) -> None:
    stores = [nodes.join(id) for id in "ab"]
    stores[0].add_outcomes(0, [outcome(9999, 0.5)])  # the day is there already
    facts = [outcome(number, 0.5) for number in range(8000)]

    def ship(store: PostgresStore) -> int:
        with store.transaction():
            return len(store.add_outcomes(0, facts if store.node == 1 else facts[::-1]))

    assert sum(at_once(*(lambda store=store: ship(store) for store in stores))) == 8000


def test_conflicting_values_at_two_nodes_keep_the_one_that_was_first(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    mine, other = outcome(1, 0.25), outcome(1, 0.75)
    with ThreadPoolExecutor(1) as pool:
        with a.transaction():
            a.add_outcomes(0, [mine])

            def ship() -> Sequence[object]:
                with b.transaction():
                    return b.add_outcomes(0, [other])

            second = pool.submit(ship)
        assert second.result(10) == [(other, 0.25)]


def test_what_nodes_count_is_added_up(nodes: Nodes) -> None:
    lag = Lag("exp", "b", "brier", 3)
    for store in (nodes.join("a"), nodes.join("b")):
        with store.transaction():
            store.count("exp", "b", "late", 2)
            store.count_lags({lag: 3})
    assert store.counters("exp") == {("b", "late"): 4}
    assert store.lags("exp") == {lag: 6}
    assert store.rows("SELECT node, value FROM counter ORDER BY node") == [(1, 2), (2, 2)]


def test_a_batch_is_in_once_whoever_ships_it_again(nodes: Nodes) -> None:
    a = nodes.join("a")
    twin = nodes.join("a")  # the same node, once more: it was thought dead

    def ship(store: PostgresStore) -> None:
        with store.transaction():
            store.add_late([assignment(1)])
            store.save_stream(REQUESTS, None, StreamCursor(Position(0, 9)))

    ship(a)
    with pytest.raises(StoreError, match="another place"):
        ship(twin)
    assert a.row("SELECT count(*) FROM late_fact") == (1,)


# ---------------------------------------------------------------------- days


def test_nodes_that_need_a_new_day_at_once_make_it_once(nodes: Nodes) -> None:
    stores = [nodes.join(id) for id in "abcd"]

    def ship(store: PostgresStore, number: int) -> None:
        for day in range(5):
            with store.transaction():
                store.add_assignments(0, [assignment(number * 10 + day, at=day * DAY)])

    at_once(*(lambda store=store, number=number: ship(store, number) for number, store in enumerate(stores)))
    assert stores[0].days() == [0, 1, 2, 3, 4, 5]
    assert len(stores[0].assignments_after(0, decision_id(2, 0))) == 20


@pytest.mark.parametrize("at", [-5, 0, 2**62 - 1])
def test_a_time_that_cannot_be_stops_nobody(nodes: Nodes, at: int) -> None:
    a = nodes.join("a")
    with a.transaction():
        a.add_assignments(0, [assignment(1, at=at)])
        a.add_outcomes(0, [msgspec.structs.replace(outcome(1, 0.5, at=at), assigned_at=at)])
    assert a.assignments_after(0, decision_id(2, 0)) == [assignment(1, at=at)]


def test_a_day_of_a_transaction_that_was_lost_is_made_again(nodes: Nodes) -> None:
    a = nodes.join("a")

    def lost() -> None:
        a.add_assignments(0, [assignment(1)])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), a.transaction():
        lost()
    assert a.days() == []
    with a.transaction():
        a.add_assignments(0, [assignment(1)])
    assert a.days() == [0, 1]


@pytest.mark.parametrize("read", ["request_errors", "scored_values", "outcome_values", "exposures"])
def test_only_the_day_of_a_request_is_looked_at(nodes: Nodes, monkeypatch: pytest.MonkeyPatch, read: str) -> None:
    a = nodes.join("a")
    with a.transaction():
        a.add_assignments(0, [assignment(day, at=day * DAY) for day in range(1, 6)])
        a.add_completions(0, [completion(day, at=day * DAY) for day in range(1, 6)])
        a.add_shadows(0, [Shadow(decision_id(1, day), day * DAY, "b", 5) for day in range(1, 6)])
        a.add_outcomes(0, [outcome(day, 0.5, at=day * DAY) for day in range(1, 6)])
        a.add_votes([vote(1, at=3 * DAY)])
    plans: list[str] = []

    def explained(sql: str, parameters: object = ()) -> list[object]:
        db = a._session.db
        found = db.execute(f"EXPLAIN (ANALYZE, COSTS OFF) {translated(sql)}", parameters)  # type: ignore[call-overload]
        plans.append("\n".join(line for (line,) in found if "never executed" not in line))
        return []

    with a.transaction():
        a._execute("SET LOCAL enable_seqscan = off", ())
        with monkeypatch.context() as patched:
            patched.setattr(a, "rows", explained)
            patched.setattr(a, "stream", explained)
            if read == "exposures":
                a.exposures([decision_id(1, 3)], [3 * DAY])
            elif read == "outcome_values":
                a.outcome_values("exp", "brier", [("brier", "first")], 0, DAY)
            else:
                getattr(a, read)("exp", "errors", 0, DAY)
    assert set(re.findall(r"(?:assignment|completion|shadow|outcome)_(\d{8})", plans[0])) == {"19700104"}


def test_a_day_is_dropped_with_everything_that_is_of_it(nodes: Nodes) -> None:
    a = nodes.join("a")
    with a.transaction():
        a.add_assignments(0, [assignment(day, at=day * DAY) for day in range(1, 4)])
        a.add_outcomes(0, [msgspec.structs.replace(outcome(1, 0.5, at=9 * DAY), assigned_at=DAY)])
    assert a.first_day() == 1
    assert a.drop_day(1, 1000) > 0
    assert a.drop_day(1, 1000) == 0
    assert a.days() == [2, 3, 4]
    assert a.rows("SELECT * FROM outcome") == []
    with a.transaction():
        a.add_assignments(0, [assignment(9, at=DAY)])
    assert a.first_day() == 1, "what comes later all the same has a place"


def test_a_day_that_somebody_reads_stays_and_nobody_waits(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    with a.transaction():
        a.add_assignments(0, [assignment(1, at=DAY)])
    with b.transaction():
        assert len(b.assignments_after(0, decision_id(2, 0))) == 1
        assert a.drop_day(1, 1000) > 0
        assert a.drop_day(1, 1000) == 1
        with a.transaction():
            a.add_assignments(0, [assignment(2, at=DAY)])
    assert a.first_day() == 1
    a._drop_at = 0.0
    while a.drop_day(1, 1000):
        pass
    assert a.first_day() != 1


# ---------------------------------------------------------------------- the ledger


def test_however_many_write_the_ledger_it_is_one_chain(nodes: Nodes) -> None:
    stores = [nodes.join(id) for id in "abcd"]

    def write(store: PostgresStore) -> None:
        for number in range(25):
            store.append_ledger(number, 1, "rank", "exp", "hold", {"node": store.node, "n": number})

    at_once(*(lambda store=store: write(store) for store in stores))
    rows = stores[0].ledger(limit=1000)
    assert [row.id for row in rows] == list(range(1, 101))
    assert stores[0].broken_link() is None
    assert {(row.body["node"], row.body["n"]) for row in rows} == {(n, k) for n in range(1, 5) for k in range(25)}


def test_a_leader_whose_view_is_too_old_for_the_ledger_writes_nothing(nodes: Nodes) -> None:
    a, b = nodes.join("a"), nodes.join("b")
    a.lead(60)

    def decide() -> None:
        assert a.ledger() == []
        b.append_ledger(1, 1, "rank", "exp", "hold", {})
        a.save_release("rank", 0, "{}")
        a.append_ledger(2, 1, "rank", "exp", "promote", {})

    with pytest.raises(StoreError), a.transaction(leading=True):
        decide()
    assert [row.kind for row in a.ledger()] == ["hold"]
    assert a.releases() == {}
    assert a.broken_link() is None


def test_two_that_decide_on_the_same_state_decide_once(nodes: Nodes) -> None:
    stores = [nodes.join(id) for id in "abc"]
    stores[0].save_release("rank", 0, "one")

    def decide(store: PostgresStore) -> bool:
        try:
            with store.transaction(durable=True):
                store.save_release("rank", 1, str(store.node))
                store.append_ledger(1, 1, "rank", "exp", "promote", {})
        except StoreError:
            return False
        return True

    assert sorted(at_once(*(lambda store=store: decide(store) for store in stores))) == [False, False, True]
    assert len(stores[0].ledger()) == 1
