"""The factor of one unit: exact expectations, growth-rate optimality and the floor of 0.1."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.stats import Bet, futility, harm, harm_beyond, non_inferiority, superiority, superiority_by

BETS = {
    "superiority": superiority(0.03),
    "superiority, generic": superiority(),
    "superiority by": superiority_by(0.02, 0.05),
    "non-inferiority": non_inferiority(0.05),
    "wide non-inferiority": non_inferiority(0.6),
    "harm": harm(),
    "harm beyond": harm_beyond(0.1),
    "futility": futility(0.04),
}
SPLITS = (1e-4, 0.01, 0.1, 0.5, 0.9, 0.999)
GUESSES = (1e-4, 0.05, 0.5, 0.8, 0.999)


def expected_factor(bet: Bet, pi: float, m: float, theta0: float, theta1: float) -> np.ndarray:
    """E of every stake's factor by enumeration of z and y; shape (K,)."""
    variance = np.array([max(m * (1.0 - m), 1e-5)])
    kappa = bet.stakes(np.array([pi]), np.array([m]), variance)[:, 0]
    total = np.zeros_like(kappa)
    for z, y in itertools.product((0, 1), (0, 1)):
        theta = theta1 if z else theta0
        chance = (pi if z else 1.0 - pi) * (theta if y else 1.0 - theta)
        total += chance * bet.factors(kappa, (z - pi) * (y - m), pi * (1.0 - pi))
    return total


@pytest.mark.parametrize("bet", BETS.values(), ids=BETS.keys())
def test_factors_are_fair_on_the_null_boundary_and_lose_inside_it(bet: Bet) -> None:
    for pi, m, theta0 in itertools.product(SPLITS, GUESSES, np.linspace(0.0, 1.0, 11)):
        boundary = theta0 + bet.shift
        if 0.0 <= boundary <= 1.0:
            assert expected_factor(bet, pi, m, theta0, boundary) == pytest.approx(1.0, abs=1e-12)
        for depth in (0.01, 0.2, 0.7):
            inside = boundary - bet.sign * depth
            if 0.0 <= inside <= 1.0:
                assert (expected_factor(bet, pi, m, theta0, inside) < 1.0).all()
            beyond = boundary + bet.sign * depth
            if 0.0 <= beyond <= 1.0:
                assert (expected_factor(bet, pi, m, theta0, beyond) > 1.0).all()


@pytest.mark.parametrize(
    ("pi", "theta0", "theta1"),
    [
        (0.5, 0.05, 0.06),
        (0.5, 0.3, 0.5),
        (0.1, 0.2, 0.25),
        (0.01, 0.1, 0.3),
        (0.9, 0.5, 0.4),
        (0.3, 0.01, 0.9),
    ],
)
def test_factor_equals_the_growth_rate_optimal_e_value_for_bernoulli(pi: float, theta0: float, theta1: float) -> None:
    m = pi * theta1 + (1.0 - pi) * theta0
    kappa = (theta1 - theta0) / (m * (1.0 - m))
    for z, y in itertools.product((0, 1), (0, 1)):
        given_y = [(1.0 - pi) * (theta0 if y else 1.0 - theta0), pi * (theta1 if y else 1.0 - theta1)]
        optimal = given_y[z] / sum(given_y) / (pi if z else 1.0 - pi)
        factor = float(Bet(1).factors(kappa, (z - pi) * (y - m), pi * (1.0 - pi)))
        assert factor == pytest.approx(optimal, abs=1e-9)


@given(
    sign=st.sampled_from([-1, 1]),
    shift=st.floats(-0.999, 0.999),
    effect=st.none() | st.floats(1e-6, 2.0),
    pi=st.floats(1e-9, 1.0 - 1e-9),
    m=st.floats(1e-9, 1.0 - 1e-9),
    variance=st.floats(1e-12, 1.0),
    z=st.booleans(),
    g=st.sampled_from([0.0, 1.0]) | st.floats(0.0, 1.0),
)
def test_no_unit_ever_costs_more_than_nine_tenths(
    sign: int, shift: float, effect: float | None, pi: float, m: float, variance: float, z: bool, g: float
) -> None:
    bet = Bet(sign, shift, effect)
    kappa = bet.stakes(np.array([pi]), np.array([m]), np.array([variance]))
    assert kappa.shape == (len(bet.weights), 1)
    assert (kappa > 0.0).all()
    assert (bet.factors(kappa, (z - pi) * (g - m), pi * (1.0 - pi)) >= 0.1 - 1e-9).all()


def test_the_caps_with_margins_are_those_of_r9() -> None:
    pi, m, delta = 0.1, 0.3, 0.2
    h = pi * (1.0 - pi)
    assert float(non_inferiority(delta).cap(pi, m)) == pytest.approx(0.9 / (max(0.9 * m, pi * 0.7) - h * delta))
    assert float(harm_beyond(delta).cap(pi, m)) == pytest.approx(0.9 / (max(0.9 * 0.7, pi * m) + h * delta))
    assert float(superiority().cap(pi, m)) == pytest.approx(0.9 / max(0.9 * m, pi * 0.7))


def test_weights_sum_to_one() -> None:
    for bet in BETS.values():
        assert math.fsum(bet.weights) == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize(
    ("sign", "shift", "effect"),
    [(0, 0.0, None), (2, 0.0, None), (1, 1.0, None), (1, math.nan, None), (1, 0.0, 0.0), (1, 0.0, math.nan)],
)
def test_bad_bets_are_refused(sign: int, shift: float, effect: float | None) -> None:
    with pytest.raises(ValueError, match="must"):
        Bet(sign, shift, effect)


def test_margins_must_be_positive() -> None:
    for make in (non_inferiority, harm_beyond, futility, superiority_by):
        for value in (0.0, -0.1, math.nan):
            with pytest.raises(ValueError, match="positive"):
                make(value)
