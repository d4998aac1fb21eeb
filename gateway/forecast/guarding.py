"""When guardrails will have passed: the cost of non-inferiority, added up over the ramp."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
from scipy import special

from gateway.evidence.definition import MetricDefinition
from gateway.forecast.assumptions import LATENCY_SIGMA, Assumption, rate_like
from gateway.forecast.outcomes import Outcomes
from gateway.forecast.schedule import Leg, Schedule, lag
from gateway.forecast.subject import Subject
from gateway.stats import expected_units, information, non_inferiority_cost
from gateway.stats.latency import MIN_CHAMPION, QUANTILES

SLOW = 2.5  # 95th percentile over the typical time, where no formula gives it: that of most cells measured


class Passing(msgspec.Struct, frozen=True, kw_only=True):
    """Days from the start until something is proved; infinite for never."""

    typical: float  # median
    high: float  # 95th percentile


NEVER = Passing(typical=math.inf, high=math.inf)


def guardrail(subject: Subject, metric: MetricDefinition, assumed: Assumption, schedule: Schedule) -> Passing:
    """Until an equal challenger is proved to be within a guardrail's margin."""
    level = subject.thresholds.alpha_guardrail
    if metric.by_quantiles:
        return _quantiles(metric, schedule, level)
    outcomes = Outcomes(subject.definition, metric, assumed)
    margin = tolerance(metric, assumed) / metric.span
    if not 0.0 < margin < 1.0:
        return NEVER
    bad = assumed.base / metric.span if rate_like(metric) or metric.type == "count" else 0.5
    if metric.increase and rate_like(metric):
        bad = 1.0 - bad
    sd = None if rate_like(metric) else outcomes.score_sd()
    found = passing(schedule, min(bad, 1.0 - 1e-9), margin, level, sd)
    return Passing(typical=found.typical + lag(metric), high=found.high + lag(metric))


def tolerance(metric: MetricDefinition, assumed: Assumption) -> float:
    """The margin as a difference in the metric's unit."""
    if metric.relative_margin is not None:
        return max(metric.relative_margin * assumed.base, metric.floor)
    return metric.margin or 0.0


def guardrails(subject: Subject, assumed: Mapping[str, Assumption], schedule: Schedule) -> dict[str, Passing]:
    """By metric."""
    return {
        metric.name: guardrail(subject, metric, assumed[metric.name], schedule)
        for metric in subject.definition.guardrails
    }


def passing(schedule: Schedule, bad: float, margin: float, level: float, sd: float | None) -> Passing:
    """A unit of a stage brings one part in the cost of passing at that stage's split."""

    def until(place: int) -> float:
        def daily(leg: Leg) -> float:
            cost = non_inferiority_cost(bad, margin, level, pi=leg.pi, sd=sd)[place]
            return leg.pair_units / cost if math.isfinite(cost) else 0.0

        return schedule.days_until(1.0, daily)

    return Passing(typical=until(0), high=until(1))


def _quantiles(metric: MetricDefinition, schedule: Schedule, level: float) -> Passing:
    """Rule R15: at equal speed the weakest of p50, p90 and p99 must pass; the champion's past comes first."""
    assert metric.relative_margin is not None
    further = math.log1p(metric.relative_margin) / LATENCY_SIGMA
    rates = [(1.0 - p, float(special.ndtr(-(special.ndtri(p) + further)))) for p in QUANTILES]
    start = schedule.days_until(MIN_CHAMPION, lambda leg: leg.champion_units)
    worst = 0.0
    for champion, challenger in rates:

        def daily(leg: Leg, ends: tuple[float, float] = (champion, challenger)) -> float:
            return leg.pair_units * information(*ends, leg.pi)

        needed = expected_units(1.0, level, multiple=None) + schedule.gathered(start, daily)
        worst = max(worst, schedule.days_until(needed, daily))
    return Passing(typical=worst, high=SLOW * worst)
