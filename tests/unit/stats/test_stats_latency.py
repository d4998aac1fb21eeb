"""B4 and Q1 against published anchors, the sketch as a monoid, and the quantile guardrail."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.stats import (
    LatencyGuardrail,
    LogHistogram,
    beta_binomial_boundary,
    beta_binomial_log_e,
    harm,
    non_inferiority,
    normal_rho,
    one_sided_rho,
    proportion_interval,
    quantile_ranks,
    superiority,
)

latencies = st.lists(st.floats(0.0, allow_nan=False) | st.just(math.inf), max_size=40)


def sketch(values: list[float]) -> LogHistogram:
    new = LogHistogram()
    new.add(values)
    return new


def test_anchors_of_confseq() -> None:
    # Unit tests of confseq (commit 70b1ef3): v = 100, alpha = .05, v_opt = 100, g = .2, h = .8.
    two, one = normal_rho(100.0, 0.05), one_sided_rho(100.0, 0.05)
    assert beta_binomial_boundary(100.0, 0.05, rho=two, g=0.2, h=0.8, one_sided=False) == pytest.approx(
        31.4308, abs=1e-4
    )
    assert beta_binomial_boundary(100.0, 0.05, rho=one, g=0.2, h=0.8) == pytest.approx(28.41238, abs=1e-5)
    assert proportion_interval(700, 1000, alpha=0.05, t_opt=100.0) == pytest.approx((0.651629, 0.745949), abs=1e-5)
    assert proportion_interval(0, 1, alpha=0.05, t_opt=100.0) == (0.0, 1.0)
    assert proportion_interval(0, 0, alpha=0.05, t_opt=100.0) == (0.0, 1.0)


@pytest.mark.parametrize("one_sided", [True, False])
@pytest.mark.parametrize("p", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("n", [1, 7, 40])
def test_b4_has_mean_one_under_its_null(one_sided: bool, p: float, n: int) -> None:
    # One-sided: the mixture is over drifts upwards, of mean one as well for Bernoulli(p) increments.
    mean = math.fsum(
        math.comb(n, k)
        * p**k
        * (1.0 - p) ** (n - k)
        * math.exp(beta_binomial_log_e(k - n * p, n * p * (1 - p), rho=2.0, g=p, h=1.0 - p, one_sided=one_sided))
        for k in range(n + 1)
    )
    assert mean == pytest.approx(1.0, abs=1e-9)


def test_b4_stays_finite_far_out() -> None:
    for s, v in itertools.product((-1e9, -500.0, 0.0, 500.0, 1e9), (0.0, 1.0, 1e3, 1e7)):
        assert math.isfinite(beta_binomial_log_e(s, v, rho=3.0, g=0.3, h=0.7))
    deep = [beta_binomial_log_e(-float(s), 1e3, rho=3.0, g=0.3, h=0.7) for s in range(0, 1400, 5)]
    assert (np.diff(deep) <= 1e-9).all()
    assert np.abs(np.diff(deep, 2)).max() < 0.05, "no step where one formula takes over from the other"


def test_quantile_ranks_cover_at_every_n() -> None:
    rng = np.random.default_rng(1)
    runs, n, alpha = 300, 400, 0.1
    ranks = {size: quantile_ranks(size, 0.9, alpha=alpha, t_opt=200.0) for size in range(1, n + 1)}
    lower = np.array([ranks[size][0] for size in range(1, n + 1)])
    upper = np.array([ranks[size][1] for size in range(1, n + 1)])
    missed = 0
    for _ in range(runs):
        below = np.cumsum(rng.random(n) < 0.9)  # values not above the true quantile
        missed += bool(((below < lower) | (below >= upper)).any())
    assert missed / runs <= alpha + 2.33 * math.sqrt(alpha * (1.0 - alpha) / runs)
    assert ranks[1][1] == 2


@given(latencies, latencies, latencies)
def test_merging_is_a_commutative_monoid(a: list[float], b: list[float], c: list[float]) -> None:
    x, y, z = sketch(a), sketch(b), sketch(c)
    assert x.merge(y) == y.merge(x) == sketch(a + b)
    assert x.merge(y).merge(z) == x.merge(y.merge(z))
    assert x.merge(LogHistogram()) == x
    assert x.merge(y).n == len(a) + len(b)
    assert LogHistogram.restore(json.loads(json.dumps(x.state()))) == x


@given(st.lists(st.floats(1e-5, 1e9), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_quantiles_are_within_one_percent(values: list[float], p: float) -> None:
    exact = sorted(values)[max(math.ceil(len(values) * p), 1) - 1]
    assert sketch(values).quantile(p) == pytest.approx(exact, rel=0.01 + 1e-9)


def test_the_ends_of_the_sketch() -> None:
    assert math.isnan(LogHistogram().quantile(0.5))
    ends = sketch([0.0, 1e-9, 5.0, math.inf, 1e300])
    assert [ends.value_at(rank) for rank in (1, 2, 4, 5)] == [0.0, 0.0, math.inf, math.inf]
    assert ends.value_at(3) == pytest.approx(5.0, rel=0.01)
    for bad in ([-1.0], [math.nan]):
        with pytest.raises(ValueError, match="negative"):
            ends.add(bad)
    for rank in (0, 6):
        with pytest.raises(ValueError, match="rank"):
            ends.value_at(rank)
    with pytest.raises(ValueError, match="p must"):
        ends.quantile(1.0)
    with pytest.raises(ValueError, match="bin"):
        LogHistogram.restore({"counts": [[-1, 1]]})
    assert ends.n == 5
    rng = np.random.default_rng(2)
    low, high = sketch(rng.lognormal(4.0, 0.6, 5000).tolist()).quantile_interval(0.99, alpha=0.05, t_opt=5000.0)
    assert low < math.exp(4.0 + 0.6 * 2.3263) < high < 1.5 * low
    assert sketch([1.0]).quantile_interval(0.99, alpha=0.05, t_opt=5000.0)[1] == math.inf


def requests(rng: np.random.Generator, n: int, factor: float) -> tuple[np.ndarray, ...]:
    z = rng.random(n) < 0.5
    return z, np.full(n, 0.5), rng.lognormal(4.0, 0.6, n) * np.where(z, factor, 1.0)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 1800), max_size=6), st.integers(0, 99))
def test_any_chunking_and_any_restart_gives_the_same_bits(cuts: list[int], seed: int) -> None:
    z, pi, y = requests(np.random.default_rng(seed), 1800, 1.2)
    whole, parts = LatencyGuardrail(), LatencyGuardrail()
    whole.fold(z, pi, y)
    for begin, end in itertools.pairwise([0, *sorted(cuts), 1800]):
        parts.fold(z[begin:end], pi[begin:end], y[begin:end])
        parts = LatencyGuardrail.restore(json.loads(json.dumps(parts.state())))
    assert whole.state() == parts.state()
    assert whole.log_e("harm") == parts.log_e("harm")


def test_nothing_is_staked_before_the_champion_is_known() -> None:
    z, pi, y = requests(np.random.default_rng(1), 900, 9.0)
    guardrail = LatencyGuardrail()
    guardrail.fold(z, pi, y)
    assert not guardrail.thresholds
    assert guardrail.cell(0.5).n == 0
    assert guardrail.log_e("harm") == pytest.approx(0.0)
    guardrail.fold(*requests(np.random.default_rng(2), 900, 9.0))
    assert guardrail.thresholds[0.5] == pytest.approx(math.exp(4.0), rel=0.15)
    assert guardrail.peak_log_e("harm") > math.log(1000.0)


def alarm(rng: np.random.Generator, n: int, **shape: Any) -> int | None:
    """Units until harm at .01 of a challenger that is slower everywhere, in its tail, or in five per cent."""
    guardrail = LatencyGuardrail()
    for begin in range(0, n, 500):
        z, pi, y = requests(rng, 500, shape.get("factor", 1.0))
        late = z & (rng.random(500) < shape.get("timeouts", 0.0))
        guardrail.fold(z, pi, np.where(late, math.inf, y))
        if guardrail.peak_log_e("harm") >= math.log(100.0):
            return begin + 500
    return None


def test_slower_challengers_and_time_outs_are_found_and_equal_ones_are_not() -> None:
    rng = np.random.default_rng(3)
    slower = [alarm(rng, 30_000, factor=1.16) for _ in range(5)]
    assert None not in slower
    assert np.median([n for n in slower if n is not None]) <= 9000
    assert all((alarm(rng, 8_000, timeouts=0.05) or 9_000) <= 8_000 for _ in range(5))
    assert sum(alarm(rng, 5_000) is not None for _ in range(30)) <= 2


def test_more_time_outs_than_the_champions_own_are_found() -> None:
    # The champion's 99 % quantile is a time-out itself: only a further time-out exceeds it.
    rng = np.random.default_rng(4)
    guardrail = LatencyGuardrail()
    z, pi, y = requests(rng, 8000, 1.0)
    late = rng.random(8000) < np.where(z, 0.08, 0.02)
    guardrail.fold(z, pi, np.where(late, math.inf, y))
    assert guardrail.cell(0.99).peak_log_e("harm") >= math.log(1000.0)
    json.dumps(guardrail.state(), allow_nan=False)


def test_a_pass_needs_every_quantile() -> None:
    guardrail = LatencyGuardrail({"harm": harm(), "ni": non_inferiority(0.03)})
    guardrail.fold(*requests(np.random.default_rng(5), 12_000, 1.0))
    assert guardrail.weakest_log_e("ni") == min(guardrail.cell(p).log_e("ni") for p in (0.5, 0.9, 0.99))
    assert guardrail.weakest_log_e("ni") <= guardrail.log_e("ni")


def test_a_relative_margin_tolerates_its_factor_and_no_more() -> None:
    bets = {"harm": harm(), "pass": superiority()}
    slightly, much = LatencyGuardrail(bets, factor=1.2), LatencyGuardrail(bets, factor=1.2)
    slightly.fold(*requests(np.random.default_rng(7), 12_000, 1.1))
    much.fold(*requests(np.random.default_rng(8), 12_000, 1.5))
    assert slightly.peak_log_e("harm") < math.log(20.0)
    assert slightly.cell(0.5).log_e("pass") >= math.log(20.0)
    assert much.peak_log_e("harm") >= math.log(1000.0)
    assert much.weakest_log_e("pass") < 0.0
    with pytest.raises(ValueError, match="factor"):
        LatencyGuardrail.restore(much.state(), bets, factor=1.1)
    with pytest.raises(ValueError, match="factor"):
        LatencyGuardrail(factor=0.9)


def test_bad_input_changes_nothing() -> None:
    guardrail = LatencyGuardrail()
    guardrail.fold(*requests(np.random.default_rng(6), 50, 1.0))
    before = guardrail.state()
    for z, pi, y in (([True], [0.5], [math.nan]), ([True], [0.5], [-1.0]), ([True], [1.0], [1.0]), ([2], [0.5], [1.0])):
        with pytest.raises(ValueError, match="must"):
            guardrail.fold(z, pi, y)
    assert guardrail.state() == before
    for quantiles in ((), (0.5, 0.5), (1.0,)):
        with pytest.raises(ValueError, match="quantiles"):
            LatencyGuardrail(quantiles=quantiles)
    with pytest.raises(ValueError, match="quantiles"):
        LatencyGuardrail.restore(before, quantiles=(0.5,))
    with pytest.raises(ValueError, match="level"):
        beta_binomial_boundary(1.0, 0.0, rho=1.0, g=0.5, h=0.5)
    with pytest.raises(ValueError, match="positive"):
        beta_binomial_log_e(1.0, 1.0, rho=0.0, g=0.5, h=0.5)
    with pytest.raises(ValueError, match="counts"):
        proportion_interval(2, 1, alpha=0.05, t_opt=10.0)
    with pytest.raises(ValueError, match="n must"):
        quantile_ranks(-1, 0.5, alpha=0.05, t_opt=10.0)
