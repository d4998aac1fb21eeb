"""Made-up units: they come at an even pace, each once, with outcomes at assumed levels and an effect by choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gateway.evidence.batch import Batch, Floats
from gateway.forecast.arrivals import Arrivals, Coins, labels
from gateway.forecast.assumptions import PAIR_SPREAD, Assumption
from gateway.forecast.outcomes import Outcomes
from gateway.forecast.subject import AssumptionError, Subject
from gateway.forecast.traffic import DAY_US
from gateway.forecast.trial import START_US
from gateway.release.state import ReleaseState


class Scenario(NamedTuple):
    """What is true of the challengers, in the unit of effects; bigger is better for gains."""

    effect: float  # on the objective, of the first challenger; the others are as the champion
    worse: Mapping[str, float]  # by metric, how much worse every challenger is
    drift: float  # by how much the champion's objective has moved when the longest possible run ends


class MadeUp:
    """The world of one simulation. Stateless: a run is told by its random generator."""

    def __init__(
        self, subject: Subject, assumed: Mapping[str, Assumption], scenario: Scenario, traffic: float, longest_us: int
    ) -> None:
        self._definition = subject.definition
        self._objective = subject.objective
        self._scenario = scenario
        self._gap_us = DAY_US / traffic
        self._longest_us = longest_us
        self._shadow = subject.shadow
        self._coins = Coins(subject.definition)
        self._labels = labels(subject.definition)
        self._outcomes = [Outcomes(subject.definition, metric, assumed[metric.name]) for metric in subject.judged]
        self._pair_sd = PAIR_SPREAD * assumed[self._objective.name].sd / self._objective.span
        self._try_levels()

    def arrive(self, rng: np.random.Generator, n: int, state: ReleaseState, since_us: int) -> Arrivals:
        """The next n units; ``since_us`` is when the last one came."""
        at = since_us + np.rint(self._gap_us * np.arange(1, n + 1)).astype(np.int64)
        odds = self._coins.odds(state)
        arms = self._coins.toss(rng, n, odds)
        batch = Batch(
            at=at,
            stages=np.full(n, state.stage),
            arms=arms,
            odds=np.broadcast_to(odds, (n, len(odds))),
            segments=self._labels[rng.integers(0, len(self._labels), n)],
            x=self._covariates(rng, n),
        )
        progress = np.minimum((at - START_US) / self._longest_us, 1.0)
        values = {one.metric.name: self._values(rng, one, arms, progress) for one in self._outcomes}
        return Arrivals(batch, values, self._pairs(rng, n) if self._definition.paired else None)

    def _values(self, rng: np.random.Generator, one: Outcomes, arms: np.ndarray, progress: Floats) -> Floats:
        objective = one.metric == self._objective
        levels = one.base + (self._scenario.drift * progress if objective else np.zeros(len(arms)))
        for arm in range(1, len(self._definition.arms)):
            if gain := self._gain(one, arm):
                mine = arms == arm
                levels[mine] = one.challenged(levels[mine], gain)
        return one.draw(rng, levels)

    def _gain(self, one: Outcomes, arm: int) -> float:
        own = self._scenario.effect if one.metric == self._objective and arm == 1 else 0.0
        return own - self._scenario.worse.get(one.metric.name, 0.0)

    def _pairs(self, rng: np.random.Generator, n: int) -> Floats:
        """Losses of all arms on the same request; only differences matter. NaN outside the shadow sample."""
        span = self._objective.span
        losses = np.full((n, len(self._definition.arms)), 0.5 * span)
        for arm in range(1, losses.shape[1]):
            effect = self._scenario.effect / span if arm == 1 else 0.0
            losses[:, arm] -= span * np.clip(effect + self._pair_sd * rng.standard_normal(n), -1.0, 1.0)
        losses[rng.random(n) >= self._shadow] = np.nan
        return losses

    def _covariates(self, rng: np.random.Generator, n: int) -> Floats | None:
        """They foretell nothing here: a cautious guess."""
        return rng.random((n, self._definition.covariates)) if self._definition.covariates else None

    def _try_levels(self) -> None:
        """Raises AssumptionError where an effect leaves a metric's scale, at the start or at the end of the drift."""
        if unknown := sorted(set(self._scenario.worse) - {one.metric.name for one in self._outcomes}):
            raise AssumptionError(f"no metric with a say is called {unknown[0]!r}")
        for one in self._outcomes:
            drift = self._scenario.drift if one.metric == self._objective else 0.0
            ends = np.array([one.base, one.base + drift])
            low, high = one.metric.low, one.metric.high
            if drift and one.metric.type != "unbounded" and not (low <= ends[1] <= high):
                raise AssumptionError(f"{one.metric.name}: a drift of {drift:+g} leaves the scale [{low:g}, {high:g}]")
            for arm in range(1, len(self._definition.arms)):
                one.challenged(ends, self._gain(one, arm))
