"""CUPED inside D1: gains with good covariates, no harm to validity with bad ones, exact states."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.stats import ScoreCell, harm, superiority

BETS = {"up": superiority(0.05), "down": harm()}


def stream(rng: np.random.Generator, n: int, r2: float, tau: float, p: int = 2) -> tuple[np.ndarray, ...]:
    """g in [0, 1] of which the covariates explain about r2; pi = 1/2."""
    x = rng.standard_normal((n, p))
    signal = x.sum(axis=1) / math.sqrt(p)
    z = rng.random(n) < 0.5
    noise = rng.standard_normal(n)
    g = np.clip(0.5 + 0.1 * (math.sqrt(r2) * signal + math.sqrt(1.0 - r2) * noise) + tau * z, 0.0, 1.0)
    return z, np.full(n, 0.5), g, x


def units(covariates: int, r2: float, rng: np.random.Generator) -> int:
    z, pi, g, x = stream(rng, 12_000, r2, 0.01)
    cell = ScoreCell({"up": superiority(0.01)}, covariates=covariates)
    for begin in range(0, 12_000, 50):
        cut = slice(begin, begin + 50)
        cell.fold(z[cut], pi[cut], g[cut], x[cut] if covariates else None)
        if cell.log_e("up") >= math.log(20.0):
            break
    return cell.n


def test_explained_variance_saves_its_share_of_units() -> None:
    for r2 in (0.5, 0.8):
        rng = np.random.default_rng(1)
        with_x = np.mean([units(2, r2, rng) for _ in range(40)])
        rng = np.random.default_rng(1)
        without = np.mean([units(0, r2, rng) for _ in range(40)])
        assert with_x / without <= 1.15 * (1.0 - r2) + 0.15


@pytest.mark.parametrize("kind", ["noise", "huge", "constant", "collinear", "trend", "outcome of the past"])
def test_any_covariate_leaves_the_null_alone(kind: str) -> None:
    rng = np.random.default_rng(2)
    n, runs, alpha, hits = 1500, 120, 0.05, 0
    for _ in range(runs):
        z, pi, g, _ = stream(rng, n, 0.5, 0.0)
        g = (g > 0.6).astype(float)
        first = {
            "noise": rng.standard_normal(n),
            "huge": 1e9 * np.sign(rng.standard_normal(n)),
            "constant": np.full(n, 3.0),
            "collinear": rng.standard_normal(n),
            "trend": np.arange(n) * 1.0,
            "outcome of the past": np.concatenate([[0.0], g[:-1]]),
        }[kind]
        x = np.column_stack([first, first if kind == "collinear" else rng.random(n)])
        cell = ScoreCell(BETS, covariates=2)
        cell.fold(z, pi, g, x)
        hits += max(cell.peak_log_e("up"), cell.peak_log_e("down")) >= math.log(2.0 / alpha)
        interval = cell.interval(0.05, v_opt=10.0)
        assert -1.0 <= interval.lower <= interval.estimate <= interval.upper <= 1.0
    assert hits / runs <= alpha + 2.33 * math.sqrt(alpha * (1.0 - alpha) / runs)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 700), cuts=st.lists(st.integers(0, 700), max_size=8), seed=st.integers(0, 999))
def test_any_chunking_and_any_restart_gives_the_same_bits(n: int, cuts: list[int], seed: int) -> None:
    z, pi, g, x = stream(np.random.default_rng(seed), n, 0.5, 0.02)
    whole, parts = ScoreCell(BETS, covariates=2), ScoreCell(BETS, covariates=2)
    whole.fold(z, pi, g, x)
    for begin, end in itertools.pairwise([0, *sorted(min(cut, n) for cut in cuts), n]):
        parts.fold(z[begin:end], pi[begin:end], g[begin:end], x[begin:end])
        parts = ScoreCell.restore(BETS, json.loads(json.dumps(parts.state())))
    assert whole.state() == parts.state()


def test_bad_covariates_are_refused_before_anything_changes() -> None:
    cell = ScoreCell(BETS, covariates=1)
    cell.fold([True], [0.5], [1.0], [[2.0]])
    before = cell.state()
    for x in (None, [1.0], [[1.0, 2.0]], [[math.nan]], [[math.inf]], [[1e10]]):
        with pytest.raises(ValueError, match="x must"):
            cell.fold([True], [0.5], [1.0], x)
    assert cell.state() == before
    with pytest.raises(ValueError, match="without covariates"):
        ScoreCell(BETS).fold([True], [0.5], [1.0], [[1.0]])
    for p in (-1, 5):
        with pytest.raises(ValueError, match="covariates"):
            ScoreCell(BETS, covariates=p)
    broken = {**before, "regression": {**before["regression"], "sums": [0.0]}}
    with pytest.raises(ValueError, match="sums"):
        ScoreCell.restore(BETS, broken)
