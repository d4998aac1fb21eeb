"""P1 and paired differences: exact expectations, one-sidedness, power, exact states."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from gateway.stats import Bet, PairedCell, harm, non_inferiority, paired_log_e, superiority

BETS = {"up": superiority(0.05), "down": harm(), "ni": non_inferiority(0.1)}


@pytest.mark.parametrize("n", [1, 6, 60])
def test_p1_is_fair_at_even_odds_and_loses_below(n: int) -> None:
    for one_sided, p in ((True, 0.5), (False, 0.5), (True, 0.3)):
        mean = math.fsum(
            math.comb(n, b) * p**b * (1 - p) ** (n - b) * math.exp(paired_log_e(b, n - b, one_sided=one_sided))
            for b in range(n + 1)
        )
        assert mean == pytest.approx(1.0, abs=1e-10) if p == 0.5 else mean < 1.0


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (3, 1), (0, 5), (40, 20), (5, 60)])
def test_p1_is_the_mixture_it_claims_to_be(wins: int, losses: int) -> None:
    def density(t: float) -> float:  # p = sin(t)^2 turns Beta(1/2, 1/2) into a uniform angle
        return (2.0 * math.sin(t) ** 2) ** wins * (2.0 * math.cos(t) ** 2) ** losses

    one = integrate.quad(density, math.pi / 4, math.pi / 2)[0] / (math.pi / 4)
    both = integrate.quad(density, 0.0, math.pi / 2)[0] / (math.pi / 2)
    assert paired_log_e(wins, losses) == pytest.approx(math.log(one), abs=1e-7)
    assert paired_log_e(wins, losses, one_sided=False) == pytest.approx(math.log(both), abs=1e-7)


def test_p1_carries_any_counts() -> None:
    values = [paired_log_e(1000, losses) for losses in range(0, 20_000, 100)]
    assert np.isfinite(values).all()
    assert (np.diff(values) < 0.0).all()
    assert paired_log_e(10**9, 0) == pytest.approx(1e9 * math.log(2.0), rel=1e-6)
    assert math.isfinite(paired_log_e(0, 10**9))
    for wins, losses, prior in ((-1, 0, 0.5), (0, -1, 0.5), (0, 0, 0.0)):
        with pytest.raises(ValueError, match="must"):
            paired_log_e(wins, losses, prior=prior)


def test_a_pair_of_fair_differences_is_worth_one_by_enumeration() -> None:
    # Two-point differences of mean 0 (up, down, and rare), over all paths of six pairs.
    bets = {"up": superiority(), "down": harm()}
    points = [(0.5, -0.5, 0.5), (0.2, 0.8, -0.2), (0.9, -0.1, 0.9)]  # chance of the first, first, second
    assert all(p * a + (1 - p) * b == pytest.approx(0.0) for p, a, b in points)
    mean = dict.fromkeys(bets, 0.0)
    for path in itertools.product((0, 1), repeat=6):
        cell, chance = PairedCell(bets), 1.0
        d = [points[i % 3][1 + side] for i, side in enumerate(path)]
        for i, side in enumerate(path):
            chance *= points[i % 3][0] if side == 0 else 1.0 - points[i % 3][0]
        cell.fold(d)
        for name in bets:
            mean[name] += chance * math.exp(cell.log_e(name))
    assert list(mean.values()) == pytest.approx([1.0, 1.0], abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(d=st.lists(st.floats(-1.0, 1.0), max_size=200), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_any_chunking_and_any_restart_gives_the_same_bits(d: list[float], cuts: list[int]) -> None:
    whole, parts = PairedCell(BETS), PairedCell(BETS)
    whole.fold(d)
    for begin, end in itertools.pairwise([0, *sorted(min(cut, len(d)) for cut in cuts), len(d)]):
        parts.fold(d[begin:end])
        parts = PairedCell.restore(BETS, json.loads(json.dumps(parts.state())))
    assert whole.state() == parts.state()
    interval = whole.interval(0.05, v_opt=5.0)
    assert -1.0 <= interval.lower <= interval.estimate <= interval.upper <= 1.0


def test_equal_scores_are_rarely_separated_and_the_interval_covers() -> None:
    rng = np.random.default_rng(1)
    runs, n, alpha, crossed, missed = 200, 1000, 0.05, 0, 0
    for _ in range(runs):
        drift = 0.1 * np.sin(np.arange(n) / 100.0)
        cell = PairedCell({"up": superiority(), "down": harm()})
        level = np.cumsum(drift) / np.arange(1, n + 1)
        d = np.clip(0.3 * rng.standard_normal(n), -0.9, 0.9)
        cell.fold(d)
        crossed += max(cell.peak_log_e("up"), cell.peak_log_e("down")) >= math.log(2.0 / alpha)
        moving, outside = PairedCell({"up": superiority()}), False
        for begin in range(0, n, 50):
            moving.fold(d[begin : begin + 50] + drift[begin : begin + 50])
            interval = moving.interval(alpha, v_opt=10.0)
            outside |= not interval.lower <= level[begin + 49] <= interval.upper
        missed += outside
    bound = alpha + 2.33 * math.sqrt(alpha * (1.0 - alpha) / runs)
    assert crossed / runs <= bound
    assert missed / runs <= bound


def test_a_better_model_is_found() -> None:
    rng = np.random.default_rng(2)
    cell = PairedCell({"up": superiority(0.03)})
    cell.fold(np.clip(0.03 + 0.2 * rng.standard_normal(3000), -1.0, 1.0))
    assert cell.log_e("up") >= math.log(100.0)
    assert cell.interval(0.05, v_opt=17.0).lower > 0.0
    assert cell.mean == pytest.approx(0.03, abs=0.02)


def test_bad_input_is_refused() -> None:
    cell = PairedCell(BETS)
    assert math.isnan(cell.mean)
    cell.fold([0.5])
    before = cell.state()
    for d in ([1.5], [math.nan], [[0.0]]):
        with pytest.raises(ValueError, match="d must"):
            cell.fold(d)
    assert cell.state() == before
    assert cell.n == 1
    with pytest.raises(ValueError, match="at least one"):
        PairedCell({})
    with pytest.raises(ValueError, match="holds the bets"):
        PairedCell.restore({"up": BETS["up"]}, before)
    with pytest.raises(ValueError, match="another bet"):
        PairedCell.restore({**BETS, "up": Bet(-1)}, before)
