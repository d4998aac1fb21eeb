"""Numbers that the gateway reads from answers are outcomes like any other: a challenger that spends more is found."""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec.structs import replace

from gateway.events import Outcome
from gateway.evidence.definition import HARM, NON_INFERIOR
from gateway.evidence.report import OVERALL
from tests.unit.evidence.world import BRIER, ERRORS, SECOND, World, definition

Worlds = Callable[..., World]
LIKED = replace(BRIER, name="liked", type="binary", increase=True, missing="zero")
TOKENS = replace(
    BRIER,
    name="tokens",
    type="count",
    high=4000.0,
    missing="zero",
    aggregate="sum",
    window_us=60 * SECOND,
    margin=100.0,
)
FIRST = replace(BRIER, name="first_token", high=10.0, window_us=60 * SECOND, margin=0.5)


def test_a_challenger_that_spends_more_tokens_is_found_and_one_that_is_as_fast_cleared(worlds: Worlds) -> None:
    world = worlds(define=definition(LIKED, TOKENS, FIRST, ERRORS, objective="liked"))
    chance = random.Random(5)
    for unit in range(1500):
        challenger = chance.random() < 0.5
        decision = world.assign(unit, challenger)
        world.clock.advance(2.0)
        world.complete(decision)
        read(world, decision, "tokens", chance.gauss(700.0 if challenger else 400.0, 80.0))
        if unit % 50:  # a stream without content has no first token
            read(world, decision, "first_token", chance.uniform(0.1, 0.9))
        world.outcome(decision, float(chance.random() < 0.3), metric="liked")
    world.settle()
    met = {(test.metric, test.name) for test in world.report.tests if test.segment == OVERALL and test.met}
    assert {("tokens", HARM), ("first_token", NON_INFERIOR)} <= met
    assert ("first_token", HARM) not in met
    estimate = world.report.estimate("tokens")
    assert estimate is not None
    assert estimate.lower < 300.0 < estimate.upper
    assert world.counters == {}


def test_what_is_read_after_its_window_is_late(world: World) -> None:
    decision = world.assign("u", True)
    world.clock.advance(61.0)
    read(world, decision, "brier", 0.5)
    world.settle()
    assert world.counters == {("b", "late"): 1}


def test_what_the_gateway_reads_is_taken_from_no_client(worlds: Worlds) -> None:
    world = worlds(define=definition(replace(TOKENS, name="brier", high=1000.0, read=True)))
    for unit in range(2):
        decision = world.assign(f"u{unit}", unit == 1)
        read(world, decision, "brier", 400.0)
        world.outcome(decision, 500.0)
    world.settle()
    assert world.counters == {("a", "rejected"): 1, ("b", "rejected"): 1}
    assert world.engine.shipped.facts["outcome"] == 4
    assert [value for (value,) in world.store.rows("SELECT value FROM outcome")] == [400.0, 400.0]


def read(world: World, decision: int, metric: str, value: float) -> None:
    """As a worker leaves it: beside the completion, in the stream of requests."""
    requests = world.shards[0].requests
    requests.append(Outcome("", requests.now(), decision, "rank", "exp", metric, value))
