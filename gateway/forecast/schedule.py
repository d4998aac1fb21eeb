"""The stages in time: how long each lasts at least, and when an amount of evidence has come together.

Information adds up over the ramp: a unit of a stage with share pi brings I(pi), so after n_i units of each stage there
is the sum of n_i I(pi_i). The last stage goes on until something is decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from gateway.evidence.definition import MetricDefinition
from gateway.forecast.subject import Subject
from gateway.forecast.traffic import DAY_US


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """One stage. Times in days from the start; rates in units a day."""

    name: str
    share: float  # of each challenger
    units: float  # a day, of all variants
    challenger_units: float  # a day, of each challenger
    champion_units: float  # a day
    days: float  # at least
    begins: float
    binding: str  # which minimum takes longest

    @property
    def pair_units(self) -> float:
        """Units a day that are one challenger's or the champion's."""
        return self.challenger_units + self.champion_units

    @property
    def pi(self) -> float:
        """The challenger's share among those."""
        return self.challenger_units / self.pair_units

    @property
    def ends(self) -> float:
        return self.begins + self.days


Daily = Callable[[Leg], float]  # what a day in a stage brings


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """The whole ramp at a constant traffic."""

    traffic: float  # units a day
    legs: tuple[Leg, ...]

    @property
    def last(self) -> Leg:
        return self.legs[-1]

    def gathered(self, days: float, daily: Daily) -> float:
        """What the first ``days`` bring."""
        spent = ((days if leg is self.last else min(days, leg.ends)) - leg.begins for leg in self.legs)
        return sum(max(0.0, span) * daily(leg) for span, leg in zip(spent, self.legs, strict=True))

    def days_until(self, needed: float, daily: Daily) -> float:
        """When that much has come; inf if never."""
        for leg in self.legs:
            rate = daily(leg)
            if leg is self.last or needed <= rate * leg.days:
                return leg.begins + needed / rate if rate > 0.0 else math.inf
            needed -= rate * leg.days
        raise AssertionError("a schedule has at least one leg")


def days_of(us: int) -> float:
    return us / DAY_US


def lag(metric: MetricDefinition) -> float:
    """Days from an exposure until its outcome counts; of gateway metrics the answer itself."""
    return days_of(metric.within_us) if metric.source == "outcome" else 0.0


def schedule(subject: Subject, traffic: float) -> Schedule:
    """Each stage by the greatest of its minimums; its units must have matured, so the window is waited for."""
    rivals, wait = len(subject.definition.challengers), lag(subject.objective)
    legs: list[Leg] = []
    begins = 0.0
    for rule in subject.rules.stages:
        share = float(rule.share)
        waits = {
            "min_duration": days_of(rule.min_duration_us),
            "min_units": rule.min_units / traffic + (wait if rule.min_units else 0.0),
            "min_challenger_units": rule.min_challenger_units / (traffic * share)
            + (wait if rule.min_challenger_units else 0.0),
        }
        binding = max(waits, key=lambda name: waits[name])
        legs.append(
            Leg(
                name=rule.name,
                share=share,
                units=traffic,
                challenger_units=traffic * share,
                champion_units=traffic * (1.0 - rivals * share),
                days=waits[binding],
                begins=begins,
                binding=binding,
            )
        )
        begins = legs[-1].ends
    return Schedule(traffic=traffic, legs=tuple(legs))
