"""When the objective will have its evidence: the formulas of `stats.power`, added up over the ramp.

Promotion waits for the e-process and for the interval; the later of the two is what is told.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize

from gateway.evidence.challenger import CONFIDENCE_ALPHA
from gateway.forecast.assumptions import PAIR_SPREAD, Assumption, rate_like
from gateway.forecast.guarding import NEVER, SLOW, Passing, passing
from gateway.forecast.outcomes import Outcomes, score_of
from gateway.forecast.schedule import Daily, Leg, Schedule, lag
from gateway.forecast.subject import Subject
from gateway.stats import BANDS, band_of, expected_units, information, information_gaussian, overlap_interval

_LATEST = 1e5  # days: what takes longer never comes


class ObjectivePower:
    """What a day says about an effect on the objective, and when that is enough."""

    def __init__(self, subject: Subject, assumed: Assumption, schedule: Schedule) -> None:
        self._definition = subject.definition
        self._futile = subject.rules.futility
        self._level = subject.thresholds.futility
        self._shadow = subject.shadow
        self._metric = subject.objective
        self._schedule = schedule
        self._base = assumed.base
        self._sd = Outcomes(subject.definition, subject.objective, assumed).score_sd()
        scaled = subject.objective.type in ("unbounded", "ratio")
        self._mean = 0.5 if scaled else score_of(subject.objective, assumed.base)
        self._alpha = subject.thresholds.alpha / len(subject.definition.challengers)  # e-Bonferroni
        self.least = subject.definition.min_effect if subject.definition.require_min_effect else 0.0

    def days(self, effect: float) -> float:
        """Expected days until promotion has its evidence; infinite for an effect that cannot be proved."""
        if effect <= self.least:
            return math.inf
        proved = self._schedule.days_until(self._needed(effect), self._daily(effect))
        return max(proved, self._interval_days(effect)) + lag(self._metric)

    def detectable(self, days: float) -> float:
        """The effect that is proved by then on average, if it was the expected one; infinite if there is none."""
        known = days - lag(self._metric)
        needed = expected_units(1.0, self._alpha, multiple=1.0)

        def excess(effect: float) -> float:
            return self._schedule.gathered(known, self._daily(effect)) - needed

        most = self._room()
        smallest = self.least + 1e-6 * (most - self.least)
        if most <= self.least or excess(most) < 0.0:
            return math.inf
        return smallest if excess(smallest) > 0.0 else float(optimize.brentq(excess, smallest, most, rtol=1e-6))

    def futility(self) -> Passing:
        """Until a challenger without any effect is given up: the mirror image of passing a margin of min_effect."""
        least = self._definition.min_effect / self._metric.span
        if not least or not self._futile:
            return NEVER
        if self._definition.paired:
            rate = 0.5 * self._shadow * (least / self._pair_sd) ** 2
            days = self._schedule.days_until(expected_units(1.0, self._level), lambda leg: rate * leg.units)
            found = Passing(typical=days, high=SLOW * days)
        else:
            bad = self._base if rate_like(self._metric) else 0.5
            sd = None if rate_like(self._metric) else self._sd
            found = passing(self._schedule, bad, least, self._level, sd)
        # It is judged in the last stage only.
        begins = self._schedule.last.begins
        return Passing(
            typical=max(begins, found.typical + lag(self._metric)), high=max(begins, found.high + lag(self._metric))
        )

    def _daily(self, effect: float) -> Daily:
        """Nats a day about one challenger."""
        beyond = effect - self.least
        if self._definition.paired:
            # A pair is its own control: it needs no coin, and its spread is that of a difference.
            pair = 0.5 * self._shadow * (beyond / self._metric.span / self._pair_sd) ** 2
            return lambda leg: leg.units * pair
        if rate_like(self._metric):
            sign = 1.0 if self._metric.increase else -1.0
            ends = (self._base + sign * self.least, min(1.0, max(0.0, self._base + sign * effect)))
            return lambda leg: leg.pair_units * information(*ends, leg.pi)
        return lambda leg: leg.pair_units * information_gaussian(beyond / self._metric.span, self._sd, leg.pi)

    def _interval_days(self, effect: float) -> float:
        """Until the interval, were the estimate exact, lies above what must be exceeded."""

        def above(log_days: float) -> float:
            return self._lower(effect / self._metric.span, math.exp(log_days)) - self.least / self._metric.span

        first, last = math.log(1e-3), math.log(_LATEST)
        if above(last) <= 0.0:
            return math.inf
        return math.exp(first if above(first) > 0.0 else float(optimize.brentq(above, first, last, xtol=1e-4)))

    def _lower(self, g: float, days: float) -> float:
        """The interval's lower end on the score after that many days."""
        paired = self._definition.paired
        below = np.zeros(len(BANDS))
        known = 0.0
        for leg in self._schedule.legs:
            spent = (days if leg is self._schedule.last else min(days, leg.ends)) - leg.begins
            units = max(0.0, spent) * (self._shadow * leg.units if paired else leg.pair_units)
            h = 0.5 if paired else leg.pi * (1.0 - leg.pi)
            known += units * h
            spread = 0.25 * self._pair_sd**2 if paired else h * self._sd**2
            below[int(band_of(0.5 * (1.0 + g) if paired else self._range(leg, g)))] += units * spread
        v_opt = self._definition.v_opt(self._metric)
        both = below.tolist()
        return overlap_interval(
            g * known, known, sum(both), alpha=CONFIDENCE_ALPHA, v_opt=v_opt, v_by_range=(both, both)
        ).lower

    def _range(self, leg: Leg, g: float) -> float:
        """How far psi may fall below its prediction."""
        return max((1.0 - leg.pi) * self._mean, leg.pi * (1.0 - self._mean)) + leg.pi * (1.0 - leg.pi) * g

    def _needed(self, effect: float) -> float:
        """Nats, on average: the limit times what D1 needs above it."""
        expected = self._definition.expected_effect - self.least
        multiple = (effect - self.least) / expected if expected > 0.0 else None
        return expected_units(1.0, self._alpha, multiple=multiple)

    def _room(self) -> float:
        """The greatest effect that the scale allows."""
        if self._metric.type in ("unbounded", "ratio"):
            return 0.5  # of a score whose champion is in the middle
        high = 1.0 if rate_like(self._metric) else self._metric.high
        return high - self._base if self._metric.increase else self._base - self._metric.low

    @property
    def _pair_sd(self) -> float:
        return PAIR_SPREAD * self._sd
