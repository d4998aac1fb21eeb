"""Every type of metric, from measured values to g: what counts, what is missing, what is refused, what cannot break."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.evidence.batch import Batch, Floats
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import HARM, LOG_LOSS_CAP, NON_INFERIOR, PROMOTE, MetricDefinition
from gateway.evidence.fold import fold_pairs, fold_values
from gateway.evidence.report import CYCLE, LAST_CYCLE, WATCH, WORST
from gateway.evidence.scoring import FREEZES, Scorer, loss, score
from gateway.evidence.verdict import judge
from gateway.stats import PairedCell, ScoreCell
from tests.unit.evidence.test_batches import CLICKS, RATIO, SCORE, SLOWER, VIEWS
from tests.unit.evidence.world import BRIER, ERRORS, LATENCY, THRESHOLDS, definition

REVENUE = replace(BRIER, name="revenue", type="unbounded", increase=True)
WINSORISED = replace(REVENUE, scale="winsorised")
NAN = float("nan")


def crowd(n: int, *, stage: str = "s1", arms: Any = None, **more: Any) -> Batch:
    """Units that alternate between champion and challenger."""
    given: dict[str, Any] = {
        "at": np.arange(n) + 1,
        "stages": np.full(n, stage),
        "arms": np.arange(n) % 2 if arms is None else np.array(arms),
        "odds": np.full((n, 2), 0.5),
        "segments": np.full(n, '["EWR"]', dtype=np.object_),
    }
    return Batch(**(given | more))


def folded(metric: MetricDefinition, values: Any, batch: Batch | None = None, **more: Any) -> Evidence:
    """Evidence with this metric as the objective."""
    found = np.array(values, dtype=np.float64)
    others = [one for one in (CLICKS, VIEWS) if one.name != metric.name]
    evidence = Evidence(replace(definition(metric, *others, objective=metric.name), **more))
    fold_values(evidence, evidence.definition.metric(metric.name), batch or crowd(len(found)), found)
    return evidence


def sums(evidence: Evidence, metric: MetricDefinition) -> tuple[float, float]:
    cell = evidence.cell(1, metric)
    assert isinstance(cell, ScoreCell)
    return cell.sums


def test_a_count_is_capped_and_nothing_is_none() -> None:
    evidence = folded(CLICKS, [5.0, 1e300, NAN, 20.0])
    assert sums(evidence, CLICKS) == pytest.approx((0.75 + 1.0, 0.0 + 0.0))  # less is better
    assert evidence.missing == {}
    assert evidence.find("cell", "1", "clicks", WORST) is None


def test_a_negative_count_is_as_good_as_none() -> None:
    assert sums(folded(replace(CLICKS, increase=True), [-5.0, 10.0]), CLICKS) == (0.0, 0.5)


def test_an_overdue_latency_exceeds_at_every_quantile() -> None:
    n = 4000
    values: Floats = 1000.0 + np.arange(n, dtype=np.float64) % 7
    values[1::40] = NAN  # of the challenger
    evidence = Evidence(definition(BRIER, SLOWER))
    fold_values(evidence, SLOWER, crowd(n), values)
    guard = evidence.find("quantiles", "1", SLOWER.name)
    assert guard.cell(0.99).means[1] == pytest.approx(0.95, abs=0.001)
    tests = [test for test in judge(evidence, THRESHOLDS, n, n).tests if test.metric == "slower"]
    assert [(test.segment, test.name) for test in tests] == [("", HARM), ("", NON_INFERIOR), ("origin=EWR", HARM)]


@pytest.mark.parametrize("value", [NAN, 1.0])
def test_a_failed_request_is_an_error_and_slow(value: float) -> None:
    evidence = Evidence(definition(BRIER, ERRORS, LATENCY))
    fold_values(evidence, ERRORS, crowd(2), np.array([0.0, value]))
    fold_values(evidence, LATENCY, crowd(2), np.array([-1.0, NAN if np.isnan(value) else np.inf]))
    for metric in (ERRORS, LATENCY):
        assert sums(evidence, metric) == (1.0, 0.0)


def test_a_gateway_objective_is_never_missing() -> None:
    evidence = folded(replace(ERRORS, margin=None), [0.0, 1.0, NAN, 0.0])
    assert evidence.find("cell", "1", "errors", WORST) is None
    assert judge(evidence, THRESHOLDS, 4, 4).missing == (0.0, 0.0)


# Scales of their own.


def scorer_of(metric: MetricDefinition, caps: tuple[float, float] = (1.0, 1.0)) -> Scorer:
    return Scorer(metric, caps)


def scored(scorer: Scorer, values: Floats, champion: bool = True) -> tuple[Floats, Floats, Floats]:
    pairs = values if values.ndim == 2 else np.stack([values, np.zeros(len(values))], axis=1)
    known = np.asarray(np.isfinite(pairs).all(axis=1))
    g, ready, linear = scorer.score(pairs, np.full(len(pairs), champion), known)
    return g, ready.astype(float), linear


def test_a_scale_is_taken_twice_and_judges_nobody_who_made_it() -> None:
    scorer = scorer_of(REVENUE)
    g, ready, linear = scored(scorer, np.arange(1500.0))
    assert not ready[: FREEZES[0]].any()
    assert ready[FREEZES[0] :].all()
    assert np.isnan(g[: FREEZES[0]]).all()
    assert np.isnan(linear[: FREEZES[0]]).all()
    assert (g[FREEZES[0] : FREEZES[1]] == 1.0).all(), "above everything that was seen before"
    assert not scorer.collecting
    again, _, _ = scored(scorer, np.array([750.0]), champion=False)
    assert again[0] == pytest.approx(0.5, abs=0.01), "among the last 500 of the thousand"


def test_only_known_values_of_the_champion_make_the_scale() -> None:
    scorer = scorer_of(WINSORISED)
    scored(scorer, np.full(5000, 1e6), champion=False)
    scored(scorer, np.where(np.arange(399) % 2 == 0, np.arange(399.0), NAN))
    assert scorer.collecting
    assert scorer.state()["seen"] == FREEZES[0]
    g, _, _ = scored(scorer, np.array([-5.0, 0.0, 199.0, 1e9]), champion=False)
    assert g == pytest.approx([0.0, 0.0, 0.5, 1.0], abs=0.01)


@pytest.mark.parametrize("zeros", [0.98, 0.999, 1.0])
def test_a_winsorised_sample_of_almost_only_zeros_has_a_scale_in_the_end(zeros: float) -> None:
    rng = np.random.default_rng(1)
    values = np.where(rng.random(FREEZES[1]) < zeros, 0.0, rng.lognormal(3, 1, FREEZES[1]))
    scorer = scorer_of(WINSORISED)
    scored(scorer, values)
    g, ready, _ = scored(scorer, np.array([-1.0, 0.0, 1e6]), champion=False)
    assert ready.all()
    assert g.tolist() in ([0.0, 0.0, 1.0], [0.0, 0.5, 1.0])


def test_a_ratio_is_linearised_by_the_champions_past() -> None:
    scorer = scorer_of(RATIO, (20.0, 50.0))
    scored(scorer, np.tile([[2.0, 10.0], [4.0, 20.0]], (100, 1)))
    g, _, linear = scored(scorer, np.array([[6.0, 30.0], [20.0, 0.0], [0.0, 50.0], [0.0, 0.0], [99.0, 99.0]]), False)
    assert g == pytest.approx([1 / 3, 1.0, 0.0, 1 / 3, 2 / 3])  # (N - D/5 + 10)/30, beyond the caps the caps
    assert np.isnan(linear).all(), "the champion's N - r D never varied"


def test_a_ratio_without_a_denominator_is_its_numerator_in_the_end() -> None:
    scorer = scorer_of(RATIO, (20.0, 50.0))
    scored(scorer, np.tile([[3.0, 0.0]], (FREEZES[0], 1)))
    assert not scored(scorer, np.zeros((1, 2)), False)[1].any()
    scored(scorer, np.tile([[3.0, 0.0]], (FREEZES[1], 1)))
    g, ready, _ = scored(scorer, np.array([[10.0, 5.0]]), False)
    assert ready.all()
    assert g.tolist() == [0.5]


@given(
    st.sampled_from([REVENUE, WINSORISED, RATIO, replace(REVENUE, missing="zero"), replace(RATIO, missing="zero")]),
    st.lists(
        st.one_of(
            st.floats(),
            st.sampled_from([0.0, 1.7e308, -1.7e308, np.inf, -np.inf, NAN, 5e-324]),
            st.floats(-10, 10),
        ),
        min_size=2,
        max_size=8,
    ),
    st.booleans(),
)
def test_no_value_whatsoever_stops_the_fold(metric: MetricDefinition, some: list[float], exact: bool) -> None:
    n = 2 * FREEZES[1] + 40
    rng = np.random.default_rng(len(some))
    values = rng.choice(np.array(some), (n, 2) if metric.type == "ratio" else n)
    arms = np.arange(n) % 2 if exact else rng.integers(0, 2, n)
    caps = [replace(one, high=high) for one, high in ((CLICKS, 1e308), (VIEWS, 3.0))]
    evidence = Evidence(definition(metric, *caps, objective=metric.name))
    fold_values(evidence, metric, crowd(n, arms=arms), values)
    report = judge(evidence, THRESHOLDS, n, n)
    assert all(np.isfinite(test.log_e) for test in report.tests)
    for one in report.estimates:
        assert not np.isnan([one.lower, one.estimate, one.upper]).any()
    states = evidence.take_changes()
    again = Evidence.restore(evidence.definition, states)
    assert judge(again, THRESHOLDS, n, n) == report


def test_the_mean_is_reported_in_its_own_unit_and_claims_nothing() -> None:
    rng = np.random.default_rng(5)
    n = 6000
    values = rng.normal(100.0, 10.0, n) + 20.0 * (np.arange(n) % 2)
    report = judge(folded(REVENUE, values), THRESHOLDS, n, n)
    (mean,) = (one for one in report.estimates if one.method == "asymptotic")
    assert mean.lower < 20.0 < mean.upper
    assert mean.upper - mean.lower < 4.0
    assert (mean.better, mean.worse) == (False, False)
    assert sum(mean.units) == n - 2 * FREEZES[0] + 1
    exact = report.estimate("revenue")
    assert exact is not None
    assert exact.better
    assert 0.0 < exact.lower < exact.upper <= 1.0


def test_the_mean_of_a_ratio_is_an_effect_on_the_ratio() -> None:
    rng = np.random.default_rng(6)
    n = 20_000
    views = rng.integers(5, 15, n)
    clicks = rng.binomial(views, 0.3 + 0.1 * (np.arange(n) % 2))
    report = judge(folded(RATIO, np.stack([clicks, views], axis=1)), THRESHOLDS, n, n)
    (mean,) = (one for one in report.estimates if one.method == "asymptotic")
    assert mean.lower < 0.1 < mean.upper
    assert mean.upper - mean.lower < 0.03


# Scores.


def test_losses() -> None:
    p, y = np.array([0.25, 1.0, NAN, 0.5, np.inf, np.inf, 0.5]), np.array([1.0, 0.0, 1.0, NAN, 1.0, NAN, 7.0])
    expected = [0.5625, 1.0, NAN, NAN, np.inf, NAN, NAN]
    assert loss("brier", p, y) == pytest.approx(expected, nan_ok=True)
    expected = [-np.log(0.25), LOG_LOSS_CAP, NAN, NAN, np.inf, NAN, NAN]
    assert loss("log_loss", p, y) == pytest.approx(expected, nan_ok=True)
    assert loss("absolute_error", p, y) == pytest.approx([0.75, 1.0, NAN, NAN, np.inf, NAN, 6.5], nan_ok=True)
    assert loss("brier", np.full((2, 3), 0.5), np.array([[0.0], [NAN]]))[0] == pytest.approx([0.25] * 3)


def test_a_wild_prediction_is_as_bad_as_can_be_and_not_missing() -> None:
    wild = replace(SCORE, loss="absolute_error", high=10.0)
    evidence = folded(wild, [0.0, 1e300, 10.0, np.inf])
    assert sums(evidence, wild) == (1.0, 0.0)
    assert evidence.missing == {}


def pairs(losses: list[list[float]], **how: Any) -> Evidence:
    evidence = Evidence(replace(definition(SCORE, ERRORS, objective="score"), paired=True))
    fold_pairs(evidence, SCORE, crowd(len(losses), **how), np.array(losses))
    return evidence


def test_pairs_are_differences_of_the_same_request() -> None:
    evidence = pairs([[0.5, 0.25], [0.5, NAN], [NAN, 0.5], [0.25, 7.0], [0.0, np.inf]])
    cell = evidence.cell(1, SCORE)
    assert isinstance(cell, PairedCell)
    assert cell.n == 3
    assert cell.mean == pytest.approx((0.25 - 0.75 - 1.0) / 3)
    assert evidence.cell(1, SCORE, "origin=EWR").n == 3


def test_a_better_shadow_is_found_without_any_coin() -> None:
    evidence = pairs([[0.5, 0.25]] * 200)
    report = judge(evidence, THRESHOLDS, 0, 0)
    assert report.verdict == "better"
    assert not report.worst_fill_needed
    estimate = report.estimate("score")
    assert estimate is not None
    assert estimate.units == (200, 200)
    assert estimate.upper < 0.0, "in the metric's unit: a loss, less is better"


def test_pairs_end_with_the_promotion() -> None:
    assert pairs([[0.5, 0.25]] * 3, stage=WATCH).take_changes() == {}


# Stages, cycles.


def test_in_the_watch_coins_go_to_the_watch_alone() -> None:
    batch = crowd(400, stage=WATCH)
    values = np.where(np.arange(400) % 2 == 1, 0.9, 0.1)
    evidence = folded(BRIER, values, batch, holdback=True)
    assert sorted(evidence.take_changes()) == ["cell/1/brier/watch", "watch/1/brier"]
    test = judge(evidence, THRESHOLDS, 0, 0).test("brier", HARM, WATCH)
    assert test is not None
    assert test.needed == pytest.approx(np.log(1e6))
    assert test.met


def test_cycles_turn_over_with_the_clock_of_the_first_unit() -> None:
    batch = crowd(10, at=np.array([100, 101, 109, 110, 111, 119, 120, 145, 146, 151]))
    evidence = folded(BRIER, np.full(10, 0.5), batch, cycle_us=10)
    assert evidence.first_at == 100
    assert evidence.cycles == {1: 5}
    assert evidence.cell(1, BRIER, CYCLE).n == 1
    assert evidence.cell(1, BRIER, LAST_CYCLE).n == 2
    assert judge(evidence, THRESHOLDS, 0, 0).cycles == 5


def test_a_bad_last_cycle_shows_and_passes() -> None:
    n = 600
    values = np.where((np.arange(n) % 2 == 1) & (np.arange(n) >= 200) & (np.arange(n) < 400), 0.9, 0.1)
    evidence = folded(BRIER, values[:401], crowd(n).where(np.arange(n) < 401), cycle_us=200)
    bad = judge(evidence, THRESHOLDS, 0, 0).test("brier", HARM, LAST_CYCLE)
    assert bad is not None
    assert bad.met
    evidence = folded(BRIER, np.append(values, 0.1), crowd(n + 1), cycle_us=200)
    good = judge(evidence, THRESHOLDS, 0, 0).test("brier", HARM, LAST_CYCLE)
    assert good is not None
    assert not good.met


# Covariates.


def test_covariates_of_another_worker_explain_nothing_and_break_nothing() -> None:
    texts = ["[1.0, 2.0]", "[1.0]", "[]", "[NaN, 1.0]", "[1e12, 0.0]", "[3, 4]"]
    rows: Any = [(n, n, "s1", n % 2, "[0.5, 0.5]", "[]", text, 1, 0.5, None) for n, text in enumerate(texts, 1)]
    x = Batch.of(rows, 2).x
    assert x is not None
    assert x.tolist() == [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [3.0, 4.0]]
    assert Batch.of(rows, 0).x is None


def test_covariates_adjust_the_objective_and_nothing_else() -> None:
    rng = np.random.default_rng(7)
    n = 4000
    x = rng.normal(size=(n, 1))
    values = np.clip(0.5 + 0.2 * x[:, 0] + 0.02 * rng.normal(size=n) - 0.01 * (np.arange(n) % 2), 0.0, 1.0)
    plain = judge(folded(BRIER, values), THRESHOLDS, n, n)
    adjusted = judge(folded(BRIER, values, crowd(n, x=x), covariates=1), THRESHOLDS, n, n)
    before, after = (report.test("brier", PROMOTE) for report in (plain, adjusted))
    assert before is not None
    assert after is not None
    assert after.log_e > before.log_e + 5.0
    for segment in (WORST, "origin=EWR"):
        assert plain.test("brier", PROMOTE, segment) == adjusted.test("brier", PROMOTE, segment)


def test_scores_of_bounded_values_are_their_place_within_the_bounds() -> None:
    metric = replace(BRIER, low=-2.0, high=2.0)
    assert score(metric, np.array([-2.0, 0.0, 2.0])).tolist() == [1.0, 0.5, 0.0]
    assert score(replace(metric, increase=True), np.array([-2.0, 1.0])).tolist() == [0.0, 0.75]
