"""D1 and D3 in a cell: one reference implementation, any chunking, hostile input, extreme streams."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.stats import Bet, ScoreCell, futility, harm, non_inferiority, superiority

BETS = {"up": superiority(0.05), "ni": non_inferiority(0.1), "down": harm(), "futile": futility(0.05)}


def stream(seed: int, n: int, kind: str = "bounded") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ramp = np.array([0.01, 0.1, 0.5, 0.5])[np.arange(n) * 4 // n]
    pi = rng.choice([0.01, 0.1, 0.5, 0.9], n) if seed % 2 else ramp
    z = rng.random(n) < pi
    g = {
        "bounded": rng.random(n),
        "binary": (rng.random(n) < 0.1 + 0.3 * z).astype(float),
        "zero": np.zeros(n),
        "constant": np.full(n, 0.25),
    }[kind]
    return z, pi, g


def folded(z: np.ndarray, pi: np.ndarray, g: np.ndarray, cuts: list[int] | None = None) -> ScoreCell:
    cell = ScoreCell(BETS)
    edges = [0, *sorted(cuts or []), len(g)]
    for begin, end in itertools.pairwise(edges):
        cell.fold(z[begin:end], pi[begin:end], g[begin:end])
    return cell


def naive(bet: Bet, z: np.ndarray, pi: np.ndarray, g: np.ndarray) -> tuple[float, float, float, float, float]:
    """D1 and D3 unit by unit in plain Python, straight from the formulas: log E, peak, sum psi, sum h, V."""
    lam = [0.5, 0.71, 1.0, 1.41, 2.0, 4.0] if bet.effect else [0.05, 0.1, 0.2, 0.4, 0.8, 1.6]
    weights = [0.15, 0.2, 0.3, 0.15, 0.1, 0.1] if bet.effect else [1 / 6] * 6
    wealth, peak, total, residual, epoch_end = [0.0] * 6, 0.0, 0.0, 0.0, 0
    m = variance = t = sum_psi = sum_h = v = 0.0
    for n, (z_, pi_, g_) in enumerate(zip(z.tolist(), pi.tolist(), g.tolist(), strict=True)):
        if n == epoch_end:
            m, variance = (total + 0.5) / (n + 1), (0.25 + residual) / (n + 1)
            t = max(-1.0, min(1.0, sum_psi / sum_h)) if sum_h else 0.0
            epoch_end = n + min(max(n // 16, 1), 512)
        h, psi = pi_ * (1 - pi_), (z_ - pi_) * (g_ - m)
        worst = min(bet.sign * ((a - pi_) * (b - m) - h * bet.shift) for a in (0, 1) for b in (0, 1))
        for k in range(6):
            wanted = lam[k] * bet.effect / variance if bet.effect else lam[k] / math.sqrt(variance)
            kappa = min(wanted, 0.9 / -worst)
            wealth[k] += math.log(1 + bet.sign * kappa * (psi - h * bet.shift))
        peak = max(peak, math.log(math.fsum(w * math.exp(x) for w, x in zip(weights, wealth, strict=True))))
        v += (psi - h * t) ** 2
        sum_psi, sum_h, total, residual = sum_psi + psi, sum_h + h, total + g_, residual + (g_ - m) ** 2
    log_e = math.log(math.fsum(w * math.exp(x) for w, x in zip(weights, wealth, strict=True)))
    return log_e, peak, sum_psi, sum_h, v


@pytest.mark.parametrize("kind", ["bounded", "binary", "zero", "constant"])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_cell_is_the_formula(kind: str, seed: int) -> None:
    z, pi, g = stream(seed, 1500, kind)
    cell = folded(z, pi, g)
    for name, bet in BETS.items():
        log_e, peak, sum_psi, sum_h, v = naive(bet, z, pi, g)
        assert cell.log_e(name) == pytest.approx(log_e, abs=1e-9)
        assert cell.peak_log_e(name) == pytest.approx(peak, abs=1e-9)
        moments = cell.state()["moments"]
        assert [moments[key] for key in ("sum_psi", "sum_h", "v")] == pytest.approx([sum_psi, sum_h, v], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    kind=st.sampled_from(["bounded", "binary", "zero"]),
    n=st.integers(1, 900),
    cuts=st.lists(st.integers(0, 900), max_size=12),
)
def test_any_chunking_gives_the_same_bits(seed: int, kind: str, n: int, cuts: list[int]) -> None:
    z, pi, g = stream(seed, n, kind)
    assert folded(z, pi, g, [min(cut, n) for cut in cuts]).state() == folded(z, pi, g).state()


def test_unit_by_unit_and_across_blocks_gives_the_same_bits() -> None:
    z, pi, g = stream(3, 400)
    assert folded(z, pi, g, list(range(400))).state() == folded(z, pi, g).state()
    z, pi, g = stream(4, 20_000, "binary")
    assert folded(z, pi, g, [1, 511, 4095, 4096, 4097, 9000, 12_289]).state() == folded(z, pi, g).state()


def test_single_units_may_wait_without_a_trace() -> None:
    z, pi, g = stream(5, 1300)
    cell, whole = ScoreCell(BETS), ScoreCell(BETS)
    for i, unit in enumerate(zip(z.tolist(), pi.tolist(), g.tolist(), strict=True)):
        cell.add(*unit)
        if i in (0, 3, 700):
            assert cell.n == i + 1
            assert cell.log_e("up") == folded(z[: i + 1], pi[: i + 1], g[: i + 1]).log_e("up")
        if i == 900:
            cell.fold([], [], [])
    whole.fold(z, pi, g)
    assert cell.peak_log_e("down") == whole.peak_log_e("down")
    assert cell.state() == whole.state()
    cell.add(True, 0.5, 1.0)
    before = cell.state()
    for bad in ((2, 0.5, 1.0), (math.nan, 0.5, 1.0), (True, 1.0, 1.0), (True, math.nan, 1.0), (True, 0.5, math.nan)):
        with pytest.raises(ValueError, match="must"):
            cell.add(*bad)
    assert cell.state() == before
    with pytest.raises(ValueError, match="covariates"):
        ScoreCell(BETS, covariates=1).add(True, 0.5, 1.0)


def test_the_peak_is_the_maximum_over_every_unit() -> None:
    z, pi, g = stream(7, 600, "binary")
    cell, seen = ScoreCell(BETS), dict.fromkeys(BETS, 0.0)
    for i in range(600):
        cell.fold(z[i : i + 1], pi[i : i + 1], g[i : i + 1])
        seen = {name: max(seen[name], cell.log_e(name)) for name in BETS}
        assert seen == {name: cell.peak_log_e(name) for name in BETS}
    assert seen == {name: folded(z, pi, g).peak_log_e(name) for name in BETS}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), n=st.integers(0, 300), more=st.integers(0, 300))
def test_a_restored_cell_goes_on_as_if_nothing_had_happened(seed: int, n: int, more: int) -> None:
    z, pi, g = stream(seed, n + more)
    cell = folded(z[:n], pi[:n], g[:n])
    restored = ScoreCell.restore(BETS, json.loads(json.dumps(cell.state())))
    assert restored.state() == cell.state()
    restored.fold(z[n:], pi[n:], g[n:])
    assert restored.state() == folded(z, pi, g).state()


def test_a_state_of_other_bets_is_refused() -> None:
    state = ScoreCell(BETS).state()
    with pytest.raises(ValueError, match="holds the bets"):
        ScoreCell.restore({"up": BETS["up"]}, state)
    with pytest.raises(ValueError, match="another bet"):
        ScoreCell.restore({**BETS, "up": superiority(0.06)}, state)
    broken = {**state["bets"], "up": {**state["bets"]["up"], "log_wealth": [0.0]}}
    with pytest.raises(ValueError, match="stakes"):
        ScoreCell.restore(BETS, {**state, "bets": broken})
    with pytest.raises(ValueError, match="version"):
        ScoreCell.restore(BETS, {**state, "version": 0})
    with pytest.raises(ValueError, match="fields"):
        ScoreCell.restore(BETS, {**state, "moments": {}})
    with pytest.raises(ValueError, match="at least one"):
        ScoreCell({})


GOOD = ([True, False], [0.5, 0.5], [0.0, 1.0])


@pytest.mark.parametrize(
    ("z", "pi", "g"),
    [
        ([True], *GOOD[1:]),
        (*GOOD[:2], [0.0, 1.0, 1.0]),
        ([2, 0], *GOOD[1:]),
        ([math.nan, 0], *GOOD[1:]),
        (GOOD[0], [0.5, 0.0], GOOD[2]),
        (GOOD[0], [0.5, 1.0], GOOD[2]),
        (GOOD[0], [0.5, math.nan], GOOD[2]),
        (*GOOD[:2], [0.5, math.nan]),
        (*GOOD[:2], [0.5, math.inf]),
        (*GOOD[:2], [0.5, -1e-9]),
        (*GOOD[:2], [0.5, 1.0 + 1e-9]),
        ([[True, False]], [[0.5, 0.5]], [[0.0, 1.0]]),
        (["a", "b"], *GOOD[1:]),
    ],
)
def test_bad_input_is_refused_before_anything_changes(z: list[Any], pi: list[Any], g: list[Any]) -> None:
    cell = folded(*stream(1, 50))
    before = cell.state()
    with pytest.raises(ValueError, match=r"must|1-d"):
        cell.fold(z, pi, g)
    assert cell.state() == before


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("arms", "pi"), [("both", 0.5), ("both", 0.01), ("champion", 0.01), ("challenger", 0.99)])
def test_constant_outcomes_and_empty_arms_are_no_evidence(level: float, arms: str, pi: float) -> None:
    coins = np.random.default_rng(0).random(5000) < pi
    z = {"both": coins, "champion": np.zeros(5000, bool), "challenger": np.ones(5000, bool)}[arms]
    cell = ScoreCell({"up": superiority(0.05), "generic": superiority(), "down": harm()})
    for begin in range(0, 5000, 50):
        window = slice(begin, begin + 50)
        cell.fold(z[window], np.full(50, pi), np.full(50, level))
        interval = cell.interval(0.05, v_opt=50.0)
        assert -1.0 <= interval.lower <= interval.estimate <= interval.upper <= 1.0
        assert interval.lower < 0.0 < interval.upper
    assert max(cell.peak_log_e(name) for name in ("up", "generic", "down")) < math.log(20.0)
    assert all(math.isfinite(cell.log_e(name)) for name in ("up", "generic", "down"))


def test_an_empty_cell_knows_nothing() -> None:
    cell = ScoreCell(BETS)
    cell.fold([], [], [])
    for method in ("exact", "asymptotic"):
        interval = cell.interval(0.05, v_opt=50.0, method=method)
        assert (interval.estimate, interval.lower, interval.upper) == (0.0, -1.0, 1.0)
    assert (cell.n, cell.counts, cell.sums) == (0, (0, 0), (0.0, 0.0))
    assert all(math.isnan(x) for x in (*cell.means, *cell.variances))
    assert [cell.log_e(name) for name in BETS] == pytest.approx([0.0] * len(BETS), abs=1e-15)
    with pytest.raises(ValueError, match="method"):
        cell.interval(0.05, v_opt=50.0, method="bayes")  # type: ignore[arg-type]


def test_log_space_carries_e_values_beyond_float64() -> None:
    cell = ScoreCell(BETS)
    z = np.arange(40_000) % 2 == 0
    cell.fold(z, np.full(40_000, 0.5), z.astype(float))
    assert cell.log_e("up") > 1000.0
    assert cell.log_e("down") < -1000.0
    assert cell.peak_log_e("up") == cell.log_e("up")
    cell.fold(~z, np.full(40_000, 0.5), z.astype(float))
    assert all(math.isfinite(cell.log_e(name)) for name in BETS)
    json.dumps(cell.state(), allow_nan=False)


def test_tiny_propensities_neither_overflow_nor_warn() -> None:
    pi = np.array([5e-324, 1e-300, 1e-12, 1.0 - 1e-16, 0.5])
    with np.errstate(all="raise", under="ignore"):
        cell = folded(np.array([True, True, True, False, True]), pi, np.array([1.0, 0.0, 1.0, 0.0, 1.0]))
        interval = cell.interval(0.05, v_opt=10.0)
    assert -1.0 <= interval.lower <= interval.estimate <= interval.upper <= 1.0
    assert all(math.isfinite(cell.log_e(name)) for name in BETS)


def test_display_moments_are_those_of_numpy_also_on_a_large_constant() -> None:
    rng = np.random.default_rng(11)
    z = rng.random(30_000) < 0.3
    for g in (rng.random(30_000), 0.5 + 5e-10 * rng.standard_normal(30_000)):
        cell = ScoreCell(BETS)
        cell.fold(z, np.full(30_000, 0.3), g)
        assert cell.counts == (int((~z).sum()), int(z.sum()))
        assert cell.sums == pytest.approx((g[~z].sum(), g[z].sum()), rel=1e-12)
        assert cell.means == pytest.approx((g[~z].mean(), g[z].mean()), rel=1e-12)
        assert cell.variances == pytest.approx((g[~z].var(ddof=1), g[z].var(ddof=1)), rel=1e-6, abs=0.0)
