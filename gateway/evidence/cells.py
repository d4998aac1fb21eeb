"""The folded evidence of one experiment: its parts (`parts`) and tallies, changed by the fold, kept with each step."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.evidence.batch import Units
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.evidence.parts import TALLY, Cell, Key, key_of, made, restored, text_of
from gateway.evidence.report import CYCLE, LAST_CYCLE, OVERALL
from gateway.evidence.scoring import Scorer
from gateway.stats import Interval, SampleRatio

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Evidence:
    """Everything folded so far for one experiment. Changed in place by the fold, inside one step."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.matured: Counter[tuple[str, int]] = Counter()  # (stage, arm) of the objective's folded units
        self.missing: Counter[tuple[str, int]] = Counter()  # (metric, arm)
        self.first_at = 0  # exposure of the first folded unit of the objective: where business cycles begin
        self.cycles: Counter[int] = Counter()  # whole cycles that have matured, by arm
        self._parts: dict[Key, Any] = {}
        self._segments: dict[Key, list[str]] = {}  # of the cells, by all but the last of their key
        self._changed: set[Key] = set()
        self._intervals: dict[Key, tuple[float, Interval]] = {}  # of cells, with their level, until they change

    # What there is of each kind; made when it is first asked for.

    def cell(self, arm: int, metric: MetricDefinition, segment: str = OVERALL) -> Cell:
        cell: Cell = self._part("cell", str(arm), metric.name, segment)
        return cell

    def scorer(self, metric: MetricDefinition) -> Scorer:
        scorer: Scorer = self._part("scorer", metric.name)
        return scorer

    def find(self, *key: str) -> Any:
        """A part that is there already, or None."""
        return self._parts.get(key)

    def segments_of(self, arm: int, metric: MetricDefinition) -> list[str]:
        """Segments with a cell, ascending."""
        return self._segments.get(("cell", str(arm), metric.name), [])

    def interval(self, arm: int, metric: MetricDefinition, segment: str, alpha: float) -> Interval:
        """The confidence interval of a cell that is there; computed anew only when it has changed."""
        key: Key = ("cell", str(arm), metric.name, segment)
        level, known = self._intervals.get(key, (0.0, None))
        if known is None or level != alpha:
            known = self._parts[key].interval(alpha, v_opt=self.definition.v_opt(metric))
            self._intervals[key] = alpha, known
        return known

    # What the fold does to them.

    def fold(self, arm: int, metric: MetricDefinition, segment: str, units: Units) -> None:
        """Into the cell of a segment."""
        self._fold(units, "cell", str(arm), metric.name, segment)

    def fold_part(self, kind: str, arm: int, metric: MetricDefinition, units: Units) -> None:
        """Into quantiles, a mean or a watch: whatever takes z, pi and a value."""
        self._fold(units, kind, str(arm), metric.name)

    def fold_coins(self, arms: Sequence[int], odds: Sequence[Sequence[float]]) -> None:
        """Do units arrive as the coins promise?"""
        self._count("coins", np.asarray(arms), np.asarray(odds, dtype=np.float64))

    def fold_presence(self, metric: MetricDefinition, arms: NDArray[np.int64], odds: Floats, present: Mask) -> None:
        """Do units with an outcome? One variant that loses more of them than its coins allow is a mismatch, too."""
        self._count("ratio", arms[present], odds[present], metric.name)
        self.missing.update((metric.name, arm) for arm in arms[~present].tolist())
        self._touch(*TALLY)

    @property
    def counted_arms(self) -> range:
        """With one challenger its share tells the champion's; of several each arm is held against the rest."""
        arms = len(self.definition.arms)
        return range(1, 2) if arms == 2 else range(arms)

    def tally(self, stages: Iterable[str], arms: Iterable[int]) -> None:
        self.matured.update(zip(stages, arms, strict=True))
        self._touch(*TALLY)

    def enter_cycle(self, arm: int, cycle: int) -> None:
        """The objective's cell of the present cycle becomes that of the last one."""
        if cycle <= self.cycles[arm]:
            return
        present: Key = ("cell", str(arm), self.definition.objective, CYCLE)
        if present in self._parts:
            last = *present[:3], LAST_CYCLE
            self._parts[last] = self._parts.pop(present)
            self._part(*present)
            self._touch(*last)
            self._touch(*present)
        self.cycles[arm] = cycle
        self._touch(*TALLY)

    def scorer_changed(self, metric: MetricDefinition) -> None:
        self._touch("scorer", metric.name)

    # How it is kept.

    def take_changes(self) -> dict[str, bytes]:
        """States changed since the last call, to be stored with the step."""
        changed, self._changed = self._changed, set()
        return {text_of(key): msgspec.msgpack.encode(self._state(key)) for key in sorted(changed)}

    @classmethod
    def restore(cls, definition: Definition, states: dict[str, bytes]) -> Evidence:
        evidence = cls(definition)
        for text, data in states.items():
            key, state = key_of(text), msgspec.msgpack.decode(data)
            if key == TALLY:
                evidence._load_tally(state)
            else:
                evidence._keep(key, restored(definition, key, state))
        return evidence

    def _part(self, *key: str) -> Any:
        if key not in self._parts:
            self._keep(key, made(self.definition, key))
        return self._parts[key]

    def _keep(self, key: Key, part: Any) -> None:
        self._parts[key] = part
        if key[0] == "cell" and "=" in key[3]:
            insort(self._segments.setdefault(key[:3], []), key[3])

    def _fold(self, units: Units, *key: str) -> None:
        if len(units):
            units.into(self._part(*key))
            self._touch(*key)

    def _count(self, kind: str, arms: NDArray[np.int64], odds: Floats, *name: str) -> None:
        for arm in self.counted_arms if len(arms) else ():
            pi = odds[:, arm]
            drawn = (pi > 0.0) & (pi < 1.0)
            if drawn.any():
                ratio: SampleRatio = self._part(kind, str(arm), *name)
                ratio.add(pi[drawn], arms[drawn] == arm)
                self._touch(kind, str(arm), *name)

    def _touch(self, *key: str) -> None:
        self._changed.add(key)
        self._intervals.pop(key, None)

    def _state(self, key: Key) -> Any:
        if key != TALLY:
            return self._parts[key].state()
        return {
            "matured": [[stage, arm, n] for (stage, arm), n in sorted(self.matured.items())],
            "missing": [[metric, arm, n] for (metric, arm), n in sorted(self.missing.items())],
            "first_at": self.first_at,
            "cycles": [[arm, n] for arm, n in sorted(self.cycles.items())],
        }

    def _load_tally(self, state: Any) -> None:
        self.matured.update({(stage, arm): n for stage, arm, n in state["matured"]})
        self.missing.update({(metric, arm): n for metric, arm, n in state["missing"]})
        self.first_at = state["first_at"]
        self.cycles.update(dict(state["cycles"]))
