"""How long outcomes take, by variant: counted where they are shipped, an alarm where two variants differ."""

from __future__ import annotations

import random

import pytest

from gateway.evidence.lags import lags
from gateway.evidence.record import lag_bucket
from gateway.store.base import Lag
from tests.unit.evidence.world import SECOND, World

VARIANTS = ("a", "b")


def histogram(variant: str, seconds: list[float], metric: str = "brier") -> dict[Lag, int]:
    found: dict[Lag, int] = {}
    for lag in seconds:
        key = Lag("exp", variant, metric, lag_bucket(round(lag * SECOND)))
        found[key] = found.get(key, 0) + 1
    return found


@pytest.mark.parametrize(
    ("lag_us", "bucket"),
    [(-5, 0), (0, 0), (999, 0), (1000, 1), (1999, 1), (2000, 2), (60_000_000, 16), (10**18, 50), (1 << 80, 63)],
)
def test_buckets_double(lag_us: int, bucket: int) -> None:
    assert lag_bucket(lag_us) == bucket


def test_variants_that_answer_alike_raise_no_alarm() -> None:
    chance = random.Random(3)
    found = lags(
        {
            **histogram("a", [chance.expovariate(0.1) for _ in range(4000)]),
            **histogram("b", [chance.expovariate(0.1) for _ in range(400)]),
        },
        VARIANTS,
    )
    assert [(one.variant, one.outcomes, one.differs) for one in found] == [("a", 4000, False), ("b", 400, False)]


def test_a_variant_that_answers_faster_is_found() -> None:
    chance = random.Random(3)
    slow = [chance.expovariate(0.1) for _ in range(4000)]
    fast = [chance.expovariate(0.5) for _ in range(400)]
    found = lags({**histogram("a", slow), **histogram("b", fast)}, VARIANTS)
    assert [one.differs for one in found] == [True, True]
    assert found[0].median_seconds > found[1].median_seconds


def test_few_outcomes_and_unknown_variants_prove_nothing() -> None:
    counts = {**histogram("a", [1.0] * 5000), **histogram("b", [9.0] * 31), **histogram("", [99.0] * 5000)}
    assert [(one.variant, one.differs) for one in lags(counts, VARIANTS)] == [("a", False), ("b", False)]


def test_the_engine_counts_each_outcome_once_under_its_variant(world: World) -> None:
    decisions = [world.assign(f"u{number}", number % 2 == 1) for number in range(10)]
    for decision in decisions:
        world.complete(decision)
    world.step(3.0)
    for decision in decisions:
        world.outcome(decision, 0.5)
        world.outcome(decision, 0.5)
    world.step(1.0)
    found = {(lag.variant, lag.bucket): number for lag, number in world.store.lags("exp").items()}
    assert found == {("a", 12): 5, ("b", 12): 5}, "3 s are between 2,048 and 4,096 ms"


def test_an_outcome_that_overtakes_its_exposure_has_its_lag_from_the_token(world: World) -> None:
    fact = world.assign("early", True)
    world.step(0.0)
    assert world.store.lags("exp") == {}
    world.outcome(fact, 0.5)
    world.step(1.0)
    assert sum(world.store.lags("exp").values()) == 1
