"""What an experiment is to the statistics, frozen when it starts.

Wealth won with one bet says nothing about another, so whatever is in here changes only with a new experiment id.
Stages, automation and the split are not in here: they may be edited while it runs.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.plan import MetricType, Source
from gateway.stats import Bet, futility, harm, harm_beyond, non_inferiority, suggested_v_opt, superiority

PROMOTE, HARM, FUTILITY, NON_INFERIOR = "promote", "harm", "futility", "non_inferior"


class MetricDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """One metric; times in microseconds, bounds in its own unit."""

    name: str
    type: MetricType
    source: Source
    increase: bool
    low: float = 0.0
    high: float = 1.0
    limit_us: int = 0
    window_us: int = 0
    grace_us: int = 0
    missing: Literal["exclude", "zero"] = "exclude"
    max_missing: float = 0.05
    margin: float | None = None  # set for guardrails

    @property
    def span(self) -> float:
        return self.high - self.low

    @property
    def within_us(self) -> int:
        """How long after the exposure an outcome still counts; then the unit closes."""
        return self.window_us + self.grace_us

    def score(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values on [0, 1] with bigger better; they lie within the bounds. Shape (n,)."""
        g = (values - self.low) / self.span
        return g if self.increase else 1.0 - g

    def effect(self, tau: float) -> float:
        """An effect on the score, in the metric's own unit and direction."""
        return tau * self.span if self.increase else -tau * self.span


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment of one challenger against the champion."""

    id: str
    endpoint: str
    champion: str
    challenger: str
    metrics: tuple[MetricDefinition, ...]
    objective: str
    expected_effect: float
    min_effect: float
    segments: tuple[str, ...]  # names, in the order of the values in an assignment
    segment_values: tuple[tuple[str, ...], ...]
    answer_within_us: int  # a request without completion after this long has failed
    champion_digest: str = ""  # of the model files, "" for an upstream: other files are other variants
    challenger_digest: str = ""

    def metric(self, name: str) -> MetricDefinition:
        return next(metric for metric in self.metrics if metric.name == name)

    @property
    def guardrails(self) -> tuple[MetricDefinition, ...]:
        return tuple(metric for metric in self.metrics if metric.margin is not None)

    def bets(self, metric: MetricDefinition) -> dict[str, Bet]:
        """The hypotheses tested on a metric, by its role."""
        if metric.name == self.objective:
            return self._objective_bets(metric)
        if metric.margin is not None:
            margin = metric.margin / metric.span
            return {NON_INFERIOR: non_inferiority(margin), HARM: harm_beyond(margin)}
        return {HARM: harm()}

    def v_opt(self, metric: MetricDefinition) -> float:
        """The intrinsic time at which the metric's interval is tightest; fixed before the first unit."""
        if metric.name == self.objective and self.expected_effect:
            return suggested_v_opt(self.expected_effect / metric.span)
        return 100.0

    def _objective_bets(self, metric: MetricDefinition) -> dict[str, Bet]:
        expected = self.expected_effect / metric.span
        bets = {PROMOTE: superiority(expected or None), HARM: harm()}
        if self.min_effect:
            bets[FUTILITY] = futility(self.min_effect / metric.span)
        return bets


def encode(definition: Definition) -> str:
    return msgspec.json.encode(definition).decode()


def decode(text: str) -> Definition:
    return msgspec.json.decode(text, type=Definition)
