"""The band around a distribution function: the paper's constant, its shape, and how often it misses."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.stats.ecdf import FEWEST, ecdf_radius


def test_the_constant_is_the_one_of_the_paper() -> None:
    """Howard & Ramdas (2022), equation 3: 0.85 sqrt((log log(e t / t_min) + 8.12) / t) at level 0.05."""
    n, n_min = 1000, 32
    expected = 0.85 * np.sqrt((np.log(np.log(np.e * n / n_min)) + 8.12) / n)
    assert ecdf_radius(n, 0.05, n_min=n_min) == pytest.approx(expected, rel=1e-3)


def test_it_narrows_with_observations_and_widens_with_confidence() -> None:
    radii = [ecdf_radius(n, 0.01) for n in (FEWEST, 100, 1000, 10**6)]
    assert radii == sorted(radii, reverse=True)
    assert radii[-1] < 0.004
    assert ecdf_radius(500, 0.001) > ecdf_radius(500, 0.01) > ecdf_radius(500, 0.1)


def test_of_few_observations_nothing_is_said() -> None:
    assert ecdf_radius(FEWEST - 1, 0.5) == 1.0
    with pytest.raises(ValueError, match="level"):
        ecdf_radius(100, 1.0)


def test_a_band_is_left_seldom_at_any_time() -> None:
    """Uniform observations, looked at after each of 2,000: at level 0.2 fewer than 0.2 of 200 runs leave the band."""
    chance, runs, n = np.random.default_rng(7), 200, 2000
    radius = np.array([ecdf_radius(k, 0.2) for k in range(1, n + 1)])
    left = 0
    grid = np.linspace(0.02, 0.98, 49)
    for _ in range(runs):
        below = np.cumsum(chance.random(n)[:, None] <= grid, axis=0) / np.arange(1, n + 1)[:, None]
        left += bool((np.abs(below - grid).max(axis=1) > radius).any())
    assert left <= 0.2 * runs
