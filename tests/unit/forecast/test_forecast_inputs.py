"""Traffic, levels and subjects: what a person may say, and what is guessed."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from gateway.forecast.assumptions import assume
from gateway.forecast.outcomes import Outcomes
from gateway.forecast.subject import AssumptionError, Subject
from gateway.forecast.traffic import per_day
from tests.unit.forecast.subjects import BRIER, CONFIG, CONVERSION, by_hand, configured


@pytest.mark.parametrize(
    ("text", "units"),
    [("20000/day", 20_000), ("1_000/h", 24_000), ("2.5/s", 216_000), ("20k/d", 20_000), ("1,5/min", 21_600)],
)
def test_traffic_is_units_a_day(text: str, units: float) -> None:
    assert per_day(text) == units


@pytest.mark.parametrize("text", ["20000", "5days", "-3/day", "0/day", "many/day", "3/fortnight", ""])
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected units|nothing to forecast"):
        per_day(text)


def test_what_nobody_said_is_guessed_and_says_so(tmp_path: Path) -> None:
    found = assume(configured(tmp_path), 0.3, None, {"errors": 0.002})
    assert (found["brier"].base, round(found["brier"].sd, 3)) == (0.3, 0.275)
    assert "sd" in found["brier"].guessed
    assert (found["errors"].base, found["errors"].guessed) == (0.002, "")
    assert found["latency"].guessed == "a rate of 0.01"


@pytest.mark.parametrize(
    ("baseline", "sd", "bases"),
    [(1.5, None, {}), (0.0, None, {}), (0.2, 0.5, {}), (0.2, 0.0, {}), (0.2, None, {"nothing": 1.0}),
     (0.2, None, {"errors": 2.0})],
)  # fmt: skip
def test_a_level_that_cannot_be_is_refused(
    tmp_path: Path, baseline: float, sd: float | None, bases: dict[str, float]
) -> None:
    with pytest.raises(AssumptionError):
        assume(configured(tmp_path), baseline, sd, bases)


def test_a_rate_has_no_sd_of_its_own() -> None:
    with pytest.raises(AssumptionError, match="follows from its rate"):
        assume(by_hand(CONVERSION, 0.02), 0.1, 0.2, {})


@pytest.mark.parametrize("type", ["binary", "bounded", "count", "latency"])
@pytest.mark.parametrize("increase", [True, False])
def test_a_gain_moves_the_mean_to_the_better_side(type: str, increase: bool) -> None:
    limited = {"limit_us": 1000} if type == "latency" else {}
    metric = replace(BRIER, type=type, increase=increase, high=3.0 if type == "count" else 1.0, **limited)
    one = by_hand(metric, 0.1)
    outcomes = Outcomes(one.definition, metric, assume(one, 0.4, None, {})["brier"])
    rng = np.random.default_rng(1)
    levels = np.full(60_000, 0.4)
    draws = [outcomes.draw(rng, which) for which in (levels, outcomes.challenged(levels, 0.1))]
    if type == "latency":
        draws = [np.where(draw > 1000, 1.0, 0.0) for draw in draws]
    means = [float(np.minimum(draw, metric.high).mean()) for draw in draws]
    assert means[0] == pytest.approx(0.4, abs=0.012)
    assert means[1] - means[0] == pytest.approx(0.1 if increase else -0.1, abs=0.015)


def test_an_effect_beyond_the_scale_is_refused() -> None:
    one = by_hand(CONVERSION, 0.1)
    outcomes = Outcomes(one.definition, CONVERSION, assume(one, 0.1, None, {})["conversion"])
    with pytest.raises(AssumptionError, match="leaves the scale"):
        outcomes.challenged(np.array([0.1]), -0.2)


@pytest.mark.parametrize("scale", ["rank", "winsorised"])
def test_an_effect_on_a_score_becomes_a_factor_of_the_values(scale: str) -> None:
    metric = replace(CONVERSION, type="unbounded", scale=scale)
    one = by_hand(metric, 0.05)
    outcomes = Outcomes(one.definition, metric, assume(one, 10.0, 20.0, {})["conversion"])
    factor = float(outcomes.challenged(np.ones(1), 0.05)[0])
    assert 1.0 < factor < 3.0
    assert outcomes._scores(factor).mean() - outcomes._scores(1.0).mean() == pytest.approx(0.05, abs=1e-3)
    if scale == "rank":
        assert outcomes.score_sd() == pytest.approx(12**-0.5, rel=0.01)


def test_another_ramp_keeps_the_minimums_of_its_place(tmp_path: Path) -> None:
    ramped = configured(tmp_path).with_ramp((Decimal("0.01"), Decimal("0.1"), Decimal("0.4")))
    assert [(stage.name, stage.min_units) for stage in ramped.rules.stages] == [
        ("traffic-1%", 500), ("traffic-10%", 200), ("traffic-40%", 200),
    ]  # fmt: skip
    with pytest.raises(AssumptionError, match="must rise"):
        ramped.with_ramp((Decimal("0.5"), Decimal("0.1")))


def test_an_endpoint_without_experiment_has_nothing_to_forecast(tmp_path: Path) -> None:
    fixed = CONFIG.split("    experiment:")[0].replace("    metrics:", "    traffic: {a: 50%, b: 50%}\n    metrics:")
    with pytest.raises(AssumptionError, match="no endpoint of this config has an experiment"):
        configured(tmp_path, fixed)


def test_several_experiments_must_be_told_apart(tmp_path: Path) -> None:
    second = CONFIG.split("endpoints:\n")[1].replace("  rank:", "  sort:").replace("id: exp", "id: other")
    with pytest.raises(AssumptionError, match="--endpoint: rank, sort"):
        configured(tmp_path, CONFIG + second)


def test_the_subject_needs_no_model_file(tmp_path: Path) -> None:
    one: Subject = configured(tmp_path)
    assert one.definition.digests == ("", "")


def test_a_count_that_varies_more_keeps_its_capped_mean() -> None:
    metric = replace(BRIER, type="count", increase=True, high=5.0)
    one = by_hand(metric, 0.1)
    outcomes = Outcomes(one.definition, metric, assume(one, 2.0, 3.0, {})["brier"])
    drawn = outcomes.draw(np.random.default_rng(3), np.full(60_000, 2.0))
    assert np.minimum(drawn, 5.0).mean() == pytest.approx(2.0, abs=0.03)
    assert drawn.std() > 2.5
