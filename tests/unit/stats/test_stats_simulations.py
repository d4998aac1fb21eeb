"""Small seeded simulations: error rates under peeking, power near the limit, coverage at every n."""

import math

import numpy as np
import pytest

from gateway.stats import (
    Bet,
    ScoreCell,
    banded_log_e,
    bonferroni_threshold,
    gamma_exponential_log_e,
    harm,
    non_inferiority,
    normal_log_e,
    normal_rho,
    one_sided_rho,
    overlap_interval,
    suggested_v_opt,
    superiority,
)

RAMP = np.repeat([0.01, 0.1, 0.5], [500, 500, 1000])


def slack(alpha: float, runs: int) -> float:
    return alpha + 2.33 * math.sqrt(alpha * (1.0 - alpha) / runs)


@pytest.mark.parametrize("split", [0.01, 0.5, RAMP], ids=["1%", "50%", "ramp"])
@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_equal_arms_are_rarely_separated_by_looking_at_every_unit(split: float | np.ndarray, rate: float) -> None:
    runs, n, alpha = 600, 2000, 0.05
    rng = np.random.default_rng(20)
    pi = np.broadcast_to(split, n)
    bets = {"up": superiority(0.05), "generic": superiority(), "down": harm()}
    crossed = dict.fromkeys(bets, 0)
    for _ in range(runs):
        cell = ScoreCell(bets)
        cell.fold(rng.random(n) < pi, pi, (rng.random(n) < rate).astype(float))
        for name in bets:
            crossed[name] += cell.peak_log_e(name) >= bonferroni_threshold(alpha)
    assert {name: hits for name, hits in crossed.items() if hits / runs > slack(alpha, runs)} == {}


def test_a_challenger_exactly_at_the_margin_rarely_passes() -> None:
    runs, n, alpha, delta = 400, 3000, 0.05, 0.03
    rng = np.random.default_rng(21)
    passed = 0
    for _ in range(runs):
        z = rng.random(n) < 0.5
        cell = ScoreCell({"ni": non_inferiority(delta)})
        cell.fold(z, np.full(n, 0.5), (rng.random(n) < 0.9 - delta * z).astype(float))
        passed += cell.peak_log_e("ni") >= bonferroni_threshold(alpha)
    assert passed / runs <= slack(alpha, runs)


