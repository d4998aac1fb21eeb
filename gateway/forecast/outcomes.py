"""Made-up outcomes of every type, in the form in which the fold takes them. A level is a mean in the metric's unit.

binary and limits on latency: coins. bounded and score: Beta. count: Poisson, or wider with a greater sd, capped.
unbounded and latency by quantiles: lognormal. ratio: one Poisson count on top of another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from gateway.evidence.definition import Definition, MetricDefinition
from gateway.evidence.scoring import TAILS, score
from gateway.forecast.assumptions import LATENCY_SIGMA, Assumption, rate_like
from gateway.forecast.subject import AssumptionError
from gateway.stats import Reference, ratio_score, winsorised_score

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, Floats], Floats]

_TYPICAL_US = 100_000.0  # median of a latency that is judged by its quantiles
_COUNTED = 200  # a cap beyond which capping hardly moves a mean
_SAMPLE = 20_000  # values by which the scale of an unbounded metric is known beforehand


class Outcomes:
    """One metric: draws values at given levels, and knows which level has which effect on the score."""

    def __init__(self, definition: Definition, metric: MetricDefinition, assumed: Assumption) -> None:
        self.metric = metric
        self.base = assumed.base
        self._sd = assumed.sd
        self._definition = definition
        self._draw = self._family()
        self._factors: dict[float, float] = {}

    def draw(self, rng: np.random.Generator, levels: Floats) -> Floats:
        """One value per unit, shape (n,); of a ratio (n, 2)."""
        return self._draw(rng, levels)

    def challenged(self, levels: Floats, gain: float) -> Floats:
        """The levels of a challenger that is better by ``gain`` (worse if negative), in the unit of effects.

        Raises AssumptionError where the metric has no room for that.
        """
        if gain == 0.0 or not len(levels):
            return levels
        sign = 1.0 if self.metric.increase else -1.0
        if self.metric.by_quantiles:
            return levels * (1.0 - gain)  # a part of the time that it takes
        if self.metric.type in ("unbounded", "ratio"):
            if gain not in self._factors:
                self._factors[gain] = self._factor(sign * gain)
            return levels * self._factors[gain]
        moved = levels + sign * gain
        low = self.metric.low
        top = 1.0 if rate_like(self.metric) else self.metric.high
        if moved.min() < low - 1e-9 or moved.max() > top + 1e-9:
            raise AssumptionError(
                f"{self.metric.name}: {gain:+g} from a level of {self.base:g} leaves the scale [{low:g}, {top:g}]"
            )
        return moved

    def score_sd(self) -> float:
        """The spread of the score g, between 0 and 1."""
        if self.metric.type in ("unbounded", "ratio"):
            return float(self._scores(1.0).std())
        return self._sd / self.metric.span

    def _family(self) -> Draw:
        metric = self.metric
        if metric.by_quantiles:
            return lambda rng, levels: _TYPICAL_US * levels * np.exp(LATENCY_SIGMA * rng.standard_normal(len(levels)))
        if metric.type == "latency":
            return lambda rng, levels: np.where(rng.random(len(levels)) < levels, 2.0, 0.5) * metric.limit_us
        if metric.type == "binary":
            return lambda rng, levels: (rng.random(len(levels)) < levels).astype(np.float64)
        if metric.type in ("bounded", "score"):
            return self._beta()
        if metric.type == "count":
            return self._count()
        return self._lognormal if metric.type == "unbounded" else self._ratio

    def _beta(self) -> Draw:
        low, span = self.metric.low, self.metric.span
        mean, spread = (self.base - low) / span, self._sd / span
        size = mean * (1.0 - mean) / spread**2 - 1.0  # stays as it is where the mean moves

        def draw(rng: np.random.Generator, levels: Floats) -> Floats:
            share = np.clip((levels - low) / span, 1e-6, 1.0 - 1e-6)
            return np.asarray(low + span * rng.beta(share * size, (1.0 - share) * size))

        return draw

    def _count(self) -> Draw:
        extra = self._sd**2 - self.base
        shape = self.base**2 / extra if extra > 1e-9 * self.base else math.inf
        rates, means = _capped_means(self.metric.high, shape)

        def draw(rng: np.random.Generator, levels: Floats) -> Floats:
            rate = np.interp(levels, means, rates)
            mixed = rate if math.isinf(shape) else rate * rng.gamma(shape, 1.0 / shape, len(levels))
            return rng.poisson(mixed).astype(np.float64)

        return draw

    def _lognormal(self, rng: np.random.Generator, levels: Floats) -> Floats:
        sigma = math.sqrt(math.log1p((self._sd / self.base) ** 2))
        return levels * np.exp(sigma * rng.standard_normal(len(levels)) - 0.5 * sigma**2)

    def _ratio(self, rng: np.random.Generator, levels: Floats) -> Floats:
        top, bottom = self._caps
        below = np.minimum(rng.poisson(bottom / 4.0, len(levels)), bottom)
        return np.stack([np.minimum(rng.poisson(levels * below), top), below], axis=1)

    @property
    def _caps(self) -> tuple[float, float]:
        top, bottom = self.metric.numerator, self.metric.denominator
        return self._definition.metric(top).high, self._definition.metric(bottom).high

    def _factor(self, change: float) -> float:
        """By how much all values of the challenger are multiplied to move the mean score by ``change``."""
        plain = float(self._scores(1.0).mean())

        def excess(log_factor: float) -> float:
            return float(self._scores(math.exp(log_factor)).mean()) - plain - change

        if excess(-3.0) > 0.0 or excess(3.0) < 0.0:
            raise AssumptionError(f"{self.metric.name}: no change of the values moves the score by {change:+g}")
        return math.exp(float(optimize.brentq(excess, -3.0, 3.0, xtol=1e-6)))

    def _scores(self, factor: float) -> Floats:
        """Scores, before the direction is minded, of values ``factor`` times the champion's."""
        if self.metric.type == "ratio":
            top, bottom = self._caps
            values = self._ratio(np.random.default_rng(0), np.full(_SAMPLE, self.base))
            below = values[:, 1]
            # The mean of the upper count is what moves; drawn anew it would hide the change in noise.
            above = np.minimum(values[:, 0] * factor, top)
            ratio = float(values[:, 0].sum() / below.sum())
            return ratio_score(above, below, ratio=ratio, numerator_cap=top, denominator_cap=bottom)
        plain = self._lognormal(np.random.default_rng(0), np.full(_SAMPLE, self.base))
        if self.metric.scale == "winsorised":
            low, high = np.quantile(plain, TAILS).tolist()
            return winsorised_score(plain * factor, low, high)
        return Reference.freeze(plain, size=_SAMPLE).ranks(plain * factor)


def score_of(metric: MetricDefinition, level: float) -> float:
    """The mean score g, bigger better, of a level."""
    value = np.array([level])
    return float(1.0 - value[0] if rate_like(metric) and not metric.increase else score(metric, value)[0])


@lru_cache(maxsize=64)
def _capped_means(cap: float, shape: float) -> tuple[Floats, Floats]:
    """Rates of a count, and the mean of the capped count at each of them."""
    rates = np.concatenate([[0.0], np.geomspace(1e-6, 50.0 * cap + 50.0, 2000)])
    if cap > _COUNTED:
        return rates, rates
    below = np.arange(math.ceil(cap))
    steps = np.minimum(1.0, cap - below)  # the last one is shorter where the cap is no whole number
    if math.isinf(shape):
        above = special.pdtrc(below[None, :], np.maximum(rates, 1e-12)[:, None])
    else:
        above = special.betainc(below[None, :] + 1.0, shape, (rates / (shape + rates))[:, None])
    means = np.maximum.accumulate(above @ steps)
    return rates, means
