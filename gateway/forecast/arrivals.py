"""Units on their way: drawn as they come, folded metric by metric as their windows close."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from gateway.assignment.segments import OTHER
from gateway.evidence.batch import Batch, Floats
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.evidence.fold import fold_pairs, fold_values
from gateway.release.state import ReleaseState, shares_of

_MOST_LABELS = 200  # combinations of segment values that occur


class World(Protocol):
    """Where units come from: made up, or an old log with new coins."""

    def arrive(self, rng: np.random.Generator, n: int, state: ReleaseState, since_us: int) -> Arrivals | None:
        """The next n units (fewer at the end of a log, None behind it) under the split of a state."""


class Arrivals:
    """n units in the order of their coins, with everything that will be known of them."""

    __slots__ = ("batch", "losses", "values")

    def __init__(self, batch: Batch, values: Mapping[str, Floats], losses: Floats | None = None) -> None:
        self.batch = batch
        self.values = values
        self.losses = losses  # of the objective in pairs, shape (n, arms)

    def __len__(self) -> int:
        return len(self.batch)

    def part(self, begin: int, end: int) -> Arrivals:
        cut = slice(begin, end)
        return Arrivals(
            self.batch.where(cut),
            {name: values[cut] for name, values in self.values.items()},
            None if self.losses is None else self.losses[cut],
        )

    def and_then(self, others: Arrivals) -> Arrivals:
        return Arrivals(
            _joined(self.batch, others.batch),
            {name: np.concatenate([values, others.values[name]]) for name, values in self.values.items()},
            None if self.losses is None or others.losses is None else np.concatenate([self.losses, others.losses]),
        )


class Waiting:
    """Units that some metric has not folded yet, and how far each metric is."""

    def __init__(self, metrics: Sequence[MetricDefinition]) -> None:
        self._metrics = metrics
        self._units: Arrivals | None = None
        self._folded = dict.fromkeys((metric.name for metric in metrics), 0)
        self._behind = 0  # units that every metric has folded, and that are forgotten

    @property
    def folded(self) -> int:
        """Units that every metric has folded."""
        return self._behind + min(self._folded.values())

    def mark(self) -> dict[str, int]:
        return dict(self._folded)

    def back_to(self, mark: dict[str, int]) -> None:
        self._folded = dict(mark)

    def add(self, units: Arrivals) -> None:
        """Take in new units, and forget those that are done with."""
        done = min(self._folded.values())
        if self._units is None:
            self._units = units
            return
        self._units = self._units.part(done, len(self._units)).and_then(units)
        self._folded = {name: place - done for name, place in self._folded.items()}
        self._behind += done

    def drop_after(self, now_us: int) -> None:
        """Take back units that came later: their split was changed before they came."""
        assert self._units is not None
        self._units = self._units.part(0, int(np.searchsorted(self._units.batch.at, now_us, side="right")))

    def fold(self, evidence: Evidence, now_us: int) -> None:
        """Fold whatever is settled now."""
        assert self._units is not None
        for metric in self._metrics:
            wait = metric.within_us if metric.source == "outcome" else 0
            begin = self._folded[metric.name]
            end = int(np.searchsorted(self._units.batch.at, now_us - wait, side="right"))
            if end <= begin:
                continue
            part = self._units.part(begin, end)
            fold_values(evidence, metric, part.batch, part.values[metric.name])
            if metric.name == evidence.definition.objective and part.losses is not None:
                fold_pairs(evidence, metric, part.batch, part.losses)
            self._folded[metric.name] = end


class Coins:
    """Draws arms under a split; the probabilities of all arms by state."""

    def __init__(self, definition: Definition) -> None:
        self._arms = definition.arms

    def odds(self, state: ReleaseState) -> Floats:
        shares = shares_of(state.slots)
        return np.array([shares.get(arm, 0.0) for arm in self._arms])

    def toss(self, rng: np.random.Generator, n: int, odds: Floats) -> np.ndarray:
        return np.searchsorted(np.cumsum(odds)[:-1], rng.random(n), side="right").astype(np.int64)


def labels(definition: Definition) -> np.ndarray:
    """Texts of segment values as votes have them: every combination, or some of very many."""
    choices = [(*values, OTHER) for values in definition.segment_values]
    combinations = list(itertools.islice(itertools.product(*choices), 100 * _MOST_LABELS))
    if len(combinations) > _MOST_LABELS:
        combinations = combinations[:: len(combinations) // _MOST_LABELS]
    return np.array([json.dumps(one) for one in combinations], dtype=np.object_)


def _joined(one: Batch, other: Batch) -> Batch:
    return Batch(
        at=np.concatenate([one.at, other.at]),
        stages=np.concatenate([one.stages, other.stages]),
        arms=np.concatenate([one.arms, other.arms]),
        odds=np.concatenate([one.odds, other.odds]),
        segments=np.concatenate([one.segments, other.segments]),
        x=None if one.x is None or other.x is None else np.concatenate([one.x, other.x]),
    )
