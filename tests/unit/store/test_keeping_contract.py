"""Every engine: what is to be forgotten is found and goes, whole; what is to stay stays; an audit finds what is odd."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.events import decision_id
from gateway.store.auditing import Drawn, Odd
from gateway.store.base import Erasure, KnownUnit, PlanRow, Settled, UnitKey
from gateway.store.keeping import Keeping, UnitRequest, VotePlace
from tests.unit.store import story
from tests.unit.store.made import assignment, completion, outcome, unit_outcome, vote

DAY = 86_400_000_000
FIRST, SECOND, THIRD = (decision_id(1, number) for number in (1, 2, 3))
U, V = b"u" * 16, b"v" * 16


@pytest.fixture
def keeping(store: Any) -> Keeping:
    kept: Keeping = store
    return kept


def ask(store: Any, sql: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = store.rows(sql)
    return rows


def test_erasures_are_kept_until_they_are_complete(keeping: Keeping) -> None:
    asked = Erasure(U, "rank", 5, 0, 100, {"exp": -7})
    other = Erasure(V, "", 6, 0, 200, {})
    keeping.ask_erasure(asked._replace(at=3))
    keeping.ask_erasure(other)
    keeping.ask_erasure(asked)
    assert keeping.erasures() == [asked, other]
    keeping.erased_through(asked, 50)
    keeping.add_erased([FIRST], 100)
    keeping.add_erased([FIRST, SECOND], 200)
    keeping.drop_erasures(100, 49)
    assert keeping.erasures() == [asked._replace(through=50, buckets={}), other], "something may still come"
    assert keeping.erased_among([FIRST, SECOND, THIRD]) == {FIRST, SECOND}
    keeping.drop_erasures(99, 50)
    assert len(keeping.erasures()) == 2, "its date has not come"
    keeping.drop_erasures(100, 50)
    assert keeping.erasures() == [other]
    assert keeping.erased_among([FIRST, SECOND, THIRD]) == {FIRST, SECOND}
    keeping.drop_erasures(200, 50)
    assert keeping.erasures() == [other], "it is still to be done"
    assert keeping.erased_among([FIRST, SECOND]) == keeping.erased_among([]) == set()


def test_requests_of_units_that_are_to_be_erased_are_found(keeping: Keeping) -> None:
    with keeping.transaction():
        keeping.add_assignments(
            1, [assignment(1, at=DAY, bucket=2**63), assignment(2, at=DAY + 5, unit=V), assignment(3, at=3 * DAY)]
        )
    keeping.ask_erasure(Erasure(U, "rank", 10, 0, 100, {}))
    found = [UnitRequest(FIRST, DAY, "exp", 2**63, U), UnitRequest(THIRD, 3 * DAY, "exp", 7, U)]
    assert sorted(keeping.requests_of_erased(0, THIRD + 1, 10)) == found
    assert keeping.requests_of_erased(0, THIRD, 10) == found[:1]
    assert keeping.requests_of_erased(0, THIRD + 1, 9) == []
    assert [keeping.next_decision(after) for after in (0, FIRST, THIRD)] == [FIRST, SECOND, None]


def test_what_is_forgotten_goes_whole_and_nothing_else(keeping: Keeping) -> None:
    key, other = UnitKey("exp", 2**63 + 7, U), UnitKey("exp", 2**63 + 7, V)
    with keeping.transaction():
        keeping.add_assignments(1, [assignment(1, at=DAY), assignment(2, at=DAY, unit=V)])
        keeping.add_completions(1, [completion(1, at=DAY), completion(2, at=DAY)])
        keeping.add_outcomes(1, [outcome(1, 0.5, at=DAY), outcome(2, 0.5, at=DAY)])
        keeping.add_late([completion(1), completion(2), unit_outcome(1), unit_outcome(1, unit=V)])
        keeping.add_unit_outcomes([unit_outcome(5), unit_outcome(50), unit_outcome(5, unit=V)])
        keeping.save_units({key: KnownUnit(FIRST, 1, "1:a"), other: KnownUnit(SECOND, 1, "1:a")})
        keeping.add_revisits([("exp", FIRST, 9), ("exp", SECOND, 9), ("other", FIRST, 9)])
        keeping.forget_requests([UnitRequest(FIRST, DAY, "exp", 7, U)], 100)
        keeping.forget_units([key])
        keeping.forget_units([])
        keeping.forget_revisits("exp", [FIRST])
        keeping.forget_unit_outcomes(U, ["exp"], 50)
        keeping.forget_unit_outcomes(V, [], 50)
    for table in ("assignment", "completion", "outcome"):
        assert ask(keeping, f"SELECT decision FROM {table}") == [(SECOND,)], table
    assert ask(keeping, "SELECT decision, kind FROM late_fact ORDER BY decision") == [(SECOND, "completion")]
    assert [(fact.unit, fact.at) for fact in keeping.unit_outcomes(100)] == [(V, 5), (U, 50)]
    assert keeping.known_units([key, other]) == [None, KnownUnit(SECOND, 1, "1:a")]
    rows = ask(keeping, "SELECT experiment, vote FROM revisit ORDER BY experiment, vote")
    assert rows == [("exp", SECOND), ("other", FIRST)]
    assert keeping.erased_among([FIRST, SECOND]) == {FIRST}


def test_a_vote_that_is_anonymised_says_no_longer_whose_it_was(keeping: Keeping) -> None:
    with keeping.transaction():
        keeping.add_votes([vote(1, at=5), vote(2, at=6), vote(3, at=7)])
        keeping.anonymise("exp", 1, 0, covariates=False)
        keeping.anonymise("exp", 2, 0, covariates=True)
    assert keeping.vote_places("exp", 0, 2) == [VotePlace(1, 0, 0), VotePlace(2, 0, 0)]
    assert keeping.vote_places("exp", 2, 9) == [VotePlace(3, 7, THIRD)]
    kept = vote(2, at=0)._replace(decision=0)
    assert keeping.votes("exp", 0, 9) == [vote(1, at=0)._replace(decision=0, covariates=()), kept, vote(3, at=7)]
    assert keeping.votes("exp", 0, 1) == [vote(1, at=0)._replace(decision=0, covariates=())]


def test_days_expire_one_after_the_other(keeping: Keeping) -> None:
    assert keeping.expired_through() == 0
    assert keeping.first_day() is None
    with keeping.transaction():
        keeping.add_assignments(1, [assignment(number, at=(10 + number) * DAY) for number in (1, 2, 3)])
        keeping.add_completions(1, [completion(1, at=11 * DAY)])
        keeping.add_late([completion(1, at=11 * DAY), completion(2, at=12 * DAY)])
    assert keeping.first_day() == 11
    keeping.expire(11, 99)
    keeping.expire(11, 100)
    assert keeping.expired_through() == 12 * DAY
    times = 0
    while keeping.drop_day(11, 1000):
        times += 1
        assert times < 50
    keeping.drop_late(12 * DAY)
    assert keeping.first_day() == 12
    assert ask(keeping, "SELECT decision FROM assignment ORDER BY decision") == [(SECOND,), (THIRD,)]
    assert ask(keeping, "SELECT decision FROM completion") == []
    assert ask(keeping, "SELECT decision FROM late_fact") == [(SECOND,)]


def test_how_far_everything_is_settled(keeping: Keeping) -> None:
    assert keeping.settled_through("exp") == 0
    keeping.settle_through("exp", 5)
    keeping.settle_through("exp", 9)
    assert (keeping.settled_through("exp"), keeping.settled_through("other")) == (9, 0)


def test_an_audit_finds_what_does_not_fit(keeping: Keeping) -> None:
    story.tell(keeping)
    assert keeping.integrity() == []
    assert keeping.votes_without_assignment(0) == keeping.votes_unlike_assignment(0) == keeping.votes_twice() == []
    assert keeping.votes_without_unit(0) == [Odd("exp", 4, 1)], "the story tells of none"
    assert keeping.vote_extent("exp") == (4, 1, 4)
    assert keeping.votes_by_odds("exp") == {((0.5, 0.5), 0): 2, ((0.5, 0.5), 1): 2}
    assert keeping.votes_by_stage("exp", 3, complete_only=True) == {("s1", 0): 2, ("s1", 1): 1}
    assert keeping.last_votes() == {1: decision_id(1, 4)}
    assert keeping.drawn() == [Drawn(3, "rank", "a"), Drawn(3, "rank", "b")]
    assert keeping.shipping_steps(FIRST, decision_id(2, 0), 2) == [(SECOND, 1), (THIRD, 1)]
    plans = [PlanRow(1, 5, 0, "digest", "{}"), PlanRow(2, 6, 1, "digest", "{}")]
    with keeping.transaction():
        for plan in reversed(plans):
            keeping.add_plan(plan)
        keeping.add_votes([story.vote(5, "a", "EWR")._replace(decision=FIRST), story.vote(6, "a", "EWR")])
        keeping.settle("exp", "rating", [Settled(9, 0.5, None, "")])
        keeping.add_late([assignment(7)])
        keeping.add_erased([FIRST], 10)
    assert keeping.plans() == plans
    assert keeping.votes_twice() == [Odd("exp", 2, 1)]
    assert keeping.votes_without_assignment(0) == [Odd("exp", 1, 6)]
    assert keeping.votes_unlike_assignment(0) == [Odd("exp", 1, 5)]
    assert keeping.late_assignments() == {decision_id(1, 7)}
    assert (keeping.outcomes_twice(), keeping.settled_without_vote()) == (0, 1)
    assert keeping.facts_of_erased() > 3
