"""What an experiment is to the statistics, frozen when it starts.

Wealth won with one bet says nothing about another, so whatever is in here changes only with a new experiment id.
Stages, automation and the split are not in here: they may be edited while it runs.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway.plan import MetricType
from gateway.stats import (
    AnyBet,
    Bet,
    futility,
    harm,
    harm_beyond,
    non_inferiority,
    relative_harm,
    relative_non_inferiority,
    suggested_v_opt,
    superiority,
    superiority_by,
)

PROMOTE, HARM, FUTILITY = "promote", "harm", "futility"
NON_INFERIOR = "non_inferior"  # a guardrail is proved to be within its margin
NOT_WORSE = "not_worse"  # the objective is proved not to be worse by min_effect; with FUTILITY: equivalent

Source = Literal["gateway", "outcome"]  # what is read from answers comes as outcomes do
Aggregate = Literal["first", "sum", "count", "max"]
Scale = Literal["rank", "winsorised"]
Loss = Literal["brier", "log_loss", "absolute_error"]
LOG_LOSS_CAP = 10.0  # nats: predictions are held between exp(-10) and 1 - exp(-10)


class MetricDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """One metric; times in microseconds, bounds in its own unit."""

    name: str
    type: MetricType
    source: Source
    increase: bool
    low: float = 0.0
    high: float = 1.0  # of a count: the cap beyond which more does not matter
    limit_us: int = 0
    window_us: int = 0
    grace_us: int = 0
    missing: Literal["exclude", "bounds", "zero"] = "exclude"
    max_missing: float = 0.05
    aggregate: Aggregate = "first"
    scale: Scale = "rank"  # of an unbounded metric
    numerator: str = ""  # of a ratio: names of two outcome metrics with caps
    denominator: str = ""
    loss: Loss = "brier"  # of a score
    margin: float | None = None  # set for guardrails: absolute, in the metric's unit
    relative_margin: float | None = None  # set for guardrails: a share of the champion's value
    floor: float = 0.0  # the least tolerance of a relative margin, in the metric's unit
    signal: bool = False  # harm holds the release, no more
    read: bool = False  # from answers, by the gateway alone: an outcome that is posted is rejected

    @property
    def span(self) -> float:
        return self.high - self.low

    @property
    def within_us(self) -> int:
        """How long after the exposure an outcome still counts; then the unit closes."""
        return self.window_us + self.grace_us

    @property
    def labelled(self) -> bool:
        """Whether a unit without outcome is one of which nothing is known, and not one where nothing happened."""
        return self.source == "outcome" and self.missing != "zero"

    @property
    def guards(self) -> bool:
        return self.margin is not None or self.relative_margin is not None

    @property
    def by_quantiles(self) -> bool:
        """A latency held to a relative margin at its quantiles, not to a limit (rule R15)."""
        return self.type == "latency" and self.relative_margin is not None

    def effect(self, tau: float) -> float:
        """An effect on the score g, in the metric's own unit and direction."""
        return tau * self.span if self.increase else -tau * self.span


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment: challengers against one champion."""

    id: str
    endpoint: str
    champion: str
    challengers: tuple[str, ...]
    metrics: tuple[MetricDefinition, ...]
    objective: str
    expected_effect: float
    min_effect: float
    segments: tuple[str, ...]  # names, in the order of the values in an assignment
    segment_values: tuple[tuple[str, ...], ...]
    answer_within_us: int  # a request without completion after this long has failed
    require_min_effect: bool = False  # promotion proves an effect above min_effect, not only above 0
    covariates: int = 0  # numbers known before the coin that adjust the objective (CUPED)
    paired: bool = False  # the objective is decided by pairs: both variants' predictions of one request (R18)
    cycle_us: int = 0  # a business cycle; 0 for none
    holdback: bool = False  # after a promotion some units stay with the old champion, and it is watched
    aa: bool = False  # champion and challenger are the same: the rates of false alarms are what is measured
    digests: tuple[
        str, ...
    ] = ()  # of the model files, or upstreams' names of models; champion first: others are other variants

    @property
    def arms(self) -> tuple[str, ...]:
        """Champion first: arm 0."""
        return self.champion, *self.challengers

    def arm(self, variant: str) -> int:
        """Raises ValueError for a variant that is not of this experiment."""
        return self.arms.index(variant)

    def metric(self, name: str) -> MetricDefinition:
        return next(metric for metric in self.metrics if metric.name == name)

    @property
    def guardrails(self) -> tuple[MetricDefinition, ...]:
        return tuple(metric for metric in self.metrics if metric.guards)

    @property
    def longest_us(self) -> int:
        """Until every window of a vote is closed."""
        return max((metric.within_us for metric in self.metrics if metric.source == "outcome"), default=0)

    def bets(self, metric: MetricDefinition) -> dict[str, AnyBet]:
        """The hypotheses tested on a metric, by its role. Quantiles have bets of their own (`latency_bets`)."""
        if metric.name == self.objective:
            return dict(self.objective_bets(metric.span))
        if metric.relative_margin is not None:
            margin, up, floor = metric.relative_margin, metric.increase, metric.floor / metric.span
            return {
                NON_INFERIOR: relative_non_inferiority(margin, bigger_is_better=up, floor=floor),
                HARM: relative_harm(margin, bigger_is_better=up, floor=floor),
            }
        if metric.margin is not None:
            margin = metric.margin / metric.span
            return {NON_INFERIOR: non_inferiority(margin), HARM: harm_beyond(margin)}
        return {HARM: harm()}

    def objective_bets(self, span: float) -> dict[str, Bet]:
        """Bets on the objective; effects in its own unit become shares of `span`."""
        expected, least = self.expected_effect / span, self.min_effect / span
        better = superiority_by(least, expected) if self.require_min_effect else superiority(expected or None)
        bets = {PROMOTE: better, HARM: harm()}
        if least:
            bets |= {FUTILITY: futility(least), NOT_WORSE: non_inferiority(least)}
        return bets

    @staticmethod
    def latency_bets() -> dict[str, AnyBet]:
        """On exceedances at quantiles with the factor of the relative margin: slower by more, or by less."""
        return {HARM: harm(), NON_INFERIOR: superiority()}

    def v_opt(self, metric: MetricDefinition) -> float:
        """The intrinsic time at which the metric's interval is tightest; fixed before the first unit."""
        if metric.name != self.objective or not self.expected_effect:
            return 100.0
        best = suggested_v_opt(self.expected_effect / metric.span)
        return best / 4.0 if self.paired else best  # of pairs it counts (D/2)^2


def encode(definition: Definition) -> str:
    return msgspec.json.encode(definition).decode()


def decode(text: str) -> Definition:
    return msgspec.json.decode(text, type=Definition)
