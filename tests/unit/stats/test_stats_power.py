"""Planning numbers: known limits, published figures, and short simulations of the real cells."""

import math

import numpy as np
import pytest

from gateway.stats import (
    ScoreCell,
    detectable_effect,
    expected_units,
    information,
    information_gaussian,
    least_units,
    non_inferiority,
    non_inferiority_cost,
)


def test_the_information_bound_of_the_published_example() -> None:
    # the specification, section 3: alpha .05 gives 5.99 sigma^2/(pi(1-pi) Delta^2) for small effects.
    assert least_units(information_gaussian(0.01, 0.2, 0.5), 0.05) == pytest.approx(
        5.99 * 0.04 / (0.25 * 1e-4), rel=1e-3
    )
    close = information(0.3, 0.301, 0.5)
    assert close == pytest.approx(information_gaussian(0.001, math.sqrt(0.3 * 0.7), 0.5), rel=5e-3)
    # Rollback of .5 % -> 5 % errors at alpha .001: bounds 111 and 100 challenger requests at 5 % and 1 % splits.
    assert 0.05 * least_units(information(0.995, 0.95, 0.05), 0.001) == pytest.approx(111, abs=1.0)
    assert 0.01 * least_units(information(0.995, 0.95, 0.01), 0.001) == pytest.approx(100, abs=1.5)
    assert information(0.2, 0.2, 0.3) == 0.0
    assert least_units(0.0, 0.05) == math.inf
    assert math.isfinite(information(0.0, 1.0, 0.5))


def test_expected_units_scale_as_measured() -> None:
    nats = information(0.05, 0.06, 0.5)
    bound = least_units(nats, 0.05)
    assert expected_units(nats, 0.05) == pytest.approx(1.10 * bound)
    assert expected_units(nats, 0.05, multiple=0.5) == pytest.approx(1.25 * bound)
    assert expected_units(nats, 0.05, multiple=None) == pytest.approx(1.45 * bound)
    assert expected_units(nats, 0.05, multiple=100.0) == pytest.approx(1.60 * bound)
    assert expected_units(nats, 0.01) / expected_units(nats, 0.05) == pytest.approx(1.54, abs=0.01)


def test_the_detectable_effect_inverts_the_sample_size() -> None:
    for n in (500.0, 20_000.0, 1e7):
        effect = detectable_effect(n, 0.1, 0.5, 0.01)
        assert expected_units(information(0.1, 0.1 + effect, 0.5), 0.01) == pytest.approx(n, rel=1e-6)
    assert detectable_effect(3.0, 0.9, 0.5, 0.01) == math.inf


@pytest.mark.parametrize(("base", "margin", "median"), [(0.0, 0.005, 1440.0), (0.001, 0.005, 1570.0)])
def test_passing_costs_are_those_of_r11(base: float, margin: float, median: float) -> None:
    cost = non_inferiority_cost(base, margin, 0.05)
    assert cost.median == pytest.approx(median, rel=0.4)
    assert cost.high >= cost.median


def test_passing_costs_are_those_of_cells() -> None:
    rng = np.random.default_rng(1)
    units = []
    for _ in range(40):
        cell = ScoreCell({"ni": non_inferiority(0.05)})
        while cell.log_e("ni") < math.log(20.0):
            step = max(20, cell.n // 50)
            cell.fold(rng.random(step) < 0.5, np.full(step, 0.5), 1.0 - (rng.random(step) < 0.2))
        units.append(cell.n)
    assert non_inferiority_cost(0.2, 0.05, 0.05).median == pytest.approx(np.median(units), rel=0.4)
    cost = non_inferiority_cost(0.2, 0.05, 0.05, sd=0.2)
    assert cost.median < non_inferiority_cost(0.2, 0.05, 0.05).median


def test_bad_arguments_are_refused() -> None:
    for make in (
        lambda: information(-0.1, 0.5, 0.5),
        lambda: information(0.1, 0.5, 1.0),
        lambda: information_gaussian(0.1, 0.0, 0.5),
        lambda: least_units(1.0, 1.0),
        lambda: expected_units(1.0, 0.05, multiple=0.0),
        lambda: detectable_effect(0.0, 0.5, 0.5, 0.05),
        lambda: non_inferiority_cost(1.0, 0.1, 0.05),
        lambda: non_inferiority_cost(0.1, 0.0, 0.05),
    ):
        with pytest.raises(ValueError, match="must"):
            make()
