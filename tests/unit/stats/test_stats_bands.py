"""The banded boundary: B2 as its special case, a supermartingale by enumeration, coverage at every n."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.stats import (
    BANDS,
    ScoreCell,
    band_of,
    banded_boundary,
    banded_log_e,
    gamma_exponential_boundary,
    gamma_exponential_log_e,
    one_sided_rho,
    superiority,
)


def only(c: float, v: float) -> list[float]:
    sums = [0.0] * len(BANDS)
    sums[int(band_of(c))] = v
    return sums


@pytest.mark.parametrize("rho", [2.0, 12.6, 300.0])
@pytest.mark.parametrize("v", [5.0, 100.0, 1e4, 1e7])
def test_with_a_range_of_one_it_is_b2(v: float, rho: float) -> None:
    for alpha in (0.05, 0.0005):
        exact = gamma_exponential_boundary(v, alpha, rho=rho)
        assert banded_boundary(only(1.0, v), alpha, rho=rho) == pytest.approx(exact, rel=1e-2 if rho > v else 2e-3)
    s = 3.0 * math.sqrt(v)
    assert banded_log_e(s, only(1.0, v), rho=rho) == pytest.approx(
        float(gamma_exponential_log_e(s, v, rho=rho)), abs=0.02
    )


def test_anchor_of_confseq_rescaled() -> None:
    # confseq 70b1ef3: c = 2, v = 100 gives 33.02017 (rho for v_opt = 100); in units of c: v = 25, u/2.
    rho = one_sided_rho(100.0, 0.05) / 4.0
    assert 2.0 * banded_boundary(only(1.0, 25.0), 0.05, rho=rho) == pytest.approx(33.02017, rel=1e-3)


@given(
    v=st.lists(st.floats(0.0, 1e6), min_size=len(BANDS), max_size=len(BANDS)),
    alpha=st.floats(1e-12, 0.5),
    rho=st.floats(0.1, 1e4),
)
def test_the_boundary_is_where_the_evidence_reaches_its_level(v: list[float], alpha: float, rho: float) -> None:
    u = banded_boundary(v, alpha, rho=rho)
    assert banded_log_e(u, v, rho=rho) == pytest.approx(-math.log(alpha), rel=1e-9)
    assert u <= banded_boundary(only(1.0, math.fsum(v)), alpha, rho=rho) * (1.0 + 1e-12)


def test_the_evidence_has_mean_at_most_one_by_enumeration() -> None:
    # Seven units with outcomes (0, 1) or (1, 0) under the coin and any prediction: all 2^7 coins.
    pis = (0.5, 0.1, 0.5, 0.9, 0.3, 0.5, 0.05)
    y0 = (0.0, 1.0, 1.0, 0.3, 0.0, 1.0, 0.0)
    y1 = (1.0, 0.0, 1.0, 0.9, 0.0, 0.0, 1.0)
    for rho, side in itertools.product((0.2, 1.0, 5.0), (1.0, -1.0)):
        mean = 0.0
        for coins in itertools.product((0, 1), repeat=len(pis)):
            chance, error, v, m, t = 1.0, 0.0, [0.0] * len(BANDS), 0.4, 0.0
            for z, pi, a, b in zip(coins, pis, y0, y1, strict=True):
                h, g = pi * (1.0 - pi), b if z else a
                psi = (z - pi) * (g - m)
                down, up = max((1 - pi) * m, pi * (1 - m)), max((1 - pi) * (1 - m), pi * m)
                v[int(band_of(down + h * t if side > 0 else up - h * t))] += (psi - h * t) ** 2
                error += psi - h * (b - a)
                chance *= pi if z else 1.0 - pi
                m, t = 0.7 * m + 0.3 * g, max(-1.0, min(1.0, t + psi))
            mean += chance * math.exp(banded_log_e(side * error, v, rho=rho))
        assert mean <= 1.0 + 1e-12


def test_the_prior_is_proper() -> None:
    for rho in (1e-3, 1.0, 60.0, 1e6, 1e10):
        assert banded_log_e(0.0, [0.0] * len(BANDS), rho=rho) == pytest.approx(0.0, abs=1e-12)


def test_bands_hold_their_ranges() -> None:
    c = np.linspace(0.0, 1.0, 1001)
    upper = np.array(BANDS)[band_of(c)]
    assert (upper >= c).all()
    assert int(band_of(1.0 + 1e-15)) == len(BANDS) - 1
    assert int(band_of(0.25)) == BANDS.index(0.25)


def test_bad_arguments_are_refused() -> None:
    good = [1.0] * len(BANDS)
    for v in ([1.0], [*good[1:], -1.0], [*good[1:], math.nan]):
        with pytest.raises(ValueError, match="sums"):
            banded_boundary(v, 0.05, rho=1.0)
    with pytest.raises(ValueError, match="level"):
        banded_boundary(good, 1.0, rho=1.0)
    with pytest.raises(ValueError, match="rho"):
        banded_log_e(0.0, good, rho=0.0)


def test_the_cell_covers_at_every_look_and_is_narrower() -> None:
    runs, n, alpha, v_opt = 150, 2000, 0.1, 40.0
    rng = np.random.default_rng(31)
    ramp = np.repeat([0.01, 0.1, 0.5], [500, 500, 1000])
    base, effect = np.linspace(0.1, 0.2, n), np.linspace(0.0, 0.1, n)
    weight = np.cumsum(ramp * (1.0 - ramp))
    target = np.cumsum(ramp * (1.0 - ramp) * effect) / weight
    missed = 0
    for _ in range(runs):
        z = rng.random(n) < ramp
        g = (rng.random(n) < base + effect * z).astype(float)
        cell, outside = ScoreCell({"up": superiority()}), False
        for end in range(40, n + 1, 40):
            cut = slice(end - 40, end)
            cell.fold(z[cut], ramp[cut], g[cut])
            interval = cell.interval(alpha, v_opt=v_opt)
            outside |= not interval.lower <= target[end - 1] <= interval.upper
        missed += outside
        known = cell.state()["moments"]
        assert math.fsum(known["below"]) == pytest.approx(known["v"], rel=1e-12)
        assert math.fsum(known["above"]) == pytest.approx(known["v"], rel=1e-12)
    assert missed / runs <= alpha + 2.33 * math.sqrt(alpha * (1.0 - alpha) / runs)
