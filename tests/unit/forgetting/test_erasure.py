"""Of a unit that is erased nothing stays but its votes, and everything that rests on them stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.events import Rejection, UnitOutcome
from gateway.forgetting import erasure
from gateway.forgetting.completion import AFTER_US, PAUSE
from gateway.forgetting.erasure import Erasures
from gateway.forgetting.retention import Retention
from tests.unit.audit.story import PLAIN, RICH, again, bucket, live, said, unit_hash
from tests.unit.evidence.world import BRIER, ERRORS, SECOND, Killed, Mortal, Shard, World, definition
from tests.unit.forgetting.forgetful import (
    KEPT,
    ask,
    ask_knowing,
    erase,
    erasures,
    everything,
    holders,
    settle,
)

Worlds = Callable[..., World]
HOUR = 3_600_000_000


def crowd(world: World, number: int = 8) -> list[int]:
    """Units u0, u1, … with everything that a unit can have; returns their decisions."""
    decisions = []
    for index in range(number):
        world.clock.advance(1.0)
        decisions.append(world.whole(f"u{index}", index % 2 == 0, index / number, covariates=(0.5,)))
        world.shadow(decisions[-1], "b", 0.25)
    return decisions


def test_nothing_of_it_is_left_but_votes_that_say_not_whose_they_are(world: World) -> None:
    crowd(world)
    world.assign("u3", False)  # it comes again
    world.settle()
    votes, states, report = world.votes, world.states, world.report
    assert holders(world, "u3") == {"assignment", "unit"}
    asked = ask(world, "u3")
    assert asked.until == world.clock.wall_us() + round((KEPT + 3600.0 + 600.0) * 1e6)
    settle(world, erasures(world))
    assert holders(world, "u3") == {"erasure"}  # until no file holds it
    for table in ("assignment", "completion", "shadow", "outcome"):
        assert len(world.store.rows(f"SELECT * FROM {table} WHERE decision IN (SELECT decision FROM erased)")) == 0
        assert len(world.store.rows(f"SELECT * FROM {table}")) == 7
    assert world.store.rows("SELECT ordinal FROM vote WHERE decision = 0") == [(4,)]
    changed = [(before, after) for before, after in zip(votes, world.votes, strict=True) if before != after]
    [(before, after)] = changed
    assert after[1] == before[1] // HOUR * HOUR  # only the time of its vote, in hours
    assert (after[0], after[2:]) == (before[0], before[2:])
    assert world.store.rows("SELECT covariates FROM vote WHERE ordinal IN (3, 4)") == [("[0.5]",), ("[]",)]
    assert (world.states, world.report) == (states, report)
    assert again(world).findings == ()
    assert said(world) == []
    world.step((asked.until - world.clock.wall_us()) / 1e6)
    erasures(world).tick(world.engine)
    assert holders(world, "u3") == set()
    assert world.store.rows("SELECT * FROM erased") == []


def test_the_ledger_says_that_it_happened_and_not_to_whom(world: World) -> None:
    crowd(world)
    world.settle()
    asked = ask(world, "u3")
    settle(world, erasures(world))
    first, last = world.store.ledger()
    assert {(row.kind, row.endpoint, row.experiment) for row in (first, last)} == {("erase", "", "")}
    assert (first.body["actor"], first.body["reason"], first.body["until"]) == ("ada", "asked", asked.until)
    assert first.body["text"] == asked.text
    assert asked.text.startswith("erasure of a unit: complete by 20")
    assert asked.text.endswith(" (by mail)")
    assert last.body["text"] == "1 erased: 1 requests deleted, 1 votes anonymised"
    assert (last.body["units"], last.body["requests"], last.body["votes"]) == (1, 1, {"exp": 1})
    assert world.store.broken_link() is None


@pytest.mark.parametrize("define", [PLAIN, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize("seed", range(3))
def test_whoever_is_erased_and_whenever_everything_can_be_made_again(worlds: Worlds, define: Any, seed: int) -> None:
    world = worlds(define=define, shards=2)
    some, turn = erasures(world), 0

    def forget() -> None:
        nonlocal turn
        turn += 1
        if turn % 4 == seed:
            ask_knowing(world, f"u{7 * turn % 60}")
        for _ in range(3):
            some.tick(world.engine)

    live(world, seed, then=forget)
    settle(world, some)
    assert world.store.rows("SELECT count(*) FROM vote WHERE decision = 0") != [(0,)]
    assert again(world).findings == ()
    assert said(world) == []


def test_it_waits_until_what_the_unit_did_is_admitted(worlds: Worlds) -> None:
    world = worlds(shards=2)
    world.whole("u0", True, 0.5)
    world.step(1.0)
    world.whole("u1", True, 0.5)
    ask(world, "u1")
    world.clock.advance(1.0)
    world.shards[0].heartbeat()  # the other worker may still bring something older
    some = erasures(world)
    for _ in range(5):
        world.step()
        some.tick(world.engine)
    assert world.engine.units("exp") == 1
    assert holders(world, "u1") == {"assignment", "erasure"}
    settle(world, some)
    assert world.engine.units("exp") == 2
    assert holders(world, "u1") == {"erasure"}


def test_it_waits_until_its_requests_have_ended(world: World) -> None:
    decision = world.assign("u1", True)
    world.step(0.5)
    ask(world, "u1")
    some = erasures(world)
    world.step(0.5)
    for _ in range(5):
        some.tick(world.engine)
    assert world.store.rows("SELECT decision FROM vote") == [(decision,)]
    world.complete(decision)
    settle(world, some)
    assert world.store.rows("SELECT decision FROM vote") == [(0,)]
    world.settle()
    assert world.report.missing == (0.0, 1.0)
    errors = world.report.estimate("errors")
    assert errors is not None
    assert errors.estimate <= 0.0  # it was cut off and has not failed


@pytest.mark.parametrize("known", [True, False])
def test_an_open_window_ends_with_what_is_known(worlds: Worlds, known: bool) -> None:
    world = worlds()
    decisions = crowd(world)
    other = world.assign("v", True)
    world.complete(other)
    if known:
        world.outcome(other, 0.75)
    erase(world, "v")
    world.outcome(other, 0.25, id="later")
    world.outcome(decisions[0], 0.5, id="later")
    world.settle()
    assert world.store.rows("SELECT count(*) FROM outcome WHERE decision = ?", (other,)) == [(0,)]
    values = world.store.rows("SELECT value FROM settled WHERE metric = 'brier'")
    assert values == [(0.75 if known else None,)]
    assert world.engine.evidence["exp"].missing == ({} if known else {("brier", 1): 1})
    assert again(world).findings == ()
    assert said(world) == []


def test_what_comes_out_of_a_spool_that_was_given_up_is_refused(worlds: Worlds) -> None:
    world = worlds(shards=2)
    crowd(world)
    held = world.shards[1]
    at = world.clock.wall_us()
    go_silent(world)
    erase_while_silent(world, "u3")
    as_of(held, at)
    late = world.whole("u3", False, 0.5, shard=1)
    world.whole("else", False, 0.5, shard=1)
    digest = unit_hash("u3")
    held.outcomes.append(UnitOutcome("", at, "rank", "exp", bucket("u3"), digest, "brier", 0.5))
    held.outcomes.append(Rejection(at, late, "rank", "exp", "bounds"))
    world.settle()
    assert holders(world, "u3") == {"erasure"}
    assert world.store.rows("SELECT count(*) FROM late_fact WHERE decision = ?", (late,)) == [(0,)]
    assert world.counters["a", "late"] == 2  # of the other one: the assignment and the outcome
    assert again(world).findings == ()
    assert said(world) == []


def test_what_was_set_aside_of_it_goes_too(worlds: Worlds) -> None:
    world = worlds(shards=2)
    crowd(world)
    decision = world.assign("u3", False, shard=1)
    world.shards[1].heartbeat()
    at = world.clock.wall_us()
    go_silent(world)
    held = world.shards[1]
    as_of(held, at)
    world.complete(decision)
    for unit in ("u3", "u4"):
        digest = unit_hash(unit)
        held.outcomes.append(UnitOutcome("", at, "rank", "exp", bucket(unit), digest, "brier", 0.5))
    world.settle()
    assert len(world.store.rows("SELECT * FROM late_fact")) == 3
    erase_while_silent(world, "u3")
    assert [(kind, unit_hash("u4").hex()) for (kind,) in world.store.rows("SELECT kind FROM late_fact")] == [
        ("unitoutcome", unit_hash("u4").hex())
    ]
    assert holders(world, "u3") == {"erasure"}
    assert "late_fact" in holders(world, "u4")


def test_it_refuses_beyond_its_date_for_as_long_as_a_spool_may_bring_something(worlds: Worlds) -> None:
    world = worlds(shards=2)
    crowd(world)
    world.step(1.0)
    held, at = world.shards[1], world.clock.wall_us()
    go_silent(world)
    erase_while_silent(world, "u3")
    some = erasures(world)
    alone(world, 30 * HOUR / 1e6)
    some.tick(world.engine)
    assert world.store.erasures()[0].until < world.clock.wall_us()
    assert holders(world, "u3") == {"erasure"}
    as_of(held, at)
    late = world.whole("u3", False, 0.5, shard=1)
    alone(world, PAUSE)
    some.tick(world.engine)
    assert holders(world, "u3") == {"erasure"}
    assert world.store.rows("SELECT count(*) FROM completion WHERE decision = ?", (late,)) == [(0,)]
    del held.requests.now, held.outcomes.now  # it has caught up
    world.step(PAUSE)
    some.tick(world.engine)
    assert holders(world, "u3") == set()
    assert world.store.rows("SELECT * FROM erased") == []
    assert again(world).findings == ()
    assert said(world) == []


def test_it_refuses_until_what_was_begun_may_have_ended(worlds: Worlds) -> None:
    world = worlds(shards=2)
    crowd(world)
    world.step(1.0)
    held = world.shards[1]
    go_silent(world)
    erase_while_silent(world, "u3")
    some, [one] = erasures(world), world.store.erasures()
    for at, left in ((one.through + AFTER_US - SECOND, 1), (one.through + AFTER_US, 0)):
        as_of(held, at)
        held.heartbeat()
        alone(world, 30 * HOUR / 1e6)
        some.tick(world.engine)
        assert len(world.store.erasures()) == left


def test_who_never_comes_back_keeps_it_until_requests_of_its_time_expire(worlds: Worlds) -> None:
    world = worlds(shards=2)
    crowd(world)
    world.step(1.0)
    go_silent(world)
    erase_while_silent(world, "u3")
    days = Retention(world.store, world.clock, 5 * 24 * HOUR / 1e6)
    some = Erasures(world.store, world.clock, days.expired)
    for day in range(8):
        assert holders(world, "u3") == ({"erasure"} if day <= 5 else set()), day
        alone(world, 24 * HOUR / 1e6)
        for _ in range(9):
            days.tick(world.engine.seen_through)
        some.tick(world.engine)


def test_it_forgets_up_to_a_step_that_was_written_down(world: World) -> None:
    crowd(world)
    world.settle()
    before = world.store.last_step()
    ask(world, "u3")
    some = erasures(world)
    world.step(1.0)
    some.tick(world.engine)
    assert world.store.last_step() == before, "nothing has happened"
    assert world.engine.seen_through > world.store.erasures()[0].at
    assert world.store.erasures()[0].through == 0
    world.step(1.0)
    for _ in range(3):
        some.tick(world.engine)
    step, [one] = world.store.last_step(), world.store.erasures()
    assert before is not None
    assert step is not None
    assert (step.step, one.through) == (before.step + 1, step.watermark)
    world.step(1.0)
    some.tick(world.engine)
    assert world.store.last_step() == step, "nobody needs another"
    assert again(world).findings == ()
    assert said(world) == []


def go_silent(world: World) -> None:
    """All workers but the first one say nothing for so long that nobody waits for them."""
    for _ in range(16):
        alone(world, 5.0)


def alone(world: World, seconds: float) -> None:
    """A step in which only the first worker is heard."""
    world.clock.advance(seconds)
    world.shards[0].heartbeat()
    world.step()


def as_of(shard: Shard, at: int) -> None:
    """What a worker writes now was written then."""
    shard.requests._last_at = shard.outcomes._last_at = at
    shard.requests.now = shard.outcomes.now = lambda: at  # type: ignore[method-assign]


def erase_while_silent(world: World, unit: str) -> None:
    ask(world, unit)
    some = erasures(world)
    for _ in range(20):
        world.clock.advance(5.0)
        world.shards[0].heartbeat()
        world.step()
        some.tick(world.engine)
    assert all(one.through for one in world.store.erasures())


def test_who_comes_back_is_a_stranger(world: World) -> None:
    crowd(world)
    world.step(1.0)
    erase(world, "u3")
    assert world.engine.units("exp") == 8
    world.whole("u3", False, 0.5)
    world.whole("u3", False, 0.5)
    world.whole("u4", True, 0.5)  # who was not erased is known
    world.settle()
    assert world.engine.units("exp") == 9
    assert holders(world, "u3") == {"assignment", "unit", "erasure"}
    assert again(world).readmitted == 8
    assert again(world).findings == ()
    assert said(world) == []


def test_at_one_endpoint_alone(world: World) -> None:
    crowd(world)
    world.step(1.0)
    ask(world, "u3", "elsewhere")
    settle(world, erasures(world))
    assert world.store.rows("SELECT count(*) FROM assignment") == [(8,)]
    ask(world, "u3", "rank")
    settle(world, erasures(world))
    assert world.store.rows("SELECT count(*) FROM assignment") == [(7,)]


def test_its_later_requests_and_outcomes_by_unit_go_with_it(worlds: Worlds) -> None:
    world = worlds()
    vote = world.whole("u1", True, None)
    world.step(1.0)
    later = world.whole("u1", True, 0.75)  # an outcome of a later request, which is the vote's
    world.clock.advance(0.5)
    to = world.shards[0].outcomes
    to.append(UnitOutcome("", to.now(), "rank", "exp", bucket("u1"), unit_hash("u1"), "brier", 0.25))
    world.step(1.0)
    assert world.store.rows("SELECT decision FROM outcome ORDER BY at") == [(later,), (vote,)]
    assert world.store.rows("SELECT vote, decision FROM revisit") == [(vote, later)]
    erase(world, "u1")
    assert world.store.rows("SELECT * FROM revisit") == []
    assert world.store.rows("SELECT * FROM outcome") == []
    assert world.store.rows("SELECT value FROM settled WHERE metric = 'brier'") == [(0.75,)]
    world.settle()
    assert again(world).findings == ()


def test_a_vote_whose_request_has_expired_is_found_by_its_unit(world: World) -> None:
    crowd(world)
    world.settle()
    for table in ("assignment", "completion", "outcome", "shadow"):
        world.store.write(f"DELETE FROM {table}")
    ask_knowing(world, "u3")
    settle(world, erasures(world))
    assert world.store.rows("SELECT ordinal FROM vote WHERE decision = 0") == [(4,)]
    assert holders(world, "u3") == {"erasure"}


def test_times_stay_within_their_business_cycle(worlds: Worlds) -> None:
    world = worlds(define=replace(definition(BRIER, ERRORS), cycle_us=20 * 60 * SECOND))
    world.clock.advance(HOUR / 1e6 - world.clock.wall_us() % HOUR / 1e6)  # on the hour
    for number in range(8):
        world.whole(f"u{number}", number % 2 == 0, number / 8)
        world.pass_time(600.0)
        world.step()
    world.settle()
    before = world.votes
    states = world.states
    erase(world, *(f"u{number}" for number in range(8)))
    begin = before[0][1]
    minutes = [(vote[1] - begin) // (60 * SECOND) for vote in world.votes]
    assert minutes == [0, 0, 20, 20, 40, 40, 60, 60]
    assert world.states == states
    assert again(world).findings == ()


def test_who_is_not_there_is_erased_at_once(world: World) -> None:
    crowd(world)
    world.settle()
    before = everything(world)
    erase(world, "nobody")
    after = everything(world)
    assert {table for table in before if before[table] != after[table]} == {"erasure"}
    assert world.store.ledger()[-1].body["requests"] == 0


def written_down(world: World) -> None:
    """A step whose row says that what was asked for is admitted."""
    world.engine.write_down()
    world.step(0.5)


def test_many_requests_are_looked_through_in_pieces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "SCANNED", 3)
    monkeypatch.setattr(erasure, "LOCATED", 1)
    crowd(world, 20)
    for _ in range(3):
        world.assign("u3", False)
    world.settle()
    ask(world, "u3")
    written_down(world)
    some, ticks = erasures(world), 0
    while not all(one.through for one in world.store.erasures()):
        some.tick(world.engine)
        ticks += 1
    assert ticks == 7 + 4 + 1  # of eight pieces the last one with the first of four requests, then the erasure
    assert holders(world, "u3") == {"erasure"}


def test_what_was_found_under_an_engine_that_failed_is_looked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that crashes loses its last steps, and what is folded in their place may have other ordinals."""
    monkeypatch.setattr(erasure, "SCANNED", 3)
    crowd(world, 20)
    world.settle()
    ask(world, "u3")
    written_down(world)
    some, ticks = erasures(world), 0
    for _ in range(5):
        some.tick(world.engine)
    world.restart()
    while not all(one.through for one in world.store.erasures()):
        some.tick(world.engine)
        ticks += 1
    assert ticks == 7 + 1  # all pieces, the last one with the only request, then the erasure


def test_a_kill_at_any_call_of_the_store_leaves_a_unit_there_or_erased(worlds: Worlds) -> None:
    calm = story(worlds())
    for moment in range(1, 1000):
        world = worlds()
        if survived := story(world, moment):
            assert survived == calm, f"killed at call {moment}"
            assert said(world) == []
        else:
            break
    assert moment > 40


def story(world: World, dies_at: int = 0) -> dict[str, Any]:
    """Erase one of a few; nothing once the process outlives that."""
    crowd(world)
    world.settle()
    ask_knowing(world, "u3")
    written_down(world)
    mortal = Mortal(world.store, dies_at)
    some = erasures(world, mortal if dies_at else None)
    with_it = everything(world)
    for _ in range(5):
        try:
            some.tick(world.engine)
        except Killed:
            halfway = everything(world)
            assert halfway == with_it or holders(world, "u3") == {"erasure"}
            world.restart()
            world.step()
            some = erasures(world)
    return {} if dies_at and mortal.left > 0 else everything(world)
