"""Rule R6, driven through spools and store: units that come again, under the same split and under later ones."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.assignment.ranges import owner
from gateway.events import FORCED, Assignment, decision_id
from gateway.evidence.join import Admission
from gateway.evidence.splits import Splits
from gateway.plan import HASH_SPACE
from gateway.store.base import PlanRow, UnitKey
from tests.unit.evidence.world import BRIER, ERRORS, World, definition

Worlds = Callable[..., World]
THREE = replace(definition(), challengers=("b", "c"))
WINDOW = 60.0


def votes(world: World) -> list[tuple[Any, ...]]:
    """(stage, variant, odds, complete)."""
    return [(row[2], row[3], [round(p, 6) for p in json.loads(row[5])], row[7]) for row in world.votes]


def test_under_a_wider_split_a_unit_votes_with_what_its_hash_leaves(world: World) -> None:
    world.assign("stays", False, pi=0.1)
    world.assign("moves", False, pi=0.1)
    world.assign("had it", True, pi=0.1)
    world.step(WINDOW)
    for unit, challenger in (("stays", False), ("moves", True), ("had it", True)):
        world.assign(unit, challenger, pi=0.5, stage="s2")
    world.step(1.0)
    assert votes(world)[3:] == [
        ("s2", "a", [round(0.5 / 0.9, 6), round(0.4 / 0.9, 6)], 1),
        ("s2", "b", [round(0.5 / 0.9, 6), round(0.4 / 0.9, 6)], 1),
    ], "whoever had the challenger already keeps it for certain, and has no coin"


def test_a_share_that_shrinks_is_a_coin_for_those_who_had_it(world: World) -> None:
    world.assign("u", True, pi=0.5)
    world.step(WINDOW)
    world.restart()
    world.assign("u", False, pi=0.2)
    world.step(WINDOW)
    world.assign("u", True, pi=0.5)  # the first split again: what it will get is known
    world.step(WINDOW)
    assert [row[1:3] for row in votes(world)] == [("b", [0.5, 0.5]), ("a", [0.6, 0.4])]


def test_of_several_challengers_each_has_its_odds(worlds: Worlds) -> None:
    world = worlds(define=THREE)
    for unit, variant in (("u", "a"), ("v", "b"), ("w", "a")):
        world.assign(unit, variant, pi={"b": 0.25, "c": 0.25})
    world.step(WINDOW)
    for unit, variant in (("u", "b"), ("v", "c"), ("w", "c")):
        world.assign(unit, variant, pi={"b": 0.25, "c": 0.5}, stage="s2")  # all that was b's is c's now
    world.step(1.0)
    assert votes(world)[3:] == [("s2", "b", [0.5, 0.5, 0.0], 1)]
    assert world.counters == {("c", "unexplained"): 1}, "w was the champion's, whose part c has not touched"


def test_a_challenger_without_a_share_is_counted_as_nobody(worlds: Worlds) -> None:
    world = worlds(define=THREE)
    for number in range(40):
        world.whole(number, "b" if number % 4 == 0 else "a", 0.5, pi={"b": 0.25, "c": 0.0})
    world.settle()
    report = world.report
    assert report.assigned == (30, 10, 0)
    assert report.estimate("brier", challenger="c") is None
    assert {test.challenger for test in report.tests if test.name == "sample_ratio"} == {"a", "b"}
    assert report.verdicts == {"b": "undecided", "c": "undecided"}
    assert not report.sample_ratio_alarm


def test_while_a_window_is_open_a_vote_counts_for_the_gateways_metrics_only(world: World) -> None:
    first = world.assign("u", False, pi=0.1)
    world.complete(first)
    world.step(WINDOW - 1.0)
    second = world.assign("u", True, pi=0.5, stage="s2")
    world.complete(second, error="deadline")
    world.outcome(second, 0.25)  # within the window of the first vote: it is the champion's
    world.step(WINDOW)
    world.assign("u", True, pi=0.5, stage="s2")
    world.settle()
    assert [(row[0], row[3]) for row in votes(world)] == [("s1", 1), ("s2", 0)]
    find = world.engine.evidence["exp"].find
    assert find("cell", "1", "errors", "").counts == (1, 1)
    assert find("cell", "1", "brier", "").counts == (1, 0)
    assert world.report.missing == (0.0, 0.0)
    assert world.engine.folded("exp") == world.engine.units("exp") == 2


@pytest.mark.parametrize(("after", "missing"), [(WINDOW - 0.001, 0.0), (WINDOW, 1.0)])
def test_outcomes_of_later_requests_belong_to_the_vote_while_its_window_is_open(
    world: World, after: float, missing: float
) -> None:
    world.complete(world.assign("u", True))
    world.step(after - 0.0005)
    again = world.assign("u", True)
    world.complete(again)
    world.pass_time(0.0005)
    world.outcome(again, 0.25)
    world.settle()
    assert world.engine.units("exp") == 1
    assert world.report.missing == (0.0, missing)


def test_a_request_after_the_window_adds_nothing(world: World) -> None:
    world.whole("u", True, 0.25)
    world.step(WINDOW)
    world.outcome(world.assign("u", True), 0.75)
    world.settle()
    assert world.store.rows("SELECT * FROM revisit") == []
    assert world.engine.evidence["exp"].find("cell", "1", "brier", "").sums == (0.0, 0.75)


def test_certain_splits_show_nothing_and_leave_the_coin(world: World) -> None:
    for pi, challenger in ((0.0, False), (1.0, True)):
        world.assign("u", challenger, pi=pi)
        world.step(1.0)
    assert world.store.rows("SELECT * FROM unit") == []
    world.assign("u", False, pi=0.25)
    world.step(1.0)
    assert votes(world) == [("s1", "a", [0.75, 0.25], 1)]


def test_forced_requests_spend_no_coin(world: World) -> None:
    world.assign("u", True, flags=FORCED)
    world.step(1.0)
    world.assign("u", False)
    world.step(1.0)
    assert [row[1] for row in votes(world)] == ["a"]


def test_facts_that_no_plan_explains_are_counted_and_spend_the_coin(world: World) -> None:
    """Whether the unit comes back may depend on what it met, so a later vote would not be a fair one."""
    world.assign("contradicts", False, pi=0.1)
    world.assign("no plan", True)
    world.assign("stranger", "z")
    world.store.write("DELETE FROM plan WHERE revision = ?", (world.plan(b=0.5),))
    world.step(WINDOW)
    assert votes(world) == [("s1", "a", [0.9, 0.1], 1)]
    world.restart()
    world.assign("contradicts", True, pi=0.05)  # the first split says champion, so this cannot be
    for unit in ("contradicts", "no plan", "stranger"):
        world.assign(unit, False, pi=0.3)
        world.step(WINDOW)
    assert len(votes(world)) == 1
    assert sum(n for (_, name), n in world.counters.items() if name == "unexplained") == 6


def test_a_plan_that_is_written_late_is_found(world: World) -> None:
    splits = Splits(world.store)
    fact = Assignment(1, 1, "rank", "exp", "s1", "b", 0.5, 1, b"u", (), 1)
    assert splits.name(fact) == 0
    world.plan(b=0.5)
    assert splits.name(fact) == 1


def test_plans_that_share_a_split_have_one_name(world: World) -> None:
    half, third = (f'{{"rank": [[0, "a"], [{HASH_SPACE // part}, "b"]]}}' for part in (2, 3))
    for revision, slots in enumerate((half, half, third, third, half), 1):
        world.store.add_plan(PlanRow(revision, 0, 0, "", "{}", slots))
    facts = [Assignment(1, 1, "rank", "exp", "s1", "b", 0.5, 1, b"u", (), revision) for revision in range(1, 6)]
    assert [Splits(world.store).name(fact) for fact in facts] == [1, 1, 3, 3, 5]
    splits = Splits(world.store)
    assert [splits.name(fact) for fact in reversed(facts)] == [5, 3, 3, 1, 1]


def test_another_experiment_on_the_same_splits_has_its_own_arms(world: World) -> None:
    world.plan(b=0.5)
    splits = Splits(world.store)
    assert splits.odds("rank", "", 1, ("a", "b")) == (0.5, 0.5)
    assert splits.odds("rank", "", 1, ("a", "b", "c")) == (0.5, 0.5, 0.0)


def test_what_is_known_grows_with_the_splits_not_with_the_visits(world: World) -> None:
    for round_ in range(4):
        for percent in (10, 30, 20, 30):
            world.assign("u", False, pi=percent / 100)
            world.step(WINDOW if round_ % 2 else 1.0)
    (text,) = next(iter(world.store.rows("SELECT known FROM unit")))
    assert text == "1:a|2:a"


def test_a_late_fact_spends_the_coin_without_a_vote(world: World) -> None:
    """It lay in a spool that had been given up; the unit may have come back because of what it met."""
    late = world.assign("u", True)
    world.pass_time(1.0)
    facts = world.store.assignments_after
    world.step(1.0)
    assert world.engine.units("exp") == 1
    admission = Admission(Splits(world.store))
    (fact,) = facts(late - 1, late + 1)
    stranger = replace(fact, decision=decision_id(9, 1), unit=b"s" * 16, bucket=5)
    again = replace(stranger, decision=decision_id(9, 2), at=fact.at + 10)
    wider = replace(stranger, decision=decision_id(9, 3), at=fact.at + 20, revision=world.plan(b=0.75))
    with world.store.transaction():
        admission.admit(world.store, [stranger, again, wider], fact.at + 5, fact.at + 100, world.engine.evidence)
    assert world.counters == {("b", "late"): 1}
    assert world.engine.units("exp") == 1
    assert world.store.known_units([UnitKey("exp", 5, b"s" * 16)])[0].known == "1:b"
    narrower = replace(wider, decision=decision_id(9, 4), at=fact.at + 200, revision=world.plan(b=0.25))
    with world.store.transaction():
        admission.admit(world.store, [narrower], fact.at + 100, fact.at + 300, world.engine.evidence)
    assert votes(world)[-1][1:] == ("b", [0.5, 0.5], 1)


def test_votes_of_returning_units_are_fair_coins(worlds: Worlds) -> None:
    """T22 through the whole way in: sixteen hashes for each of 64 histories, every one enumerated."""
    world = worlds(define=replace(definition(BRIER, ERRORS), challengers=("b", "c")))
    schedule = ({"b": 0.125, "c": 0.0625}, {"b": 0.25, "c": 0.25}, {"b": 0.0625, "c": 0.5}, {"b": 0.25, "c": 0.125})
    sequence = 0
    for stage, shares in enumerate(schedule):
        revision = world.plan(**shares)
        slots = world.store.plan_slots(revision, "rank")
        for cell in range(256):
            if stage and (cell // 16 + stage) % 3 == 0:
                continue  # not everybody comes each time
            hashed = (cell % 16) * (HASH_SPACE // 16)
            sequence += 1
            fact = Assignment(
                decision_id(1, sequence),
                world.clock.wall_us(),
                "rank",
                "exp",
                f"s{stage}",
                owner(slots, hashed),
                0.0,
                hashed,
                cell.to_bytes(16, "big"),
                ("EWR",),
                revision,
            )
            world.shards[0].requests.append(fact)
        world.step(WINDOW)
    got: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for stage_name, variant, odds, complete in votes(world):
        assert complete
        got[stage_name, json.dumps(odds)][variant] += 1
    assert len(got) > 6
    assert world.counters == {}
    for (_, odds_text), variants in got.items():
        shares_of = [variants[arm] / variants.total() for arm in ("a", "b", "c")]
        assert shares_of == pytest.approx(json.loads(odds_text), abs=1e-6)
    assert not world.report.sample_ratio_alarm
