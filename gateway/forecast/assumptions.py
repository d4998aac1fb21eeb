"""What is assumed of the champion: the level and the spread of every metric that has a say.

What nobody said is guessed, and every guess is listed: a forecast is as good as the numbers that it starts from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from gateway.evidence.definition import MetricDefinition
from gateway.forecast.subject import AssumptionError, Subject

ERRORS_BASE = 0.001  # share of requests in which the champion fails
LATENCY_BASE = 0.01  # share of its answers beyond the limit
LATENCY_SIGMA = 0.6  # sd of the logarithm of a latency
_RATE = 0.1
_LEVEL = 0.2  # of the scale of a bounded metric or a count
_SPREAD = 0.6  # of the most spread that a bounded metric can have: that of a Brier score
PAIR_SPREAD = 0.7  # sd of a paired difference over the sd of one loss: correlation .75 between two models


class Assumption(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of the champion in its own unit; of a limit on latency the share of answers beyond it."""

    metric: str
    base: float
    sd: float
    guessed: str = ""  # what of it is a guess, in words


def assume(
    subject: Subject, baseline: float | None, sd: float | None, bases: Mapping[str, float]
) -> dict[str, Assumption]:
    """By metric. ``bases`` are levels by name, and by source for `errors` and `latency`.

    Raises AssumptionError for a level or a spread that the metric cannot have, or a name that is no metric.
    """
    names = {metric.name for metric in subject.judged}
    if unknown := sorted(set(bases) - names):
        raise AssumptionError(f"no metric with a say is called {unknown[0]!r}; there are {', '.join(sorted(names))}")
    found = {}
    for metric in subject.judged:
        objective = metric == subject.objective
        level = baseline if objective and baseline is not None else bases.get(metric.name)
        found[metric.name] = _checked(metric, level, sd if objective else None)
    return found


def rate_like(metric: MetricDefinition) -> bool:
    """Whether a unit's value is 0 or 1."""
    return metric.type == "binary" or (metric.type == "latency" and not metric.by_quantiles)


def _checked(metric: MetricDefinition, base: float | None, sd: float | None) -> Assumption:
    if rate_like(metric):
        return _rate(metric, base, sd)
    if metric.type in ("bounded", "score"):
        return _bounded(metric, base, sd)
    if metric.type == "count":
        level = _between(metric, base if base is not None else _LEVEL * metric.high, 0.0, metric.high)
        return _told(metric, level, sd, math.sqrt(level), base is None, "as of rare events (Poisson)")
    level = base if base is not None else 1.0
    if not level > 0.0:
        raise AssumptionError(f"{metric.name}: the mean must be above 0, not {level:g}")
    what = "a long tail, the sd as great as the mean"
    if metric.by_quantiles:
        return Assumption(
            metric=metric.name,
            base=level,
            sd=LATENCY_SIGMA * level,
            guessed=f"the logarithm has sd {LATENCY_SIGMA:g}",
        )
    if metric.type == "ratio":
        what = "counts that vary as those of rare events"
    return _told(metric, level, sd, level, base is None, what)


def _rate(metric: MetricDefinition, base: float | None, sd: float | None) -> Assumption:
    if sd is not None:
        raise AssumptionError(f"{metric.name} is 0 or 1 for a unit: its sd follows from its rate, leave --sd out")
    guess = _RATE if metric.source == "outcome" else ERRORS_BASE if metric.type == "binary" else LATENCY_BASE
    rate = _between(metric, guess if base is None else base, 0.0, 1.0)
    return Assumption(
        metric=metric.name,
        base=rate,
        sd=math.sqrt(rate * (1.0 - rate)),
        guessed="" if base is not None else f"a rate of {rate:g}",
    )


def _bounded(metric: MetricDefinition, base: float | None, sd: float | None) -> Assumption:
    low, high = metric.low, metric.high
    level = _between(metric, low + _LEVEL * metric.span if base is None else base, low, high, inside=True)
    most = math.sqrt((level - low) * (high - level))
    if sd is not None and not 0.0 < sd < most:
        raise AssumptionError(f"{metric.name}: with a mean of {level:g} the sd lies between 0 and {most:.3g}")
    return _told(metric, level, sd, _SPREAD * most, base is None, f"{_SPREAD:g} of the most that is possible")


def _told(
    metric: MetricDefinition, level: float, sd: float | None, guess: float, level_guessed: bool, how: str
) -> Assumption:
    if sd is not None and not sd > 0.0:
        raise AssumptionError(f"{metric.name}: the sd must be above 0, not {sd:g}")
    guesses = [f"a mean of {level:.3g}"] if level_guessed else []
    guesses += [f"an sd of {guess:.3g} ({how})"] if sd is None else []
    return Assumption(metric=metric.name, base=level, sd=guess if sd is None else sd, guessed=" and ".join(guesses))


def _between(metric: MetricDefinition, value: float, low: float, high: float, *, inside: bool = False) -> float:
    if not (low < value < high if inside else low <= value <= high):
        raise AssumptionError(f"{metric.name}: a level between {low:g} and {high:g} is expected, not {value:g}")
    return value
