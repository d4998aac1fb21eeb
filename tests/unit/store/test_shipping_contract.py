"""Every engine: positions go on from where they are known to be, facts that nothing is folded from are kept apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf

import msgspec
import pytest

from gateway.errors import StoreError
from gateway.events import Completion, Fact, Outcome, Shadow, UnitOutcome, decision_id
from gateway.spool.format import Position
from gateway.spool.reader import StreamId
from gateway.store.base import Exposure, FoldStep, Lag, PlanRow, Store, StreamCursor
from tests.unit.store.made import REQUESTS, SECOND, assignment, completion, outcome, unit_outcome, vote

DAY = 86_400 * SECOND
START = StreamCursor(Position(0, 9), 5)
FURTHER = StreamCursor(Position(1, 3), 7, True, b"i" * 16)


def test_a_stream_goes_on_from_where_it_is_known_to_stand(store: Store) -> None:
    store.save_stream(REQUESTS, None, START)
    store.save_stream(StreamId(1, "outcomes"), None, START)
    store.save_stream(REQUESTS, START, FURTHER)
    assert store.streams() == {REQUESTS: FURTHER, StreamId(1, "outcomes"): START}


@pytest.mark.parametrize("before", [None, StreamCursor(Position(0, 8)), StreamCursor(Position(1, 9)), FURTHER])
def test_a_stream_that_stands_elsewhere_is_not_shipped_again(store: Store, before: StreamCursor | None) -> None:
    """A batch whose commit nobody acknowledged may have been kept: it cannot come in a second time."""
    store.save_stream(REQUESTS, None, START)

    def again() -> None:
        store.add_late([completion(1)])
        store.save_stream(REQUESTS, before, StreamCursor(Position(2, 0)))

    with pytest.raises(StoreError, match="spool 1, requests: shipped up to another place"), store.transaction():
        again()
    assert store.streams() == {REQUESTS: START}


def test_a_stream_that_is_gone_is_not_gone_on_with(store: Store) -> None:
    with pytest.raises(StoreError, match="another place"):
        store.save_stream(REQUESTS, START, FURTHER)
    assert store.streams() == {}


def test_steps_follow_one_another_and_are_read_in_their_order(store: Store) -> None:
    steps = [FoldStep(number, number * 10, number * 7, "{}", json.dumps({"exp": {"": number}})) for number in (1, 2, 3)]
    for step in steps:
        store.add_step(step)
    with store.transaction():
        assert list(store.steps()) == steps
        assert list(store.steps(after=2)) == steps[2:]
    assert store.last_step() == steps[2]
    for stale in (0, 2, 3, 5):
        with pytest.raises(StoreError, match="does not follow"):
            store.add_step(FoldStep(stale, 1, 1, "{}"))
    assert store.last_step() == steps[2]


def test_late_facts_are_kept_as_they_came(store: Store) -> None:
    facts: list[Fact] = [completion(1, at=5), outcome(2, 0.5, at=6), unit_outcome(7)]
    with store.transaction():
        store.add_late(facts)
        store.add_late([])
    rows = store.rows("SELECT decision, kind, at, body FROM late_fact ORDER BY at")  # type: ignore[attr-defined]
    assert [row[:3] for row in rows] == [
        (decision_id(1, 1), "completion", 5),
        (decision_id(1, 2), "outcome", 6),
        (0, "unitoutcome", 7),
    ]
    kinds = (Completion, Outcome, UnitOutcome)
    assert [msgspec.json.decode(row[3], type=kind) for row, kind in zip(rows, kinds, strict=True)] == facts


def test_outcomes_by_unit_wait_in_the_order_of_their_times(store: Store) -> None:
    early, late, twin = unit_outcome(5), unit_outcome(9), unit_outcome(9, unit=b"v" * 16, id="x")
    with store.transaction():
        store.add_unit_outcomes([late, twin, early])
        store.add_unit_outcomes([replaced(early, value=0.9)])  # the same one once more
    assert store.unit_outcomes(5) == []
    assert store.unit_outcomes(9) == [nowhere(early)]
    assert store.unit_outcomes(10) == [nowhere(early), nowhere(late), nowhere(twin)]
    store.drop_unit_outcomes(9)
    assert store.unit_outcomes(10) == [nowhere(late), nowhere(twin)]


def nowhere(fact: UnitOutcome) -> UnitOutcome:
    return replaced(fact, endpoint="")


def replaced(fact: UnitOutcome, **changes: object) -> UnitOutcome:
    return msgspec.structs.replace(fact, **changes)


def test_marks_of_admission_are_replaced_spool_by_spool(store: Store) -> None:
    with store.transaction():
        store.save_admitted({1: decision_id(1, 5), 2: decision_id(2, 1)})
        store.save_admitted({1: decision_id(1, 9)})
        store.save_admitted({})
    assert store.admitted() == {1: decision_id(1, 9), 2: decision_id(2, 1)}


def test_lags_add_up(store: Store) -> None:
    fast, slow = Lag("exp", "b", "brier", 3), Lag("exp", "a", "brier", 21)
    with store.transaction():
        store.count_lags({fast: 2, slow: 1})
        store.count_lags({fast: 5, Lag("other", "b", "brier", 3): 7})
    assert store.lags("exp") == {slow: 1, fast: 7}
    assert store.lags("none") == {}


def test_exposures_are_found_with_and_without_their_times(store: Store) -> None:
    with store.transaction():
        store.add_assignments(1, [assignment(1, at=5), assignment(2, at=3 * DAY), assignment(3, at=9 * DAY)])
    wanted = [decision_id(1, number) for number in (1, 2, 4)]
    expected = {wanted[0]: Exposure("exp", "b", 5), wanted[1]: Exposure("exp", "b", 3 * DAY)}
    assert store.exposures(wanted) == store.exposures(wanted, {5, 3 * DAY}) == expected


def test_assignments_come_by_decision_from_before_a_time_and_no_more_than_wanted(store: Store) -> None:
    made = [assignment(1, at=DAY - 1), assignment(2, at=DAY), assignment(3, at=DAY + 1), assignment(4, at=2 * DAY)]
    with store.transaction():
        store.add_assignments(1, reversed(made))
    begin, end = decision_id(1, 0), decision_id(2, 0)
    assert store.assignments_after(begin, end) == made
    assert store.assignments_after(begin, end, before=DAY + 1) == made[:2]
    assert store.assignments_after(begin, end, before=2 * DAY, limit=2) == made[:2]
    assert store.assignments_after(made[1].decision, end, limit=1) == made[2:3]


def test_facts_meet_across_midnight(store: Store) -> None:
    """A completion, a shadow and an outcome belong to the day of their assignment."""
    assigned = DAY - 10
    with store.transaction():
        store.add_assignments(1, [assignment(1, at=assigned)])
        store.add_votes([vote(1, at=assigned)])
        store.add_completions(
            1, [Completion(decision_id(1, 1), DAY + 5, "b", "answered", 200, 5, 5, "deadline", assigned_at=assigned)]
        )
        store.add_outcomes(2, [replace_outcome(outcome(1, 0.25, at=3 * DAY), assigned)])
    with store.transaction():
        (error,) = store.request_errors("exp", "errors", 0, SECOND)
        (value,) = store.outcome_values("exp", "brier", [("brier", "first")], 0, 7 * DAY)
    assert (error.value, value.value) == (1.0, 0.25)


def replace_outcome(fact: Outcome, assigned_at: int) -> Outcome:
    return msgspec.structs.replace(fact, assigned_at=assigned_at)


def test_what_clients_write_is_kept_whatever_it_is(store: Store) -> None:
    """Quotes, backslashes, braces, NUL: nothing of it ends a text early, and nothing stops the shipping."""
    ids = ["a'b", 'a"b', "a\\b", "{a,b}", "%s", "?", ":x", "NULL", "", "ä\N{SNOWMAN}", "a\0b", "\n"]
    facts = [outcome(1, float(number), id=id) for number, id in enumerate(ids)]
    with store.transaction():
        assert store.add_outcomes(1, facts) == []
        assert store.add_outcomes(2, facts) == [(fact, fact.value) for fact in facts]
        store.add_unit_outcomes([unit_outcome(number, id=id) for number, id in enumerate(ids)])
    kept = [fact.id for fact in store.unit_outcomes(100)]
    assert [id.replace("\N{REPLACEMENT CHARACTER}", "\0") for id in kept] == ids


def test_numbers_are_kept_to_the_last_digit(store: Store) -> None:
    values = [0.1, 1 / 3, 1e-308, 1.7976931348623157e308, 5e-324, inf, -inf, 123456789.123456789]
    facts = [outcome(number, value) for number, value in enumerate(values)]
    with store.transaction():
        store.add_outcomes(1, facts)
        again = store.add_outcomes(2, facts)
    assert [repr(kept) for _, kept in again] == [repr(value) for value in values]


def test_predictions_reach_the_fold_to_the_last_digit(store: Store) -> None:
    values = [1 / 3, 0.1 + 0.2, 1.7976931348623157e308, 5e-324, -123456.78901234567, 0.0, inf, None]
    shadows = [Shadow(decision_id(1, 1), 5, f"v{number}", 1, "", value) for number, value in enumerate(values)]
    with store.transaction():
        store.add_votes([vote(1, at=1)])
        store.add_shadows(1, shadows)
        (row,) = store.scored_values("exp", "brier", 0, SECOND)
    found = json.loads(row.shadows)
    assert [found[f"v{number}"] for number in range(len(values))] == [*values[:6], None, None]


def test_another_connection_is_as_good(store: Store) -> None:
    with store.transaction():
        store.add_assignments(1, [assignment(1)])
        store.save_stream(REQUESTS, None, START)
    store.recover()
    assert store.streams() == {REQUESTS: START}
    with store.transaction():
        store.add_assignments(1, [assignment(2)])
    assert len(store.assignments_after(decision_id(1, 0), decision_id(2, 0))) == 2


def test_a_closed_store_does_not_recover(reopen: Callable[[], Store]) -> None:
    store = reopen()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.recover()


def test_revisions_ascend(store: Store) -> None:
    first = store.next_revision(0)
    store.add_plan(PlanRow(first, 5, 0, "digest", "{}"))
    second = store.next_revision(0)
    assert second > first
    assert store.next_revision(second + 10) > second + 10
