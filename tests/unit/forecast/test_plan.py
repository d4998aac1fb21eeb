"""The table of a plan against figures worked out by hand, and its formulas against simulation."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from gateway.evidence.definition import MetricDefinition
from gateway.forecast.assumptions import assume
from gateway.forecast.chart import svg, terminal
from gateway.forecast.guarding import guardrail
from gateway.forecast.limits import limits
from gateway.forecast.made_up import MadeUp, Scenario
from gateway.forecast.plan_text import plan_view
from gateway.forecast.power import ObjectivePower
from gateway.forecast.prospect import Prospect, prospect
from gateway.forecast.schedule import schedule
from gateway.forecast.subject import Subject
from gateway.forecast.trial import Pace, Trial
from gateway.stats import expected_units, information, information_gaussian, non_inferiority_cost
from tests.unit.forecast.subjects import BRIER, CONFIG, CONVERSION, EVER_US, by_hand, configured

TRAFFIC = 12_000.0
MINUTE = 1 / 1440


def planned(folder: Path, text: str = CONFIG, traffic: float = TRAFFIC, effect: float = 0.1) -> Prospect:
    one = configured(folder, text)
    return prospect(one, assume(one, 0.3, 0.2, {}), traffic, effect)


def test_stages_last_for_their_longest_minimum(tmp_path: Path) -> None:
    first, second = planned(tmp_path).stages
    assert (first.challenger_units, first.champion_units, first.pi) == pytest.approx((1200.0, 10_800.0, 0.1))
    # 500 units at 12,000 a day are an hour, and the last of them matures a minute later.
    assert first.days == pytest.approx(1 / 24 + MINUTE)
    assert first.binding == "min_units"
    # 200 units are 24 minutes; 50 of the challenger at 6,000 a day are 12.
    assert (second.days, second.ends) == pytest.approx((25 * MINUTE, 86 * MINUTE))


def test_information_adds_up_over_the_ramp() -> None:
    one = by_hand(CONVERSION, 0.02)
    assumed = assume(one, 0.1, None, {})["conversion"]
    power = ObjectivePower(one, assumed, schedule(one, 10_000.0))
    needed = expected_units(1.0, 0.01)
    early = 2000 * information(0.1, 0.12, 0.05) + 2000 * information(0.1, 0.12, 0.2)
    by_hand_units = 4000 + (needed - early) / information(0.1, 0.12, 0.5)
    assert power.days(0.02) * 10_000 == pytest.approx(by_hand_units, rel=1e-6)


def test_without_a_ramp_the_detectable_effect_is_the_textbook_one() -> None:
    one = by_hand(BRIER, 0.02)
    one = one.with_stages(one.rules.stages[2:])
    power = ObjectivePower(one, assume(one, 0.3, 0.2, {})["brier"], schedule(one, 10_000.0))
    found = power.detectable(3.0)
    assert expected_units(information_gaussian(found, 0.2, 0.5), 0.01) == pytest.approx(30_000, rel=1e-3)
    assert math.isinf(power.days(0.0))
    assert math.isinf(power.days(-0.02))


def test_a_guardrail_costs_what_the_formula_says_where_there_is_no_ramp() -> None:
    errors = MetricDefinition(name="errors", type="binary", source="gateway", increase=False, margin=0.005)
    one = by_hand(BRIER, 0.02, errors)
    one = one.with_stages(one.rules.stages[2:])
    assumed = assume(one, 0.3, 0.2, {"errors": 0.001})["errors"]
    found = guardrail(one, errors, assumed, schedule(one, 10_000.0))
    cost = non_inferiority_cost(0.001, 0.005, 0.05)
    assert (found.typical * 10_000, found.high * 10_000) == pytest.approx((cost.median, cost.high))


def test_a_relative_margin_of_nothing_never_passes(tmp_path: Path) -> None:
    text = CONFIG.replace("{metric: errors, margin: 0.05}", "{metric: errors, relative_margin: 10%}")
    one = configured(tmp_path, text)
    found = prospect(one, assume(one, 0.3, 0.2, {"errors": 0.0}), TRAFFIC, 0.1)
    assert math.isinf(found.guardrails["errors"].typical)
    assert found.binding == "guardrail errors"
    assert any("no promotion is possible" in warning for warning in found.warnings)
    assert any("Give it a floor" in warning for warning in found.warnings)


def test_warnings_say_what_a_person_should_change(tmp_path: Path) -> None:
    assert planned(tmp_path).warnings == ()
    slow = planned(tmp_path, traffic=20.0, effect=0.05)
    assert any("most likely without a verdict" in warning for warning in slow.warnings)
    tight = planned(tmp_path, CONFIG.replace("{metric: latency, margin: 0.05}", "{metric: latency, margin: 0.01}"))
    assert any("less than twice the base rate 0.01" in warning for warning in tight.warnings)
    assert any("far from 0.01" in warning for warning in planned(tmp_path, effect=0.01).warnings)
    advice = planned(tmp_path, CONFIG + "      automation: recommend\n")
    assert any("wait for a person" in warning for warning in advice.warnings)


def test_without_effect_it_ends_by_futility_or_by_its_limits(tmp_path: Path) -> None:
    assert planned(tmp_path).end == "futility"
    off = CONFIG.replace("max_duration: 10d", "max_duration: 10d, futility: 'off'")
    assert (planned(tmp_path, off).end, planned(tmp_path, off).end_days) == ("max_duration", 10.0)
    capped = off.replace("10d, fut", "10d, max_units: 24000, fut")
    assert planned(tmp_path, capped).end_days == pytest.approx(2.0 + MINUTE)


def test_the_errors_of_a_config_add_up(tmp_path: Path) -> None:
    found = {limit.name: limit.at_most for limit in limits(configured(tmp_path))}
    assert found == {
        "false_promotion": 0.05,
        "promotion_at_margin": 0.05,
        "false_rollback": pytest.approx(0.01 + 0.001 + 0.01),
        "false_freeze": pytest.approx(2 * 0.001),  # the split, and who has a label
        "false_segment_harm": pytest.approx(0.021),
    }
    strict = CONFIG.replace("max_duration: 10d", "max_duration: 10d, segment_harm: rollback")
    strict = strict.replace("    metrics:", '      c: {role: challenger, url: "http://127.0.0.1:9003"}\n    metrics:')
    strict = strict.replace("traffic: 50%", "traffic: 40%")
    found = {limit.name: limit.at_most for limit in limits(configured(tmp_path, strict))}
    assert found["false_rollback"] == pytest.approx(2 * 2 * 0.021)
    assert "false_segment_harm" not in found


def test_the_figure_is_well_formed_and_shows_the_curve(tmp_path: Path) -> None:
    found = planned(tmp_path, CONFIG.replace("id: exp", "id: exp.and-more"))
    root = ElementTree.fromstring(svg(found))
    names = {part.tag.rpartition("}")[2] for part in root}
    assert {"title", "polyline", "text", "line"} <= names
    texts = [part.text for part in root if part.text]
    assert "30 d" in texts
    assert "expected effect 0.1" in texts
    points = next(part for part in root if part.tag.endswith("polyline")).attrib["points"].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(points) > 50
    assert heights == sorted(heights)  # downwards: later days find smaller effects


def test_the_terminal_has_everything_that_the_plan_knows(tmp_path: Path) -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(plan_view(planned(tmp_path)))
    text = console.export_text()
    console.file.close()
    for word in (
        "traffic-10%",
        "guardrail latency",
        "decides how long",
        "expected effect 0.1",
        "5 %",
        "alpha_srm",
        "●",
    ):
        assert word in text, word
    assert "…" not in text
    assert max(map(len, terminal(planned(tmp_path)))) <= 80


def _simulated(one: Subject, scenario: Scenario, assumed: dict[str, float], base: float, sd: float | None) -> list[int]:
    world = MadeUp(one, assume(one, base, sd, assumed), scenario, 10_000.0, EVER_US)
    pace = Pace(every={stage.name: 40 for stage in one.rules.stages})
    runs = [Trial(one, world, pace, np.random.SeedSequence(seed)).run() for seed in range(40)]
    return [run.units for run in runs if run.kind in ("promote", "inconclusive")]


@pytest.mark.parametrize(
    ("metric", "base", "sd", "effect"),
    [(CONVERSION, 0.1, None, 0.03), (CONVERSION, 0.3, None, 0.06), (BRIER, 0.2, 0.23, 0.03), (BRIER, 0.2, 0.1, 0.015)],
)
def test_expected_units_agree_with_simulation_through_the_ramp(
    metric: MetricDefinition, base: float, sd: float | None, effect: float
) -> None:
    """Within 20 % of the mean, beside two standard errors of these 40 runs."""
    one = by_hand(metric, effect)
    assumed = assume(one, base, sd, {})[metric.name]
    expected = 10_000 * ObjectivePower(one, assumed, schedule(one, 10_000.0)).days(effect)
    units = _simulated(one, Scenario(effect, {}, 0.0), {}, base, sd)
    assert len(units) >= 38
    error = float(np.std(units)) / math.sqrt(len(units))
    assert abs(float(np.mean(units)) - expected) < 0.2 * expected + 2.0 * error


def test_passing_and_futility_agree_with_simulation_through_the_ramp() -> None:
    """Medians within 40 %."""
    errors = MetricDefinition(name="errors", type="binary", source="gateway", increase=False, margin=0.02)
    one = by_hand(BRIER, 0.2, errors)
    typical = guardrail(one, errors, assume(one, 0.4, 0.1, {"errors": 0.02})["errors"], schedule(one, 10_000.0)).typical
    units = _simulated(one, Scenario(0.2, {}, 0.0), {"errors": 0.02}, 0.4, 0.1)
    assert float(np.median(units)) == pytest.approx(10_000 * typical, rel=0.4)

    idle = by_hand(BRIER, 0.06, futile=0.03)
    power = ObjectivePower(idle, assume(idle, 0.2, 0.23, {})["brier"], schedule(idle, 10_000.0))
    given_up = _simulated(idle, Scenario(0.0, {}, 0.0), {}, 0.2, 0.23)
    assert float(np.median(given_up)) == pytest.approx(10_000 * power.futility().typical, rel=0.4)
