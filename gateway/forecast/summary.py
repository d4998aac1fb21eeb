"""What many runs say: shares with their Monte Carlo intervals, held against the limits of the config."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import numpy as np

from gateway.forecast.assumptions import Assumption
from gateway.forecast.guarding import tolerance
from gateway.forecast.limits import false_promotion, false_rollback
from gateway.forecast.made_up import Scenario
from gateway.forecast.subject import Subject
from gateway.forecast.trial import Result

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_Z = 1.959964  # of a two-sided 95 % interval


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the runs, with Wilson's 95 % interval for what infinitely many would give."""

    count: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, count: int, runs: int) -> Share:
        low, high = wilson(count, runs)
        return cls(count=count, share=count / runs, low=low, high=high)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A share that must not exceed a limit; compatible unless the whole interval lies above it."""

    what: str
    at_most: float
    found: Share
    compatible: bool

    @classmethod
    def of(cls, what: str, at_most: float, found: Share) -> Check:
        return cls(what=what, at_most=at_most, found=found, compatible=found.low <= at_most)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """All runs with one effect. Quantiles are those of `QUANTILES`."""

    effect: float
    runs: int
    promoted: Share
    rolled_back: Share
    inconclusive: Share
    unfinished: Share  # the units came to an end
    wrong_promotion: Share  # of a challenger that is not better
    expelled: Share  # some challenger went because of harm
    evidence_crossed: Share  # the objective's evidence reached its level at some unit
    sample_ratio: Share
    units: tuple[float, ...]
    days: tuple[float, ...]
    mean_units: float
    challenger_share: float  # of all units of all runs
    reasons: dict[str, int]
    stages: dict[str, int]
    checks: tuple[Check, ...]


def wilson(count: int, runs: int) -> tuple[float, float]:
    """Wilson 1927: covers well also where nothing, or everything, was counted."""
    share = count / runs
    centre = share + _Z**2 / (2 * runs)
    half = _Z * math.sqrt(share * (1.0 - share) / runs + _Z**2 / (4 * runs**2))
    scale = 1.0 + _Z**2 / runs
    low = 0.0 if count == 0 else (centre - half) / scale
    high = 1.0 if count == runs else (centre + half) / scale
    return max(0.0, low), min(1.0, high)


def summary(subject: Subject, assumed: Mapping[str, Assumption], scenario: Scenario, results: Sequence[Result]) -> Row:
    """One row. Which errors can be made follows from what was true in the scenario."""
    runs = len(results)

    def share(holds: Callable[[Result], bool]) -> Share:
        return Share.of(sum(map(holds, results)), runs)

    better = _better(subject, scenario)
    promoted = share(lambda one: one.kind == "promote")
    wrong = share(lambda one: one.kind == "promote" and one.variant not in better)
    units = [one.units for one in results]
    expelled = share(lambda one: bool(one.expelled))
    return Row(
        effect=scenario.effect,
        runs=runs,
        promoted=promoted,
        rolled_back=share(lambda one: one.kind == "rollback"),
        inconclusive=share(lambda one: one.kind == "inconclusive"),
        unfinished=share(lambda one: not one.kind),
        wrong_promotion=wrong,
        expelled=expelled,
        evidence_crossed=share(lambda one: one.crossed),
        sample_ratio=share(lambda one: one.mismatch),
        units=_quantiles(units),
        days=_quantiles([one.days for one in results]),
        mean_units=float(np.mean(units)),
        challenger_share=sum(one.challenger_units for one in results) / max(1, sum(units)),
        reasons=_counted(one.reason for one in results),
        stages=_counted(one.stage for one in results),
        checks=tuple(_checks(subject, assumed, scenario, promoted, wrong, expelled)),
    )


def _better(subject: Subject, scenario: Scenario) -> tuple[str, ...]:
    """Challengers whose promotion is right."""
    least = subject.definition.min_effect if subject.definition.require_min_effect else 0.0
    return subject.definition.challengers[:1] if scenario.effect > least else ()


def _checks(
    subject: Subject,
    assumed: Mapping[str, Assumption],
    scenario: Scenario,
    promoted: Share,
    wrong: Share,
    expelled: Share,
) -> list[Check]:
    found = [Check.of("false promotions", false_promotion(subject), wrong)]
    beyond = [
        name
        for name, worse in scenario.worse.items()
        if (metric := subject.definition.metric(name)).guards
        and not metric.by_quantiles
        and worse >= tolerance(metric, assumed[name])
    ]
    if beyond:
        promoted_anyway = Check.of("promotions beyond a margin", subject.thresholds.alpha_guardrail, promoted)
        found.append(promoted_anyway)
    elif scenario.effect >= 0.0 and not any(worse > 0.0 for worse in scenario.worse.values()):
        found.append(Check.of("false rollbacks", false_rollback(subject), expelled))
    return found


def _quantiles(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(np.quantile(values, QUANTILES).tolist())


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())
