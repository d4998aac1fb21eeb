"""From what was measured to g in [0, 1], the score that the tests are about (`stats.scores`).

Where the scale comes from the champion's own past (ranks, winsorised values, ratios), a `Scorer` collects it first
and freezes it at fixed counts of champion units: what a unit is scored by was known before its coin. Units before the
first freeze feed the sample and are not tested. Ranks and winsorised values keep their second scale for good, so that
an effect means the same all along; a ratio is taken anew as the champion grows by a sixteenth (R5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.evidence.definition import LOG_LOSS_CAP, Loss, MetricDefinition
from gateway.stats import Reference, ratio_score, winsorised_score

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
T = TypeVar("T")

FREEZES: Final = (200, 1000)  # champion units after which the scale is taken (anew)
TAILS: Final = (0.005, 0.995)  # quantiles beyond which a winsorised value is drawn in
_FARTHEST: Final = 1e150  # sds: the square of a value of a mean must be a number
SCALED: Final = frozenset(("unbounded", "ratio"))


def score(metric: MetricDefinition, values: Floats) -> Floats:
    """g of values within the metric's bounds, bigger better; a count above its cap is the cap. NaN stays NaN."""
    g = (np.minimum(values, metric.high) - metric.low) / metric.span
    return g if metric.increase else 1.0 - g


def loss(kind: Loss, prediction: Floats, label: Floats) -> Floats:
    """What a prediction costs once the label is known, per unit; NaN where either is missing.

    brier (p - y)^2, log_loss -log of the probability of what happened, capped at LOG_LOSS_CAP, absolute_error |p - y|.
    An infinite prediction is one that failed: it costs more than any other.
    """
    if kind == "absolute_error":
        cost = _quietly(lambda: np.abs(prediction - label))
    else:
        p = np.clip(prediction, 0.0, 1.0)
        label = np.where((label >= 0.0) & (label <= 1.0), label, np.nan)  # of a worker that no longer had the metric
        cost = (p - label) ** 2 if kind == "brier" else _log_loss(p, label)
    return np.where(np.isfinite(label), np.where(np.isinf(prediction), np.inf, cost), np.nan)


