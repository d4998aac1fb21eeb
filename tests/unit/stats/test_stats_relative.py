"""Relative margins: exact expectations, the caps of R8, floors, and bets beside absolute ones."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.stats import (
    AnyBet,
    RelativeBet,
    ScoreCell,
    harm,
    relative_harm,
    relative_non_inferiority,
    superiority,
)
from gateway.stats.moments import Scores

SPLITS = (0.01, 0.1, 0.5, 0.9)
MEANS = (0.01, 0.2, 0.6, 0.95)


def scores(z: float, y: float, pi: float, mu0: float, mu1: float, up: bool) -> Scores:
    """One unit as the cell would give it: g is 1 - y where smaller is better."""

    def one(value: float) -> np.ndarray:
        return np.array([value])

    g, a, b = (y, mu0, mu1) if up else (1.0 - y, 1.0 - mu0, 1.0 - mu1)
    return Scores(
        one((z - pi) * (g - 0.5)), one(pi * (1 - pi)), one(pi), one(0.5), one(0.2), one(z), one(g), one(a), one(b)
    )


def expected_gain(bet: RelativeBet, pi: float, mu0: float, mu1: float, theta0: float, theta1: float) -> np.ndarray:
    """E of every stake's gain by enumeration of z and y, theta the means of the raw outcome; shape (K,)."""
    total = np.zeros(len(bet.weights))
    for z, y in itertools.product((0, 1), (0, 1)):
        theta = theta1 if z else theta0
        chance = (pi if z else 1.0 - pi) * (theta if y else 1.0 - theta)
        total += chance * bet.wagers(scores(z, y, pi, mu0, mu1, bet.bigger_is_better))[:, 0]
    return total


