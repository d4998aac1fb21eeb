"""Whole experiments by the deciding code: right verdicts, few false ones, whatever is skipped on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gateway.forecast.assumptions import assume
from gateway.forecast.made_up import MadeUp, Scenario
from gateway.forecast.many import Batch, results
from gateway.forecast.simulation import Runs, Simulation, made_up
from gateway.forecast.subject import AssumptionError, Subject
from gateway.forecast.summary import wilson
from gateway.forecast.trial import Pace, Trial
from tests.unit.forecast.subjects import CONFIG, EVER_US, configured

TRAFFIC = 12_000.0
RUNS = Runs(count=12, seed=7)


def simulated(one: Subject, *scenarios: Scenario, runs: Runs = RUNS) -> Simulation:
    return made_up(one, assume(one, 0.3, 0.2, {}), TRAFFIC, scenarios, runs, lambda: None)


def plain(effect: float) -> Scenario:
    return Scenario(effect, {}, 0.0)


def test_a_better_one_is_promoted_and_a_harmful_one_rolled_back(tmp_path: Path) -> None:
    better, harmful = simulated(configured(tmp_path), plain(0.1), plain(-0.15)).rows
    assert better.promoted.share == 1.0
    assert better.reasons == {"better": 12}
    assert harmful.rolled_back.share >= 0.9
    assert harmful.promoted.count == 0
    # Harm is found while few have met it.
    assert harmful.challenger_share < better.challenger_share
    assert harmful.mean_units < better.mean_units


def test_without_effect_hardly_anything_is_promoted_or_rolled_back(tmp_path: Path) -> None:
    """At their very limits of .05 and .021 more than 5 and 3 of 40 would have a chance of 1.4 % and .2 %."""
    found = simulated(configured(tmp_path), plain(0.0), runs=Runs(count=40, seed=3)).rows[0]
    assert found.promoted.count <= 5
    assert found.expelled.count <= 3
    assert found.inconclusive.share > 0.8
    assert [check.what for check in found.checks] == ["false promotions", "false rollbacks"]
    assert all(check.compatible for check in found.checks)


def test_drift_alone_promotes_nobody(tmp_path: Path) -> None:
    one = configured(tmp_path, CONFIG.replace("10d}", "10d, max_units: 3000}"))
    found = simulated(one, Scenario(0.0, {}, -0.25)).rows[0]
    assert found.promoted.count <= 2
    assert found.expelled.count <= 2


def test_a_guardrail_that_is_worse_than_its_margin_stops_the_promotion(tmp_path: Path) -> None:
    found = simulated(configured(tmp_path), Scenario(0.1, {"errors": 0.2}, 0.0)).rows[0]
    assert found.promoted.count == 0
    assert found.reasons == {"harm_errors": 12}
    assert [check.what for check in found.checks] == ["false promotions", "promotions beyond a margin"]


def test_units_end_it_and_shares_sum_to_one(tmp_path: Path) -> None:
    one = configured(tmp_path, CONFIG.replace("10d}", "10d, max_units: 700, futility: 'off'}"))
    found = simulated(one, plain(0.0)).rows[0]
    endings = (found.promoted, found.rolled_back, found.inconclusive, found.unfinished)
    assert sum(share.share for share in endings) == pytest.approx(1.0)
    assert found.reasons["max_units"] >= 10


SEVERAL = CONFIG.replace(
    "    metrics:", '      c: {role: challenger, url: "http://127.0.0.1:9003"}\n    metrics:'
).replace("traffic: 50%", "traffic: 33%")


@pytest.mark.parametrize("effect", [0.1, 0.0, -0.1])
@pytest.mark.parametrize("text", [CONFIG, SEVERAL, CONFIG.replace("10d}", "10d, cycle: 1h, segment_harm: rollback}")])
def test_skipping_quiet_looks_changes_nothing(tmp_path: Path, text: str, effect: float) -> None:
    one = configured(tmp_path, text)
    world = MadeUp(one, assume(one, 0.3, 0.2, {}), plain(effect), TRAFFIC, EVER_US)
    pace = Pace(every={stage.name: 23 for stage in one.rules.stages})
    for seed in range(3):
        quick, thorough = (
            Trial(one, world, pace, np.random.SeedSequence(seed), thorough=thorough).run() for thorough in (False, True)
        )
        assert quick == thorough


def test_of_several_the_better_one_wins_and_the_others_are_counted_as_wrong(tmp_path: Path) -> None:
    one = configured(tmp_path, SEVERAL)
    found = simulated(one, plain(0.12)).rows[0]
    assert found.promoted.share >= 0.9
    assert found.wrong_promotion.count == 0


def test_results_depend_on_the_seed_and_not_on_the_processes(tmp_path: Path) -> None:
    one = configured(tmp_path)
    world = MadeUp(one, assume(one, 0.3, 0.2, {}), plain(0.1), TRAFFIC, EVER_US)
    batch = Batch(one, world, Pace(every={stage.name: 50 for stage in one.rules.stages}))
    alone = results(batch, 4, 5, 1, lambda: None)
    ticks: list[int] = []
    assert results(batch, 4, 5, 2, lambda: ticks.append(1)) == alone
    assert len(ticks) == 4
    assert results(batch, 4, 6, 1, lambda: None) != alone


EVERY_TYPE = """\
version: 1
endpoints:
  shop:
    protocol: http
    unit: {from: "header:x-user-id", otherwise: request}
    covariates: {past: {from: "header:x-past", bounds: [0, 9]}}
    variants:
      a: {role: champion, url: "http://127.0.0.1:9001"}
      b: {role: challenger, url: "http://127.0.0.1:9002"}
    metrics:
      revenue: {type: unbounded, direction: increase, source: outcome, window: 1m}
      orders: {type: count, cap: 5, direction: increase, source: outcome, window: 1m}
      items: {type: count, cap: 50, direction: increase, source: outcome, window: 1m}
      basket: {type: ratio, numerator: items, denominator: orders, direction: increase, source: outcome}
      latency: {type: latency, limit: 1s, direction: decrease, source: gateway}
      errors: {type: binary, direction: decrease, source: gateway}
    experiment:
      id: exp
      objective: {metric: revenue, expected_effect: 0.1}
      guardrails: [{metric: latency, relative_margin: 60%}, {metric: orders, relative_margin: 40%},
                   {metric: errors, relative_margin: 20%, floor: 0.02}]
      signals: [basket]
      stages: [{traffic: 50%, min_units: 500}]
      holdback: {traffic: 2%}
      decision: {max_duration: 30d}
"""


def test_every_type_of_metric_can_be_made_up(tmp_path: Path) -> None:
    one = configured(tmp_path, EVERY_TYPE)
    found = made_up(one, assume(one, None, None, {}), TRAFFIC, [plain(0.1)], Runs(count=3, seed=1), lambda: None)
    assert found.rows[0].promoted.count == 3
    assert found.rows[0].stages == {"traffic-50%": 3}


def test_what_cannot_be_true_is_refused_before_the_first_run(tmp_path: Path) -> None:
    one = configured(tmp_path)
    for scenario in (plain(0.5), Scenario(0.0, {"nothing": 1.0}, 0.0), Scenario(0.0, {}, 0.9)):
        with pytest.raises(AssumptionError):
            simulated(one, scenario)


@pytest.mark.parametrize(
    ("count", "runs", "low", "high"), [(0, 40, 0.0, 0.0876), (1, 10, 0.0179, 0.4042), (10, 10, 0.7225, 1.0)]
)
def test_intervals_are_those_of_wilson(count: int, runs: int, low: float, high: float) -> None:
    assert wilson(count, runs) == pytest.approx((low, high), abs=1e-4)