def _log_loss(p: Floats, label: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.minimum(-np.log(np.where(label > 0.5, p, 1.0 - p)), LOG_LOSS_CAP)


class Scaled(NamedTuple):
    """n values on the scale of their metric, bigger better; NaN where the value is not known."""

    g: Floats
    ready: Mask  # whether there was a scale
    linear: Floats  # the value itself (of a ratio N - r D) in sds from its mean, both frozen; NaN before


class Scorer:
    """The scale of one unbounded or ratio metric, by the champion's past.

    Values have shape (n, 2): the value and, of a ratio, its denominator (else 0). All of one stream, in fold order.
    """

    def __init__(self, metric: MetricDefinition, caps: tuple[float, float] = (1.0, 1.0)) -> None:
        self._metric = metric
        self._caps = caps  # of numerator and denominator
        self._sample: list[list[float]] = []
        self._seen = 0
        self._scale: list[float] = []  # of ranks the reference, winsorised [low, high], of a ratio [ratio]
        self._centre: list[float] = []  # frozen with the first scale: mean, sd, mean denominator, ratio

    @property
    def collecting(self) -> bool:
        """Whether champion units still change the scorer."""
        return self._next_freeze > 0

    @property
    def _next_freeze(self) -> int:
        """The count of champion units at which the scale is taken anew; 0 when it stays.

        That of a ratio follows the champion: where the challenger changes the denominator, an error of the ratio is
        a bias on every unit, and one that stayed would make evidence out of nothing.
        """
        count = next((count for count in FREEZES if count > self._seen), 0)
        if self._metric.type == "ratio":
            count = FREEZES[0]
            while count <= self._seen:
                count += count // 16
        return count

    def score(self, values: Floats, champion: Mask, known: Mask) -> Scaled:
        """What each unit counts, by what was known before it. Takes the champion's known values in on the way."""
        if self._metric.type == "ratio":
            values = np.clip(values, 0.0, self._caps)
        g, linear = np.full((2, len(values)), np.nan)
        ready = np.zeros(len(values), dtype=np.bool_)
        begin = 0
        while begin < len(values):
            end = self._until(champion & known, begin)
            part = slice(begin, end)
            ready[part] = bool(self._scale)
            if self._scale:
                g[part][known[part]] = self._scored(values[part][known[part]])
            if self._centre:
                linear[part][known[part]] = self._standardised(values[part][known[part]])
            self._collect(values[part][(champion & known)[part]])
            begin = end
        return Scaled(g if self._metric.increase else 1.0 - g, ready, linear)

    def mean_effect(self, standardised: float) -> float:
        """An effect on `linear` in the metric's own unit: of the mean, or of the ratio."""
        _, sd, bottom, _ = self._centre
        return standardised * sd / bottom

    def state(self) -> dict[str, Any]:
        return {"seen": self._seen, "sample": self._sample, "scale": self._scale, "centre": self._centre}

    def load(self, state: Mapping[str, Any]) -> None:
        self._seen, self._sample = int(state["seen"]), [list(row) for row in state["sample"]]
        self._scale, self._centre = list(state["scale"]), list(state["centre"])

    def _until(self, champion: Mask, begin: int) -> int:
        """The end of the run of units that share a scale: behind the champion unit that completes the next sample."""
        wanted = self._next_freeze - self._seen
        places = np.flatnonzero(champion[begin:])
        return begin + int(places[wanted - 1]) + 1 if 0 < wanted <= len(places) else len(champion)

    def _collect(self, values: Floats) -> None:
        if not (self.collecting and len(values)):
            return
        due = self._next_freeze
        self._sample += values.tolist()
        self._seen += len(values)
        if self._seen == due:
            self._freeze(np.array(self._sample))
        if not self.collecting:
            self._sample = []
        elif self._metric.type == "ratio" and (self._centre or self._seen >= FREEZES[-1]):
            # Of a ratio the totals are enough, added strictly from left to right however the stream is cut.
            self._sample = [_totals(np.array(self._sample))]

    def _freeze(self, sample: Floats) -> None:
        """Take the scale from the sample. One that is all one value may have none; then the next one must do."""
        scale = self._taken(sample)
        if not (scale or self._scale or self._seen < FREEZES[-1]):
            # Above, at or below the one value that the champion ever had; or the numerator alone.
            scale = [0.0] if self._metric.type == "ratio" else [float(np.sort(sample[:, 0])[len(sample) // 2])]
        self._scale = scale or self._scale
        self._centre = self._centre or self._centred(sample)

    def _taken(self, sample: Floats) -> list[float]:
        if self._metric.type == "ratio":
            top, bottom = _totals(sample)
            return [top / bottom] if bottom > 0.0 and top / bottom < math.inf else []
        if self._metric.scale == "winsorised":
            low, high = _quietly(lambda: np.quantile(sample[:, 0], TAILS).tolist())
            return [low, high] if 0.0 < high - low < math.inf else []
        return list(Reference.freeze(sample[:, 0]).sample)

    def _scored(self, values: Floats) -> Floats:
        if self._metric.type == "ratio":
            top, bottom = self._caps
            pair = values[:, 0], values[:, 1]
            return ratio_score(*pair, ratio=self._scale[0], numerator_cap=top, denominator_cap=bottom)
        if self._metric.scale == "winsorised" and len(self._scale) == 2:
            return winsorised_score(values[:, 0], *self._scale)
        return Reference(tuple(self._scale)).ranks(values[:, 0])

    def _centred(self, sample: Floats) -> list[float]:
        """Nothing where the values do not vary, or too much for a number."""
        ratio, bottom = 0.0, 1.0
        if self._metric.type == "ratio":
            ratio, bottom = (self._scale or [0.0])[0], _quietly(lambda: float(sample[:, 1].mean()))
        raw = _quietly(lambda: sample[:, 0] - ratio * sample[:, 1])
        mean, sd = _quietly(lambda: (float(raw.mean()), float(raw.std())))
        return [mean, sd, bottom, ratio] if 0.0 < sd < math.inf and 0.0 < bottom < math.inf else []

    def _standardised(self, values: Floats) -> Floats:
        mean, sd, _, ratio = self._centre
        linear = _quietly(lambda: (values[:, 0] - ratio * values[:, 1] - mean) / sd)
        return np.clip(linear, -_FARTHEST, _FARTHEST)


def _totals(sample: Floats) -> list[float]:
    sums: list[float] = _quietly(lambda: np.add.accumulate(sample, axis=0)[-1].tolist())
    return sums


def _quietly(compute: Callable[[], T]) -> T:
    """Numbers near the largest that there is may overflow: the caller looks at the result."""
    with np.errstate(over="ignore", invalid="ignore"):
        return compute()