@pytest.mark.parametrize("margin", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("passing", [True, False])
def test_gains_are_fair_exactly_at_the_margin(margin: float, up: bool, passing: bool) -> None:
    bet = RelativeBet(margin, up, passing)
    for pi, mu0, mu1, theta0 in itertools.product(SPLITS, MEANS, MEANS, (0.0, 0.1, 0.5)):
        boundary = bet.factor * theta0
        assert expected_gain(bet, pi, mu0, mu1, theta0, boundary) == pytest.approx(0.0, abs=1e-12)
        for step in (-0.05, 0.1):
            theta1 = boundary + step
            if 0.0 <= theta1 <= 1.0:
                assert (np.sign(expected_gain(bet, pi, mu0, mu1, theta0, theta1)) == np.sign(bet.sign * step)).all()


@pytest.mark.parametrize("up", [True, False])
def test_a_floor_widens_the_margin_and_keeps_both_nulls(up: bool) -> None:
    margin, floor = 0.1, 0.02
    passing = relative_non_inferiority(margin, bigger_is_better=up, floor=floor)
    harmful = relative_harm(margin, bigger_is_better=up, floor=floor)
    worse = -1.0 if up else 1.0
    for pi, mu0, mu1, theta0 in itertools.product(SPLITS, MEANS, MEANS, (0.02, 0.1, 0.2, 0.5)):
        edge = theta0 + worse * max(margin * theta0, floor)
        for beyond in (0.0, 0.05, 0.3):
            if 0.0 <= edge + worse * beyond <= 1.0:
                assert (expected_gain(passing, pi, mu0, mu1, theta0, edge + worse * beyond) <= 1e-12).all()
            if 0.0 <= edge - worse * beyond <= 1.0:
                assert (expected_gain(harmful, pi, mu0, mu1, theta0, edge - worse * beyond) <= 1e-12).all()
        far = theta0 + worse * (margin * theta0 + floor + 0.02)
        if 0.0 <= far <= 1.0:
            assert (expected_gain(harmful, pi, mu0, mu1, theta0, far) > 0.0).all()


@given(
    margin=st.floats(0.001, 0.999),
    up=st.booleans(),
    passing=st.booleans(),
    floor=st.just(0.0) | st.floats(0.001, 0.9),
    pi=st.floats(1e-6, 1.0 - 1e-6),
    mu0=st.floats(1e-6, 1.0 - 1e-6),
    mu1=st.floats(1e-6, 1.0 - 1e-6),
    z=st.sampled_from([0.0, 1.0]),
    y=st.sampled_from([0.0, 1.0]) | st.floats(0.0, 1.0),
)
def test_no_unit_ever_costs_more_than_nine_tenths(
    margin: float, up: bool, passing: bool, floor: float, pi: float, mu0: float, mu1: float, z: float, y: float
) -> None:
    bet = RelativeBet(margin, up, passing, floor)
    assert (bet.wagers(scores(z, y, pi, mu0, mu1, up)) >= -0.9 - 1e-9).all()


def test_the_caps_are_those_of_r8() -> None:
    pi, mu0, mu1, r = 0.1, 0.3, 0.4, 0.2
    guess = 0.9 * mu1 + pi * (1 + r) * mu0
    # Where smaller is better: the worst unit of "passes" is Z = 1, y = 1; of "harm" Z = 1, y = 0 (pi < 1/2).
    passing = relative_non_inferiority(r, bigger_is_better=False)
    at_worst = passing.wagers(scores(1.0, 1.0, pi, mu0, mu1, False))[:, 0]
    kappa = -at_worst / (0.9 * (1.0 - guess))
    assert kappa.max() <= 0.9 / max(0.9 * (1.0 - guess), pi * guess) + 1e-12
    harmful = relative_harm(r, bigger_is_better=False)
    at_worst = harmful.wagers(scores(1.0, 0.0, pi, mu0, mu1, False))[:, 0]
    assert at_worst.min() == pytest.approx(-0.9)
    assert -at_worst.min() / (0.9 * guess) == pytest.approx(0.9 / max(0.9 * guess, pi * (1 + r - guess)))


BETS: dict[str, AnyBet] = {
    "up": superiority(0.05),
    "down": harm(),
    "ni": relative_non_inferiority(0.1, bigger_is_better=False, floor=0.01),
    "bad": relative_harm(0.1, bigger_is_better=False),
}


def test_in_a_cell_chunks_and_states_change_no_bit() -> None:
    rng = np.random.default_rng(3)
    n = 3000
    pi = rng.choice([0.1, 0.5], n)
    z, g = rng.random(n) < pi, rng.random(n)
    whole, parts = ScoreCell(BETS), ScoreCell(BETS)
    whole.fold(z, pi, g)
    for begin, end in itertools.pairwise([0, 1, 7, 512, 513, 2000, n]):
        parts.fold(z[begin:end], pi[begin:end], g[begin:end])
        parts = ScoreCell.restore(BETS, json.loads(json.dumps(parts.state())))
    assert whole.state() == parts.state()
    with pytest.raises(ValueError, match="another bet"):
        ScoreCell.restore({**BETS, "bad": relative_harm(0.2, bigger_is_better=False)}, whole.state())


def run(bet: RelativeBet, rates: tuple[float, float], n: int, rng: np.random.Generator, pi: float = 0.5) -> ScoreCell:
    z = rng.random(n) < pi
    y = (rng.random(n) < np.where(z, rates[1], rates[0])).astype(float)
    cell = ScoreCell({"bet": bet})
    cell.fold(z, np.full(n, pi), y if bet.bigger_is_better else 1.0 - y)
    return cell


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("passing", [True, False])
def test_at_the_margin_it_rarely_decides(up: bool, passing: bool) -> None:
    rng = np.random.default_rng(7)
    bet = RelativeBet(0.2, up, passing)
    hits = sum(
        run(bet, (0.3, 0.3 * bet.factor), 2000, rng, pi).peak_log_e("bet") >= math.log(20.0)
        for pi in (0.05, 0.5)
        for _ in range(150)
    )
    assert hits / 300 <= 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / 300)


def test_a_base_of_zero_passes_only_with_a_floor() -> None:
    rng = np.random.default_rng(8)
    bare = relative_non_inferiority(0.5, bigger_is_better=False)
    assert run(bare, (0.0, 0.0), 20_000, rng).peak_log_e("bet") < math.log(1.5)
    floored = relative_non_inferiority(0.5, bigger_is_better=False, floor=0.005)
    assert run(floored, (0.0, 0.0), 5_000, rng).log_e("bet") >= math.log(20.0)


def test_a_clear_case_is_decided() -> None:
    rng = np.random.default_rng(9)
    for up in (True, False):
        same = relative_non_inferiority(0.2, bigger_is_better=up, floor=0.001)
        assert run(same, (0.3, 0.3), 15_000, rng).log_e("bet") >= math.log(20.0)
        worse = relative_harm(0.1, bigger_is_better=up, floor=0.01)
        assert run(worse, (0.3, 0.15 if up else 0.45), 3_000, rng).peak_log_e("bet") >= math.log(100.0)


def test_bad_bets_are_refused() -> None:
    for margin, up in ((0.0, True), (1.0, True), (math.nan, False), (11.0, False), (0.0, False)):
        with pytest.raises(ValueError, match="margin"):
            RelativeBet(margin, up, True)
    for floor in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="floor"):
            RelativeBet(0.1, True, True, floor)
