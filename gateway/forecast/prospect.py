"""The whole plan of an experiment: how long until what, what decides how long, and what may go wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import msgspec

from gateway.evidence.definition import MetricDefinition
from gateway.forecast.assumptions import Assumption
from gateway.forecast.guarding import Passing, guardrails, tolerance
from gateway.forecast.limits import Limit, limits
from gateway.forecast.power import ObjectivePower
from gateway.forecast.schedule import Leg, days_of, lag, schedule
from gateway.forecast.subject import Subject

HORIZONS = (1, 3, 7, 14, 30)  # days
_LONG = 60.0  # days: few experiments survive the people who wanted them for longer


class Prospect(msgspec.Struct, frozen=True, kw_only=True):
    """Times in days from the start, infinite for never; effects in the unit of the config."""

    endpoint: str
    experiment: str
    challengers: tuple[str, ...]
    objective: str
    increase: bool
    traffic: float  # units a day
    effect: float
    expected_effect: float
    min_effect: float
    assumptions: tuple[Assumption, ...]
    stages: tuple[Leg, ...]
    ramp_days: float  # until the minimums of every stage are passed
    evidence_days: float
    guardrails: dict[str, Passing]
    cycle_days: float  # until a whole business cycle has matured; 0 for none
    promotion_days: float
    binding: str  # what takes longest
    futility: Passing
    end: str  # what ends an experiment without effect: futility, max_units or max_duration
    end_days: float
    max_days: float  # by max_duration and max_units
    detectable: dict[int, float]  # by day
    curve: tuple[tuple[float, float], ...]  # (day, detectable effect), for a plot
    limits: tuple[Limit, ...]
    warnings: tuple[str, ...]


def prospect(subject: Subject, assumed: Mapping[str, Assumption], traffic: float, effect: float) -> Prospect:
    """The plan for a true effect, at constant traffic."""
    legs = schedule(subject, traffic)
    power = ObjectivePower(subject, assumed[subject.objective.name], legs)
    passing = guardrails(subject, assumed, legs)
    wait = lag(subject.objective)
    cycle = subject.definition.cycle_us
    steps = {
        "the stages": legs.last.ends,
        f"evidence for {subject.objective.name}": power.days(effect),
        **{f"guardrail {name}": one.typical for name, one in passing.items()},
        "a whole cycle": days_of(cycle) + wait if cycle else 0.0,
    }
    binding = max(steps, key=lambda name: steps[name])
    ends = _ends(subject, traffic, power.futility())
    end = min(ends, key=lambda name: ends[name])
    found = Prospect(
        endpoint=subject.definition.endpoint,
        experiment=subject.definition.id,
        challengers=subject.definition.challengers,
        objective=subject.objective.name,
        increase=subject.objective.increase,
        traffic=traffic,
        effect=effect,
        expected_effect=subject.definition.expected_effect,
        min_effect=subject.definition.min_effect,
        assumptions=tuple(assumed.values()),
        stages=legs.legs,
        ramp_days=legs.last.ends,
        evidence_days=steps[f"evidence for {subject.objective.name}"],
        guardrails=passing,
        cycle_days=steps["a whole cycle"],
        promotion_days=steps[binding],
        binding=binding,
        futility=power.futility(),
        end=end,
        end_days=ends[end],
        max_days=min(ends["max_duration"], ends["max_units"]),
        detectable={day: power.detectable(day) for day in HORIZONS},
        curve=tuple((day, power.detectable(day)) for day in _days(wait)),
        limits=limits(subject),
        warnings=(),
    )
    return msgspec.structs.replace(found, warnings=tuple(_warnings(subject, found, assumed)))


def _ends(subject: Subject, traffic: float, futility: Passing) -> dict[str, float]:
    """When an experiment ends that finds nothing."""
    units = subject.rules.max_units
    wait = max(lag(metric) for metric in subject.judged)
    return {
        "futility": futility.typical,
        "max_units": math.inf if units is None else units / traffic + wait,
        "max_duration": days_of(subject.rules.max_duration_us),
    }


def _days(wait: float) -> Iterator[float]:
    """Points of a curve, evenly on a logarithmic scale from half a day to 30 days."""
    points = 60
    for place in range(points + 1):
        day = 0.5 * (HORIZONS[-1] / 0.5) ** (place / points)
        if day > wait:
            yield day


def _warnings(subject: Subject, found: Prospect, assumed: Mapping[str, Assumption]) -> Iterator[str]:
    definition = subject.definition
    if definition.aa:
        yield "aa: true: nothing is promoted; the times are those of an experiment without it"
    if subject.rules.automation != "full":
        yield f"automation is {subject.rules.automation}: stages and promotion wait for a person"
    yield from _time(found)
    if definition.expected_effect and not 0.5 <= found.effect / definition.expected_effect <= 4.0:
        yield (
            f"the test is tuned to an effect of {definition.expected_effect:g}, far from {found.effect:g}:"
            " times are less exact; expected_effect should be what is hoped for"
        )
    for metric in definition.guardrails:
        yield from _margin(metric, assumed[metric.name], found.guardrails[metric.name])
    for leg in found.stages[:-1]:
        if leg.binding == "min_challenger_units" and leg.days > 2.0:
            yield f"{leg.name} lasts {leg.days:.1f} days just for its min_challenger_units: a greater share is quicker"


def _time(found: Prospect) -> Iterator[str]:
    if math.isinf(found.promotion_days):
        yield f"{found.binding} never comes: no promotion is possible"
    elif found.promotion_days > found.max_days:
        yield (
            f"promotion is expected after {found.promotion_days:.1f} days ({found.binding}), but the experiment ends"
            f" after {found.max_days:.1f}: most likely without a verdict"
        )
    elif found.promotion_days > 0.7 * found.max_days:
        yield (
            f"promotion is expected after {found.promotion_days:.1f} of at most {found.max_days:.1f} days: chance"
            " alone will often make it too late"
        )
    if _LONG < found.promotion_days <= found.max_days:
        yield f"{found.promotion_days:.0f} days are long: more traffic, a greater effect or fewer guardrails are needed"


def _margin(metric: MetricDefinition, assumed: Assumption, passing: Passing) -> Iterator[str]:
    margin = tolerance(metric, assumed)
    if metric.by_quantiles:
        return
    if not margin:
        yield f"guardrail {metric.name}: a part of a level of 0 is no margin; it never passes. Give it a floor"
    elif metric.source == "gateway" and margin < 2.0 * assumed.base:
        yield (
            f"guardrail {metric.name}: the margin {margin:g} is less than twice the base rate {assumed.base:g},"
            f" so it takes long to pass ({passing.typical:.1f} days)"
        )
