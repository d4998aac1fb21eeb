"""The benchmark measures what it says: exact first passages, and goals that need no long run."""

import math

import numpy as np
import pytest

from benchmarks.stats_common import Measured, coins, draw, first_passage
from benchmarks.stats_error import g16
from benchmarks.stats_monitor import first_alarm
from benchmarks.stats_speed import g14
from gateway.stats import AnyBet, SampleRatio, ScoreCell, harm, superiority


@pytest.mark.parametrize("seed", range(6))
def test_first_passages_are_exact_to_the_unit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bets: dict[str, AnyBet] = {"up": superiority(0.2), "down": harm()}
    z, pi = coins(rng, 0.5, 800)
    g = draw(rng, 0.3 + 0.2 * z)
    threshold = math.log(20.0)
    cell, expected = ScoreCell(bets), None
    for i in range(800):
        cell.fold(z[i : i + 1], pi[i : i + 1], g[i : i + 1])
        if expected is None and max(cell.log_e("up"), cell.log_e("down")) >= threshold:
            expected = i + 1
    assert first_passage(bets, threshold, z, pi, g) == expected
    assert first_passage(bets, 1e9, z, pi, g) is None


def test_alarms_are_exact_to_the_unit() -> None:
    rng = np.random.default_rng(1)
    pi = np.repeat([0.1, 0.5], 200)
    z = rng.random(400) < pi + 0.2
    ratio, expected = SampleRatio(), None
    for i in range(400):
        ratio.add(pi[i], z[i : i + 1])
        if expected is None and ratio.log_e() >= math.log(20.0):
            expected = i + 1
    assert first_alarm(z, pi, math.log(20.0), check=True) == expected


def test_goals_without_chance_hold() -> None:
    for measured in (*g14(80, np.random.default_rng(1)), *g16(20, np.random.default_rng(1))):
        assert measured.passed, measured


def test_a_limit_is_an_upper_or_a_lower_one() -> None:
    assert Measured("G", "", 1.0, 2.0, 1).passed
    assert not Measured("G", "", 1.0, 2.0, 1, at_least=True).passed
    assert Measured("G", "", 1.0, 2.0, 1).record()["pass"] is True
