"""Scores: bounds, ties, extreme values, and the tests they feed."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.stats import (
    Reference,
    ScoreCell,
    count_score,
    exceedance,
    harm,
    ratio_score,
    superiority,
    winsorised_score,
)

numbers = st.lists(st.floats(allow_nan=False), min_size=1, max_size=30)
amounts = st.lists(st.floats(0.0, allow_nan=False), min_size=1, max_size=30)


@given(y=amounts, cap=st.floats(1e-300, 1e300))
def test_count_scores_are_bounded_and_keep_the_order(y: list[float], cap: float) -> None:
    g = count_score(np.sort(y), cap)
    assert ((g >= 0.0) & (g <= 1.0)).all()
    assert (np.diff(g) >= 0.0).all()


@given(y=numbers, low=st.floats(-1e300, 1e300), width=st.floats(1e-3, 1e300))
def test_winsorised_scores_are_bounded_and_keep_the_order(y: list[float], low: float, width: float) -> None:
    if low < low + width:
        g = winsorised_score(np.sort(y), low, low + width)
        assert ((g >= 0.0) & (g <= 1.0)).all()
        assert (np.diff(g) >= 0.0).all()


@given(
    units=st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(0.0, 5.0)), min_size=1, max_size=20),
    ratio=st.floats(0.0, 1e6),
)
def test_ratio_scores_are_bounded_and_linear(units: list[tuple[float, float]], ratio: float) -> None:
    top, bottom = np.array(units).T
    g = ratio_score(top, bottom, ratio=ratio, numerator_cap=10.0, denominator_cap=5.0)
    assert ((g >= 0.0) & (g <= 1.0)).all()
    assert g * (10.0 + ratio * 5.0) - ratio * 5.0 == pytest.approx(top - ratio * bottom, abs=1e-8 * (1.0 + ratio))


@given(sample=numbers, y=numbers)
def test_ranks_are_the_share_below_plus_half_the_ties(sample: list[float], y: list[float]) -> None:
    ranks = Reference.freeze(sample).ranks(y)
    for value, rank in zip(y, ranks, strict=True):
        expected = math.fsum((x < value) + 0.5 * (x == value) for x in sample) / len(sample)
        assert rank == pytest.approx(expected, abs=1e-12)
    assert ((ranks >= 0.0) & (ranks <= 1.0)).all()


def test_known_values() -> None:
    assert count_score([0, 3, 12, math.inf], 6.0).tolist() == [0.0, 0.5, 1.0, 1.0]
    assert winsorised_score([-math.inf, 2.0, 4.0, 99.0], 0.0, 8.0).tolist() == [0.0, 0.25, 0.5, 1.0]
    assert exceedance([1.0, 2.0, 2.5, math.inf], 2.0).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert exceedance([1.0, 2.0], [0.5, 3.0]).tolist() == [1.0, 0.0]
    assert Reference.freeze([1, 2, 2, 5]).ranks([0, 2, 3, 5, 9]).tolist() == [0.0, 0.5, 0.75, 0.875, 1.0]
    assert ratio_score([3.0], [2.0], ratio=1.5, numerator_cap=10.0, denominator_cap=4.0) == pytest.approx(6.0 / 16.0)


def test_a_reference_is_frozen_and_changes_only_at_later_epochs() -> None:
    first = Reference.freeze(np.arange(2000)[::-1], epoch=2000)
    assert (len(first.sample), first.sample[-1]) == (500, 499.0)
    second = first.refreshed([5.0, 3.0], epoch=2512)
    assert (second.sample, second.epoch) == ((3.0, 5.0), 2512)
    assert Reference.restore(json.loads(json.dumps(first.state()))) == first
    with pytest.raises(ValueError, match="later epoch"):
        first.refreshed([1.0], epoch=2000)


@pytest.mark.parametrize("tail", ["lognormal", "pareto", "zeros"])
@pytest.mark.parametrize("score", ["rank", "winsorised", "count"])
def test_heavy_tails_keep_the_error_at_a_small_split(tail: str, score: str) -> None:
    # T11: asymptotic sequences alarm in 15-59 % of such runs at a 2 % split.
    rng = np.random.default_rng(4)
    n, runs, hits = 2000, 100, 0
    draw: dict[str, Any] = {
        "lognormal": lambda size: rng.lognormal(0.0, 2.0, size),
        "pareto": lambda size: rng.pareto(1.5, size),
        "zeros": lambda size: np.where(rng.random(size) < 0.98, 0.0, rng.lognormal(0.0, 2.0, size)),
    }
    for _ in range(runs):
        past, y = draw[tail](1000), draw[tail](n)
        high = float(np.quantile(past, 0.995))
        if score == "rank":
            g = Reference.freeze(past).ranks(y)
        else:
            g = winsorised_score(y, 0.0, high) if score == "winsorised" else count_score(y, high)
        cell = ScoreCell({"up": superiority(), "down": harm()})
        cell.fold(rng.random(n) < 0.02, np.full(n, 0.02), g)
        hits += max(cell.peak_log_e("up"), cell.peak_log_e("down")) >= math.log(40.0)
    assert hits / runs <= 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / runs)


def test_bad_arguments_are_refused() -> None:
    for make in (
        lambda: count_score([-1.0], 5.0),
        lambda: count_score([math.nan], 5.0),
        lambda: count_score([1.0], 0.0),
        lambda: winsorised_score([1.0], 2.0, 2.0),
        lambda: winsorised_score([1.0], -math.inf, 2.0),
        lambda: exceedance([math.nan], 1.0),
        lambda: exceedance([1.0], math.nan),
        lambda: ratio_score([11.0], [1.0], ratio=1.0, numerator_cap=10.0, denominator_cap=5.0),
        lambda: ratio_score([1.0], [-1.0], ratio=1.0, numerator_cap=10.0, denominator_cap=5.0),
        lambda: ratio_score([1.0], [1.0], ratio=math.inf, numerator_cap=10.0, denominator_cap=5.0),
        lambda: Reference(()),
        lambda: Reference((2.0, 1.0)),
        lambda: Reference((1.0,), -1),
        lambda: Reference.freeze([1.0], size=0),
        lambda: Reference.freeze([1.0]).ranks([math.nan]),
    ):
        with pytest.raises(ValueError, match=r"must|only"):
            make()
