"""Corrections against brute-force closures, hand-computed vectors and simulated error rates."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.stats import (
    anytime_p,
    benjamini_yekutieli,
    bonferroni_threshold,
    e_bh,
    e_holm,
    holm,
    spent_alpha,
)

logs = st.lists(st.floats(-30.0, 30.0), min_size=1, max_size=6)


@given(logs)
def test_e_holm_is_the_closure_of_the_mean(values: list[float]) -> None:
    adjusted = e_holm(values)
    others = range(len(values))
    for i in others:
        closed = min(
            math.log(math.fsum(math.exp(values[j]) for j in (i, *chosen)) / (len(chosen) + 1))
            for size in range(len(values))
            for chosen in itertools.combinations([j for j in others if j != i], size)
        )
        assert adjusted[i] == pytest.approx(closed, abs=1e-9)
        assert adjusted[i] <= values[i] + 1e-12
        assert adjusted[i] >= values[i] - math.log(len(values)) - 1e-12  # never weaker than e-Bonferroni


@given(logs, st.sampled_from([0.01, 0.05, 0.2]))
def test_e_bh_rejects_the_largest_set_that_supports_itself(values: list[float], alpha: float) -> None:
    rejected = e_bh(values, alpha)
    needed = math.log(len(values) / alpha)
    assert all(values[j] >= needed - math.log(len(rejected)) - 1e-12 for j in rejected)
    for size in range(len(rejected) + 1, len(values) + 1):
        assert sorted(values)[-size] < needed - math.log(size) + 1e-12


def test_e_bh_by_hand() -> None:
    # K = 4, alpha = .1: 40/k = 40, 20, 13.3, 10 against 50, 25, 12, 11: the fourth carries the third.
    assert e_bh(np.log([11.0, 50.0, 12.0, 25.0]), 0.1) == [0, 1, 2, 3]
    assert e_bh(np.log([9.0, 50.0, 12.0, 25.0]), 0.1) == [1, 3]
    assert e_bh(np.log([9.0, 30.0]), 0.05) == []
    assert e_bh([], 0.05) == []


def test_false_discoveries_stay_below_alpha() -> None:
    rng = np.random.default_rng(1)
    runs, null, real, alpha, share = 2000, 16, 4, 0.1, 0.0
    for _ in range(runs):
        x = rng.standard_normal(null + real)
        x[null:] += 3.0
        rejected = e_bh(2.0 * x - 2.0, alpha)  # log likelihood ratio of N(2, 1) against N(0, 1)
        share += sum(j < null for j in rejected) / max(len(rejected), 1)
    assert share / runs <= alpha


def test_p_values_by_hand() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    harmonic = 1.0 + 1 / 2 + 1 / 3 + 1 / 4
    assert benjamini_yekutieli(p) == pytest.approx([0.02 * harmonic, 0.04 * harmonic, 0.04 * harmonic, 0.02 * harmonic])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert anytime_p([0.0, -3.0, math.log(20.0)]) == pytest.approx([1.0, 1.0, 0.05])


def test_spending_adds_up_to_alpha() -> None:
    assert spent_alpha(0.05, 1) == pytest.approx(0.05 * 6.0 / math.pi**2)
    assert math.fsum(spent_alpha(0.05, j) for j in range(1, 100_000)) == pytest.approx(0.05, rel=1e-4)
    assert bonferroni_threshold(spent_alpha(0.05, 3)) == pytest.approx(-math.log(0.05 * 6 / (9 * math.pi**2)))


def test_bad_arguments_are_refused() -> None:
    for make in (
        lambda: e_bh([1.0], 0.0),
        lambda: e_bh([math.nan], 0.05),
        lambda: e_holm([[1.0]]),
        lambda: holm([1.5]),
        lambda: benjamini_yekutieli([-0.1]),
        lambda: spent_alpha(0.05, 0),
        lambda: spent_alpha(1.0, 1),
    ):
        with pytest.raises(ValueError, match="must"):
            make()
