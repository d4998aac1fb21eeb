"""What every engine must do: all or nothing, first value wins, compare-and-set, an unbroken ledger."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.errors import StoreError
from gateway.events import Assignment, Completion, Outcome, decision_id
from gateway.spool.format import Position
from gateway.spool.reader import StreamId
from gateway.store.base import Claim, Exposure, FoldStep, PlanRow, Store, StreamCursor, Vote

SECOND = 1_000_000
REQUESTS = StreamId(1, "requests")


def assignment(number: int, *, at: int = 0, variant: str = "b", bucket: int = 7, unit: bytes = b"u" * 16) -> Assignment:
    segments = ("EWR", "other")
    return Assignment(decision_id(1, number), at, "rank", "exp", "s1", variant, 0.1, bucket, unit, segments, 3, 1)


def completion(number: int, *, at: int = 1, error: str = "", first_byte: int = 500, total: int = 600) -> Completion:
    return Completion(decision_id(1, number), at, "b", "answered", 200, first_byte, total, error)


def outcome(number: int, value: float, *, id: str = "", at: int = 1, metric: str = "brier") -> Outcome:
    return Outcome(id, at, decision_id(1, number), "rank", "exp", metric, value)


def vote(ordinal: int, *, at: int = 0, challenger: bool = True) -> Vote:
    return Vote("exp", ordinal, decision_id(1, ordinal), at, "s1", "b", challenger, 0.1, ("EWR",))


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
        store.save_stream(REQUESTS, StreamCursor(Position(0, 9)))
        store.add_assignments(1, [assignment(1)])
        store.claim_units([Claim("exp", 7, b"u" * 16, 1)])
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
    with store.transaction():
        assert store.claim_units([Claim("exp", 7, b"u" * 16, 2)]) == [True]


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


def test_what_was_committed_is_there_after_reopening(store: Store, reopen: Callable[[], Store]) -> None:
    cursor = StreamCursor(Position(2, 99), 5, decision_id(1, 4), True)
    with store.transaction():
        store.save_stream(REQUESTS, cursor)
        store.save_stream(REQUESTS, cursor)
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


def test_a_unit_is_claimed_once(store: Store) -> None:
    mine, collision = Claim("exp", 2**63, b"u" * 16, 1), Claim("exp", 2**63, b"v" * 16, 2)
    elsewhere, again = Claim("other", 2**63, b"u" * 16, 3), Claim("exp", 2**63, b"u" * 16, 4)
    with store.transaction():
        assert store.claim_units([mine, collision, elsewhere]) == [True, True, True]
        assert store.claim_units([again, Claim("exp", 1, b"w" * 16, 5), Claim("exp", 1, b"w" * 16, 6)]) == [
            False,
            True,
            False,
        ]


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
        plain = list(store.request_values("exp", 0, SECOND, None))
        slow = list(store.request_values("exp", 1, SECOND, 1_000))
    assert [row[6] for row in plain] == [0.0, 1.0, 0.0, None, None, 0.0]
    assert plain[0] == (1, 100, "s1", 1, 0.1, '["EWR"]', 0.0)
    assert [(row[0], row[6]) for row in slow] == [(2, 1.0), (3, 1.0), (4, None), (5, None), (6, 1.0)]
    assert store.vote_count("exp") == 6


def test_outcome_values_take_the_earliest_within_the_window(store: Store) -> None:
    with store.transaction():
        store.add_votes([vote(number, at=100) for number in (1, 2, 3)])
        store.add_outcomes(1, [outcome(1, 0.8, id="b", at=300), outcome(2, 0.5, at=100 + SECOND)])
        store.add_outcomes(2, [outcome(1, 0.1, id="a", at=200), outcome(1, 0.9, metric="other", at=100)])
        rows = list(store.outcome_values("exp", "brier", 0, SECOND))
    assert [row[6] for row in rows] == [0.1, None, None]


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


def test_plans_and_quarantine_are_kept(store: Store) -> None:
    store.add_plan(PlanRow(1, 5, 0, "digest", "{}"))
    store.add_plan(PlanRow(2, 6, 1, "digest", "{}"))
    assert store.last_plan() == PlanRow(2, 6, 1, "digest", "{}")
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