def units_until(bet: Bet, threshold: float, rng: np.random.Generator, rates: tuple[float, float], pi: float) -> int:
    """Units until the running peak reaches the threshold, looked for in steps of 1 % of the way so far."""
    cell = ScoreCell({"bet": bet})
    while cell.peak_log_e("bet") < threshold:
        step = max(5, cell.n // 100)
        z = rng.random(step) < pi
        cell.fold(z, np.full(step, pi), (rng.random(step) < np.where(z, rates[1], rates[0])).astype(float))
    return cell.n


def information(rates: tuple[float, float], pi: float) -> float:
    """L1: the growth rate of the best test, pi KL(theta1 || m) + (1 - pi) KL(theta0 || m)."""
    m = pi * rates[1] + (1.0 - pi) * rates[0]

    def divergence(p: float) -> float:
        return p * math.log(p / m) + (1.0 - p) * math.log((1.0 - p) / (1.0 - m))

    return pi * divergence(rates[1]) + (1.0 - pi) * divergence(rates[0])


@pytest.mark.parametrize(("rates", "pi"), [((0.3, 0.4), 0.5), ((0.1, 0.2), 0.1)])
def test_power_at_the_design_effect_is_near_the_limit(rates: tuple[float, float], pi: float) -> None:
    rng = np.random.default_rng(22)
    threshold = bonferroni_threshold(0.01)
    n = [units_until(superiority(0.1), threshold, rng, rates, pi) for _ in range(120)]
    assert 0.9 <= np.mean(n) / (threshold / information(rates, pi)) <= 1.30


def test_a_challenger_that_always_fails_is_found_within_a_dozen_requests() -> None:
    # R5: epochs that start at one unit use early evidence; a fixed 32 took twice as long.
    rng = np.random.default_rng(23)
    n = [units_until(harm(), bonferroni_threshold(0.001), rng, (0.995, 0.0), 0.5) for _ in range(60)]
    assert np.mean(n) / 2 <= 11.0


def prediction_errors(z: np.ndarray, pi: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Running sum of psi and running V after every unit, with the guesses frozen per epoch."""
    n, h = np.arange(len(g)), pi * (1.0 - pi)
    start, begin = np.zeros(len(g), int), 0
    while begin < len(g):
        length = min(max(begin // 16, 1), 512)
        start[begin : begin + length] = begin
        begin += length
    before = np.concatenate([[0.0], np.cumsum(g)])[start]
    psi = (z - pi) * (g - (before + 0.5) / (start + 1))
    sums = np.concatenate([[0.0], np.cumsum(psi)])[start], np.concatenate([[0.0], np.cumsum(h)])[start]
    t = np.clip(sums[0] / np.where(n > 0, sums[1], 1.0), -1.0, 1.0)
    return np.cumsum(psi), np.cumsum((psi - h * t) ** 2)


def test_the_interval_covers_at_every_unit_under_ramp_and_drift() -> None:
    runs, n, alpha, v_opt = 1000, 2000, 0.05, 60.0
    rng = np.random.default_rng(24)
    base, effect = np.linspace(0.1, 0.2, n), np.linspace(0.0, 0.1, n)
    target = np.cumsum(RAMP * (1.0 - RAMP) * effect)
    missed = {"exact": 0, "asymptotic": 0}
    for run in range(runs):
        z = rng.random(n) < RAMP
        g = (rng.random(n) < base + effect * z).astype(float)
        sum_psi, v = prediction_errors(z, RAMP, g)
        if run == 0:
            cell = ScoreCell({"up": superiority()})
            cell.fold(z, RAMP, g)
            moments = cell.state()["moments"]
            assert (moments["sum_psi"], moments["v"]) == pytest.approx((sum_psi[-1], v[-1]), rel=1e-9)
        error = sum_psi - target
        exact = gamma_exponential_log_e(np.abs(error), v, rho=one_sided_rho(v_opt, alpha / 2))
        missed["exact"] += bool((exact >= math.log(2 / alpha)).any())
        normal = normal_log_e(error, v, rho=normal_rho(v_opt, alpha))
        missed["asymptotic"] += bool((normal[200:] >= math.log(1 / alpha)).any())
    assert {name: count for name, count in missed.items() if count / runs > slack(alpha, runs)} == {}


def test_the_interval_is_where_the_evidence_reaches_its_level() -> None:
    rng = np.random.default_rng(25)
    z = rng.random(20_000) < 0.5
    cell = ScoreCell({"up": superiority(0.05)})
    cell.fold(z, np.full(20_000, 0.5), (rng.random(20_000) < 0.3 + 0.05 * z).astype(float))
    exact = cell.interval(0.05, v_opt=100.0)
    asymptotic = cell.interval(0.05, v_opt=100.0, method="asymptotic")
    assert exact.lower < asymptotic.lower < 0.05 < asymptotic.upper < exact.upper
    moments = cell.state()["moments"]
    at_lower = moments["sum_psi"] - exact.lower * moments["sum_h"]
    rho = one_sided_rho(100.0, 0.025)
    assert banded_log_e(at_lower, moments["below"], rho=rho) == pytest.approx(math.log(40.0), rel=1e-9)
    at_upper = moments["sum_psi"] - exact.upper * moments["sum_h"]
    assert banded_log_e(-at_upper, moments["above"], rho=rho) == pytest.approx(math.log(40.0), rel=1e-9)
    # The range that psi really had makes the interval narrower than a range of 1 would.
    plain = overlap_interval(moments["sum_psi"], moments["sum_h"], moments["v"], alpha=0.05, v_opt=100.0)
    assert plain.lower < exact.lower < exact.upper < plain.upper
    assert float(gamma_exponential_log_e(at_lower, moments["v"], rho=rho)) < math.log(40.0)


def test_the_suggested_v_opt_is_where_the_decision_falls() -> None:
    # Same effect, two splits: V at the decision is a property of effect and variance alone.
    rng = np.random.default_rng(26)
    suggested = suggested_v_opt(0.1, variance=0.35 * 0.65)
    for pi in (0.1, 0.5):
        v = []
        for _ in range(40):
            cell = ScoreCell({"up": superiority(0.1)})
            while cell.n < 50_000 and cell.interval(0.05, v_opt=suggested).lower <= 0.0:
                step = max(20, cell.n // 20)
                z = rng.random(step) < pi
                cell.fold(z, np.full(step, pi), (rng.random(step) < 0.3 + 0.1 * z).astype(float))
            v.append(cell.state()["moments"]["v"])
        assert suggested / 2.5 < np.mean(v) < suggested * 2.5
    for effect, variance in ((0.0, 1.0), (1.0, -1.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="positive"):
            suggested_v_opt(effect, variance)
