"""Requests go day by day when nothing needs them any more; whatever was said about them can still be made again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.assignment.ranges import owner, whole
from gateway.events import Outcome, decision_id
from gateway.forgetting import retention
from gateway.forgetting.retention import PAUSE, Retention
from gateway.plan import HASH_SPACE
from gateway.release.state import ReleaseState, encode
from tests.unit.audit.story import DAY, PLAIN, RICH, again, bucket, live, said
from tests.unit.evidence.world import BRIER, ERRORS, SECOND, Killed, Mortal, World, definition
from tests.unit.forgetting.forgetful import ask_knowing, erasures, everything

Worlds = Callable[..., World]
FACTS = ("assignment", "completion", "shadow", "outcome")


def kept(world: World, days: float, store: Any = None) -> Retention:
    return Retention(store or world.store, world.clock, days * DAY)


def go_on(world: World, some: Retention, ticks: int = 200) -> None:
    """Let everything go that may."""
    for _ in range(ticks):
        some.tick(world.engine.seen_through)
        if not some.remaining and some._day is None:
            return
        world.clock.advance(0.1)


def days_of(world: World, table: str = "assignment") -> list[int]:
    """The days, from the first one of the world, of which there are rows."""
    first = 1_700_000_000 // 86_400
    rows = world.store.rows(f"SELECT DISTINCT at / 86400000000 FROM {table} ORDER BY 1")
    return [day - first for (day,) in rows]


@pytest.mark.parametrize("define", [PLAIN, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize("seed", range(3))
def test_what_expires_is_missed_by_nothing(worlds: Worlds, define: Any, seed: int) -> None:
    twin = live(worlds(define=define, shards=2), seed, days=4, requests=30)
    world = worlds(define=define, shards=2)
    some = kept(world, 2.2)
    live(world, seed, days=4, requests=30, then=lambda: some.tick(world.engine.seen_through))
    assert (some.dropped, some.remaining) == (2, 0)
    for table in FACTS:
        assert days_of(world, table) == days_of(twin, table)[2:], table
    assert (world.states, world.votes, world.report) == (twin.states, twin.votes, twin.report)
    replayed = again(world)
    assert replayed.findings == ()
    assert 0 < replayed.readmitted < replayed.votes
    assert replayed.readmitted_from > 1
    assert said(world) == []


@pytest.mark.parametrize("seed", range(3))
def test_units_are_erased_while_days_expire_and_processes_restart(worlds: Worlds, seed: int) -> None:
    world = worlds(define=RICH, shards=2)
    some, days, turn = erasures(world), kept(world, 1.2), 0

    def forget() -> None:
        nonlocal turn, some, days
        turn += 1
        if turn % 5 == seed:
            ask_knowing(world, f"u{7 * turn % 60}")
        for _ in range(3):
            some.tick(world.engine)
        days.tick(world.engine.seen_through)
        if turn % 3 == 0:
            world.restart()
            some, days = erasures(world), kept(world, 1.2)

    live(world, seed, days=4, requests=30, then=forget)
    assert days_of(world)[0] > 0
    assert world.store.rows("SELECT count(*) FROM vote WHERE decision = 0") != [(0,)]
    assert again(world).findings == ()
    assert said(world) == []


def test_a_votes_change_in_what_is_left_is_found(worlds: Worlds) -> None:
    world = worlds(shards=2)
    some = kept(world, 2.2)
    live(world, 1, days=4, requests=30, then=lambda: some.tick(world.engine.seen_through))
    start = again(world).readmitted_from
    [(ordinal, odds)] = world.store.rows("SELECT ordinal, odds FROM vote ORDER BY ordinal DESC LIMIT 1")
    world.store.write("UPDATE vote SET odds = '[0.25, 0.75]' WHERE ordinal = ?", (ordinal,))
    found = again(world).findings[0]
    assert (found.what, found.text) == ("vote", f"the odds of vote {ordinal}")
    assert found.step >= start
    assert found.found == "(0.25, 0.75)"
    world.store.write("UPDATE vote SET odds = ?, decision = decision + 1 WHERE ordinal = ?", (odds, ordinal))
    assert again(world).findings[0].text == f"no assignment makes vote {ordinal}"


def test_a_settled_value_that_was_changed_is_found(worlds: Worlds) -> None:
    world = worlds()
    some = kept(world, 0.2)
    live(world, 1, days=2, then=lambda: some.tick(world.engine.seen_through))
    assert days_of(world) == []
    world.store.write("UPDATE settled SET value = 1.0 - value WHERE metric = 'errors' AND ordinal = 7")
    assert {(found.what, found.metric) for found in again(world).findings} == {("evidence", "errors")}


def test_a_day_stays_until_every_vote_of_it_is_folded(worlds: Worlds) -> None:
    week = replace(BRIER, window_us=7 * 86_400 * SECOND)
    world = worlds(define=definition(week, ERRORS))
    some = kept(world, 1.0)
    for day in range(3):
        world.whole(f"u{day}", True, 0.5)
        world.step(DAY)
    go_on(world, some)
    assert (some.dropped, some.remaining) == (0, 2)
    assert days_of(world) == [0, 1, 2]
    world.step(4 * DAY)  # the window of the first one closes
    world.clock.advance(PAUSE)
    go_on(world, some)
    assert (some.dropped, days_of(world)) == (1, [1, 2])
    assert some.remaining > 0
    world.step(9 * DAY)
    go_on(world, some)
    assert days_of(world) == []
    assert again(world).findings == ()


def test_of_an_experiment_that_has_ended_nothing_is_waited_for(worlds: Worlds) -> None:
    week = replace(BRIER, window_us=7 * 86_400 * SECOND)
    world = worlds(define=definition(week, ERRORS))
    decision = world.whole("u1", True, 0.25)
    world.whole("u2", True, None)
    state = ReleaseState(
        endpoint="rank", champion="a", slots=whole("a"), status="rolled_back", experiment="exp", challenger="b"
    )
    with world.store.transaction():
        world.store.save_release("rank", 0, encode(state))
    world.step(3 * DAY)
    go_on(world, kept(world, 1.0))
    assert days_of(world) == []
    world.outcome(decision, 0.75, id="later")  # in time, but it has been settled
    world.step(1.0)
    world.settle()
    world.step(9 * DAY)
    assert world.engine.folded("exp") == 2
    values = "SELECT ordinal, value FROM settled WHERE metric = 'brier' ORDER BY ordinal"
    assert world.store.rows(values) == [(1, 0.25), (2, None)]
    assert again(world).findings == ()


def test_requests_without_an_experiment_expire_too(worlds: Worlds) -> None:
    world = worlds()
    for day in range(4):
        world.whole(f"u{day}", True, None, experiment="")
        world.step(DAY)
    some = kept(world, 1.0)
    go_on(world, some)
    assert days_of(world) == days_of(world, "completion") == [3]
    assert some.dropped == 3
    assert again(world).votes == 0


def test_what_comes_for_requests_that_are_gone_goes_with_the_next_day(worlds: Worlds) -> None:
    world = worlds(shards=3)
    gone = world.whole("u1", True, 0.5)
    world.shards.pop(0).die()
    world.step(2 * DAY)
    some = kept(world, 1.0)
    go_on(world, some)
    assert days_of(world) == []
    outcomes = world.shards[0].outcomes
    outcomes.append(Outcome("much later", outcomes.now(), gone, "rank", "exp", "brier", 0.5))
    early = Outcome("", outcomes.now(), decision_id(3, 99), "rank", "exp", "brier", 0.5)
    outcomes.append(early)  # its request is still in another spool
    world.whole("u2", True, None)
    world.step(DAY)
    assert world.store.rows("SELECT count(*) FROM outcome") == [(2,)]
    world.step(2 * DAY)
    world.clock.advance(PAUSE)
    go_on(world, some)
    assert world.store.rows("SELECT decision FROM outcome") == [(early.decision,)]


def test_facts_that_nobody_admitted_stay(worlds: Worlds) -> None:
    world = worlds()
    world.whole("u1", True, 0.5)
    world.step(2 * DAY)
    some = kept(world, 1.0)
    some.tick(1_700_000_000 * SECOND)  # nothing is known of what came since
    assert days_of(world) == [0]
    assert some.remaining == 0


def test_a_window_that_was_open_when_the_day_ended(worlds: Worlds) -> None:
    world = worlds()
    world.clock.advance(DAY - world.clock.wall_us() / 1e6 % DAY - 10.0)
    world.assign("before", True)
    champion = next(name for name in map(str, range(99)) if bucket(name) < 0.3 * HASH_SPACE)  # under every split
    visits = (("s1", 0.2, 11.0), ("s1", 0.2, 15.0), ("s2", 0.5, 100.0), ("s3", 0.7, 0.0))
    for stage, share, later in visits:
        slots = world.store.plan_slots(world.plan(b=share), "rank")
        world.complete(world.assign(champion, owner(slots, bucket(champion)), pi=share, stage=stage))
        world.step(1.0)
        world.step(later)
    assert [(vote[2], vote[7]) for vote in world.votes] == [("s1", 1), ("s1", 1), ("s2", 0), ("s3", 1)]
    world.step(2 * DAY - 3600.0)
    go_on(world, kept(world, 1.5))
    assert days_of(world) == [1]
    replayed = again(world)
    assert (replayed.findings, replayed.readmitted) == ((), 2)


def test_one_call_takes_a_bounded_time(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LEAST", 5)
    world = worlds()
    for number in range(100):
        world.whole(f"u{number}", number % 2 == 0, 0.5)
    world.step(3 * DAY)
    before = len(world.store.rows("SELECT 1 FROM assignment"))
    slow = Slow(world)
    some = Retention(slow, world.clock, DAY)
    left = [before]
    while left[-1]:
        at = world.clock.monotonic()
        some.tick(world.engine.seen_through)
        assert world.clock.monotonic() - at <= 4 * retention.BUDGET
        left.append(len(world.store.rows("SELECT 1 FROM assignment")))
    assert max(more - fewer for more, fewer in pairwise(left)) <= 15
    assert again(world).findings == ()


class Slow:
    """A store on a slow disk: a vote that is settled, and a request that is deleted, take 5 ms each."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.store, name)

    def settle_through(self, experiment: str, ordinal: int) -> None:
        self._world.clock.advance(0.005 * (ordinal - self._world.store.settled_through(experiment)))
        self._world.store.settle_through(experiment, ordinal)

    def drop_day(self, day: int, most: int) -> int:
        gone: int = self._world.store.drop_day(day, most)
        self._world.clock.advance(0.005 * gone)
        return gone


def test_a_kill_at_any_call_of_the_store_loses_no_value(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LEAST", 2)
    monkeypatch.setattr(retention, "MOST", 2)
    calm = story(worlds())
    for moment in range(1, 1000):
        world = worlds()
        if survived := story(world, moment):
            assert survived == calm, f"killed at call {moment}"
            assert said(world) == []
            assert again(world).findings == ()
        else:
            break
    assert moment > 40


def story(world: World, dies_at: int = 0) -> dict[str, Any]:
    """Let one of two days go; nothing once the process outlives that."""
    for day in range(2):
        for number in range(3):
            world.clock.advance(1.0)
            world.whole(f"{day}-{number}", number % 2 == 0, number / 3)
        world.step(DAY)
    mortal = Mortal(world.store, dies_at)
    some = kept(world, 1.5, mortal if dies_at else None)
    for _ in range(12):
        try:
            some.tick(world.engine.seen_through)
        except Killed:
            assert again(world).findings == ()  # whatever is done is done whole
            assert said(world) == []
            some = kept(world, 1.5)
    assert days_of(world) == [1]
    return {} if dies_at and mortal.left > 0 else {**everything(world), "expired": []}
