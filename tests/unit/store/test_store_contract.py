"""What every engine must do: all or nothing, first value wins, compare-and-set, an unbroken ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf

import pytest

from gateway.errors import StoreError
from gateway.events import Completion, Shadow, decision_id
from gateway.plan import Slot
from gateway.spool.format import Position
from gateway.store.base import (
    Exposure,
    FoldStep,
    KnownUnit,
    PlanRow,
    Store,
    StreamCursor,
    UnitKey,
)
from tests.unit.store.made import ELSE, REQUESTS, SECOND, UNIT, assignment, completion, outcome, vote


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.streams() == {}
    assert store.last_step() is None
    assert store.vote_count("exp") == 0
    assert store.cursors("exp") == {}
    assert store.evidence("exp") == {}
    assert store.counters("exp") == {}
    assert store.experiments() == {}
    assert store.releases() == {}
    assert store.ledger() == []
    assert store.last_plan() is None
    assert store.broken_link() is None


def test_a_transaction_rolls_back_whole(store: Store) -> None:
    def half() -> None:
        store.add_step(FoldStep(1, 2, 3, "{}"))
        store.save_stream(REQUESTS, None, StreamCursor(Position(0, 9)))
        store.add_assignments(1, [assignment(1)])
        store.save_units({UNIT: KnownUnit(1, 2, "3:b")})
        store.append_ledger(1, 1, "rank", "exp", "start", {})
        store.save_release("rank", 0, "{}")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), store.transaction():
        half()
    assert store.last_step() is None
    assert store.streams() == {}
    assert store.exposures([decision_id(1, 1)]) == {}
    assert store.ledger() == []
    assert store.releases() == {}
    assert store.known_units([UNIT]) == [None]


def test_a_store_error_in_a_transaction_leaves_the_store_usable(store: Store) -> None:
    step = FoldStep(1, 2, 3, "{}")

    def twice() -> None:
        store.add_step(step)
        store.add_step(step)

    with pytest.raises(StoreError), store.transaction():
        twice()
    with store.transaction(durable=True):
        store.add_step(FoldStep(1, 2, 3, "{}"))
    assert store.last_step() == FoldStep(1, 2, 3, "{}")


def test_what_was_committed_is_there_after_reopening(reopen: Callable[[], Store]) -> None:
    store = reopen()
    cursor = StreamCursor(Position(2, 99), 5, True, b"i" * 16)
    with store.transaction():
        store.save_stream(REQUESTS, None, StreamCursor(Position(2, 5)))
        store.save_stream(REQUESTS, StreamCursor(Position(2, 5)), cursor)
        store.add_assignments(1, [assignment(1, bucket=2**64 - 1), assignment(2)])
        store.save_cursor("exp", "brier", 4)
        store.save_evidence("exp", 1, {"cell": b"one", "tally": b"two"})
        store.save_evidence("exp", 2, {"cell": b"three"})
    store.close()
    other = reopen()
    assert other.streams() == {REQUESTS: cursor}
    assert other.assignments_after(decision_id(1, 0), decision_id(2, 0)) == [
        assignment(1, bucket=2**64 - 1),
        assignment(2),
    ]
    assert other.assignments_after(decision_id(1, 1), decision_id(1, 2)) == []
    assert other.cursors("exp") == {"brier": 4}
    assert other.evidence("exp") == {"cell": b"three", "tally": b"two"}
    other.close()


def test_what_a_lost_transaction_brought_comes_again_whole(reopen: Callable[[], Store]) -> None:
    """Nothing that the store remembers of it may stand for rows that are gone."""
    store = reopen()

    def lost() -> None:
        store.add_assignments(1, [assignment(1)])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), store.transaction():
        lost()
    with store.transaction():
        store.add_assignments(1, [assignment(1), assignment(2, variant="a")])
    store.close()
    other = reopen()
    with other.transaction():
        other.add_assignments(2, [assignment(3, variant="a")])
    found = other.assignments_after(decision_id(1, 0), decision_id(2, 0))
    assert found == [assignment(1), assignment(2, variant="a"), assignment(3, variant="a")]
    other.close()


def test_the_same_fact_twice_is_refused(store: Store) -> None:
    with store.transaction():
        store.add_assignments(1, [assignment(1)])
        store.add_completions(1, [completion(1)])
    with pytest.raises(StoreError), store.transaction():
        store.add_assignments(2, [assignment(1)])
    with pytest.raises(StoreError), store.transaction():
        store.add_completions(2, [completion(1)])


def test_the_first_value_of_an_outcome_id_stays(store: Store) -> None:
    first, again, conflict, other_id = outcome(1, 0.2), outcome(1, 0.2), outcome(1, 0.9), outcome(1, 0.4, id="second")
    with store.transaction():
        assert store.add_outcomes(1, [first, again, other_id]) == [(again, 0.2)]
        assert store.add_outcomes(2, [conflict, outcome(1, 0.9, metric="late")]) == [(conflict, 0.2)]
        assert store.add_outcomes(3, []) == []


def test_exposures_say_who_was_assigned_and_when(store: Store) -> None:
    with store.transaction():
        store.add_assignments(1, [assignment(1, at=5), assignment(2, at=6, variant="a")])
    found = store.exposures([decision_id(1, 1), decision_id(1, 2), decision_id(9, 9)])
    assert found == {decision_id(1, 1): Exposure("exp", "b", 5), decision_id(1, 2): Exposure("exp", "a", 6)}


def test_what_is_known_of_a_unit_is_kept_and_replaced(reopen: Callable[[], Store]) -> None:
    store = reopen()
    far, elsewhere = UnitKey("exp", 2**63, b"u" * 16), UnitKey("other", 2**63, b"u" * 16)
    with store.transaction():
        store.save_units({UNIT: KnownUnit(1, 5, "3:b"), far: KnownUnit(2, 6, None)})
        store.save_units({UNIT: KnownUnit(4, 9, "3:b|7:b")})
    store.close()
    other = reopen()
    expected = [KnownUnit(2, 6, None), None, KnownUnit(4, 9, "3:b|7:b"), None]
    assert other.known_units([far, elsewhere, UNIT, ELSE]) == expected
    other.close()


def test_request_values_follow_the_votes_and_the_deadline(store: Store) -> None:
    with store.transaction():
        store.add_votes([vote(number, at=100) for number in range(1, 7)])
        store.add_completions(
            1,
            [
                completion(1),
                completion(2, error="deadline"),
                completion(3, first_byte=2_000),
                completion(4, at=100 + SECOND),  # at the deadline is too late
                completion(6, first_byte=0, total=3_000),  # the client left before the first byte
            ],
        )
        plain = list(store.request_errors("exp", "errors", 0, SECOND))
        slow = list(store.request_latencies("exp", "latency", 1, SECOND))
    assert [row.value for row in plain] == [0.0, 1.0, 0.0, None, None, 0.0]
    assert tuple(plain[0]) == (1, 100, "s1", 1, "[0.9, 0.1]", '["EWR"]', "[1.5, -2.0]", 1, 0.0, None)
    assert [(row.ordinal, row.value) for row in slow] == [(2, inf), (3, 2_000.0), (4, None), (5, None), (6, 3_000.0)]
    assert store.vote_count("exp") == 6


def test_outcome_values_take_the_earliest_within_the_window(store: Store) -> None:
    with store.transaction():
        store.add_votes([vote(number, at=100) for number in (1, 2, 3)])
        store.add_outcomes(1, [outcome(1, 0.8, id="b", at=300), outcome(2, 0.5, at=100 + SECOND)])
        store.add_outcomes(2, [outcome(1, 0.1, id="a", at=200), outcome(1, 0.9, metric="other", at=100)])
        rows = list(store.outcome_values("exp", "score", [("brier", "first")], 0, SECOND))
    assert [row.value for row in rows] == [0.1, None, None]


@pytest.mark.parametrize("revisited", [False, True])
@pytest.mark.parametrize(
    ("aggregate", "alone", "together"), [("first", 3.0, 3.0), ("sum", 4.0, 9.0), ("count", 2.0, 3.0), ("max", 3.0, 5.0)]
)
def test_aggregates_span_the_later_requests_of_a_unit(
    store: Store, aggregate: str, alone: float, together: float, revisited: bool
) -> None:
    """Decision 9 is a later request of vote 1; what comes of it counts within the window of the vote."""
    with store.transaction():
        store.add_votes([vote(1, at=100), vote(2, at=100)])
        if revisited:
            store.add_revisits([("exp", decision_id(1, 1), decision_id(1, 9))] * 2)
            store.add_revisits([("other", decision_id(1, 2), decision_id(1, 9))])
        found = [outcome(1, 3.0, id="a", at=200), outcome(1, 1.0, id="b", at=300), outcome(9, 5.0, at=99 + SECOND)]
        store.add_outcomes(1, [*found, outcome(9, 7.0, id="late", at=100 + SECOND)])
        rows = list(store.outcome_values("exp", "score", [("brier", aggregate)], 0, SECOND))
        both = list(store.outcome_values("exp", "score", [("brier", aggregate), ("none", "sum")], 1, SECOND))
    assert [row.value for row in rows] == [together if revisited else alone, None]
    assert [(row.ordinal, row.value, row.denominator) for row in both] == [(2, None, None)]


def test_scored_values_bring_the_label_and_every_prediction(store: Store) -> None:
    def answered(number: int, prediction: float | None, error: str = "") -> Completion:
        return Completion(decision_id(1, number), 150, "a", "answered", 200, 5, 5, error, prediction)

    with store.transaction():
        store.add_votes([vote(number, at=100, complete=number != 3) for number in (1, 2, 3)])
        store.add_completions(1, [answered(1, 0.25), answered(2, None, "deadline")])
        store.add_shadows(1, [Shadow(decision_id(1, 1), 160, "b", 9, "", 0.5)])
        store.add_shadows(1, [Shadow(decision_id(1, 1), 161, "c", 9, "output", None)])
        store.add_shadows(2, [Shadow(decision_id(1, 1), 170, "b", 9, "", 0.75)])  # the first one stays
        store.add_outcomes(1, [outcome(1, 1.0, at=200), outcome(1, 0.0, id="x", at=300), outcome(3, 1.0, at=200)])
        rows = list(store.scored_values("exp", "brier", 0, SECOND))
    found = [(row.label, row.served, row.prediction, row.failed, json.loads(row.shadows), row.complete) for row in rows]
    assert found == [
        (1.0, "a", 0.25, 0, {"b": 0.5, "c": None}, 1),
        (None, "a", None, 1, {}, 1),
        (1.0, None, None, 0, {}, 0),
    ]


def test_predictions_after_the_window_may_not_have_come_yet_so_they_never_count(store: Store) -> None:
    with store.transaction():
        store.add_votes([vote(1, at=100)])
        store.add_completions(
            1, [Completion(decision_id(1, 1), 100 + SECOND, "a", "answered", 200, 5, 5, "deadline", 0.25)]
        )
        store.add_shadows(1, [Shadow(decision_id(1, 1), 99 + SECOND, "b", 9, "", 0.5)])
        store.add_shadows(1, [Shadow(decision_id(1, 1), 100 + SECOND, "c", 9, "", 0.5)])
        (row,) = store.scored_values("exp", "brier", 0, SECOND)
    assert (row.served, row.prediction, row.failed, json.loads(row.shadows)) == (None, None, 0, {"b": 0.5})


def test_counters_add_up(store: Store) -> None:
    with store.transaction():
        store.count("exp", "b", "late")
        store.count("exp", "b", "late", 4)
        store.count("exp", "a", "rejected")
        store.count("other", "a", "rejected")
    assert store.counters("exp") == {("b", "late"): 5, ("a", "rejected"): 1}


def test_a_release_state_changes_only_from_the_known_version(store: Store) -> None:
    assert store.save_release("rank", 0, "one") == 1
    assert store.save_release("rank", 1, "two") == 2
    for stale in (0, 1, 3):
        with pytest.raises(StoreError, match="changed by somebody else"):
            store.save_release("rank", stale, "three")
    assert store.releases() == {"rank": (2, "two")}


def test_the_ledger_is_a_chain(store: Store) -> None:
    for number in range(3):
        row = store.append_ledger(number, 7, "rank", "exp", "hold" if number else "start", {"reason": "ä", "n": number})
        assert row.id == number + 1
    rows = store.ledger()
    assert [row.body["n"] for row in rows] == [0, 1, 2]
    assert [row.body["n"] for row in store.ledger(limit=2)] == [1, 2]
    assert len({row.hash for row in rows}) == 3
    assert store.decisions_by_kind("exp") == {"start": 1, "hold": 2}
    assert store.broken_link() is None


def test_the_ledger_of_one_experiment_is_read_alone(store: Store) -> None:
    for number in range(6):
        store.append_ledger(number, 7, "rank", "even" if number % 2 == 0 else "odd", "hold", {"n": number})
    assert [row.body["n"] for row in store.ledger(experiment="odd")] == [1, 3, 5]
    assert [row.body["n"] for row in store.ledger(2, "even")] == [2, 4]
    assert store.ledger(experiment="other") == []


def test_plans_and_quarantine_are_kept(store: Store) -> None:
    store.add_plan(PlanRow(1, 5, 0, "digest", "{}"))
    plan = PlanRow(2, 6, 1, "digest", "{}", f'{{"rank": [[0, "a"], [{2**64 - 1}, "b"]]}}')
    store.add_plan(plan)
    assert store.last_plan() == plan
    assert store.plan_slots(2, "rank") == (Slot(start=0, variant="a"), Slot(start=2**64 - 1, variant="b"))
    assert store.plan_slots(2, "other") == store.plan_slots(1, "rank") == store.plan_slots(9, "rank") == ()
    store.quarantine("rank", "sha", "exp", 5)
    assert store.quarantined("rank", "sha") == "exp"
    assert store.quarantined("other", "sha") is None
    store.release_from_quarantine("rank", "sha")
    assert store.quarantined("rank", "sha") is None


def test_experiments_are_known_for_ever(store: Store) -> None:
    store.add_experiment("late", "rank", "{1}", 2)
    store.add_experiment("early", "rank", "{2}", 1)
    assert store.experiments() == {"early": ("rank", "{2}"), "late": ("rank", "{1}")}
    assert list(store.experiments()) == ["early", "late"]
    with pytest.raises(StoreError):
        store.add_experiment("late", "other", "{}", 3)


@pytest.mark.parametrize("read", ["streams", "last_step", "experiments", "releases", "ledger", "last_plan"])
def test_a_failing_engine_raises_store_errors_only(store: Store, read: str) -> None:
    store.close()
    with pytest.raises(StoreError):
        getattr(store, read)()
    with pytest.raises(StoreError), store.transaction():
        pass
