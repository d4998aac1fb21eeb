"""The folded evidence of one experiment: its cells, sample ratios and tallies, and how they are kept.

A cell is a `ScoreCell` of one metric, overall or in one segment. Beside the objective's cell stands its twin in
which missing outcomes take the worst value (rule R14).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.evidence.definition import HARM, PROMOTE, Definition, MetricDefinition
from gateway.stats import SampleRatio, ScoreCell, harm

OVERALL = ""
WORST = "worst"
ASSIGNED = "assigned"  # the sample ratio at the coin; the others are per outcome metric


class Evidence:
    """Everything folded so far for one experiment. Changed in place by the fold, inside one step."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.cells: dict[tuple[str, str], ScoreCell] = {}
        self.ratios: dict[str, SampleRatio] = {}
        self.matured: Counter[tuple[str, int]] = Counter()  # (stage, arm) of the objective's folded units
        self.missing: Counter[tuple[str, int]] = Counter()  # (metric, arm)
        self._changed: set[str] = set()

    def fold_ratio(self, name: str, pi: NDArray[np.float64], z: NDArray[np.bool_]) -> None:
        self.ratios.setdefault(name, SampleRatio()).add(pi, z)
        self._changed.add(f"ratio/{name}")

    def fold(
        self,
        metric: MetricDefinition,
        segment: str,
        z: NDArray[np.bool_],
        pi: NDArray[np.float64],
        g: NDArray[np.float64],
    ) -> None:
        """Fold units of one metric, overall (`segment` "") or in one segment ("origin=EWR")."""
        self.cell(metric, segment).fold(z, pi, g)
        self._changed.add(f"cell/{metric.name}/{segment}")

    def tally(self, stages: Iterable[str], arms: Iterable[int]) -> None:
        self.matured.update(zip(stages, arms, strict=True))
        self._changed.add("tally")

    def count_missing(self, metric: str, champion: int, challenger: int) -> None:
        self.missing[metric, 0] += champion
        self.missing[metric, 1] += challenger
        self._changed.add("tally")

    def cell(self, metric: MetricDefinition, segment: str = OVERALL) -> ScoreCell:
        key = metric.name, segment
        if key not in self.cells:
            self.cells[key] = ScoreCell(self._bets(metric, segment))
        return self.cells[key]

    def segments_of(self, metric: MetricDefinition) -> list[str]:
        return sorted(s for name, s in self.cells if name == metric.name and s not in (OVERALL, WORST))

    def take_changes(self) -> dict[str, bytes]:
        """States changed since the last call, to be stored with the step."""
        changed, self._changed = self._changed, set()
        return {key: msgspec.msgpack.encode(self._state(key)) for key in sorted(changed)}

    @classmethod
    def restore(cls, definition: Definition, states: dict[str, bytes]) -> Evidence:
        evidence = cls(definition)
        for key, data in states.items():
            evidence._load(key, msgspec.msgpack.decode(data))
        return evidence

    def _bets(self, metric: MetricDefinition, segment: str) -> dict[str, Any]:
        bets = self.definition.bets(metric)
        if segment == OVERALL:
            return bets
        return {PROMOTE: bets[PROMOTE]} if segment == WORST else {HARM: harm()}

    def _state(self, key: str) -> Any:
        kind, _, rest = key.partition("/")
        if kind == "ratio":
            return self.ratios[rest].state()
        if kind == "cell":
            metric, _, segment = rest.partition("/")
            return self.cells[metric, segment].state()
        return {
            "matured": [[stage, arm, n] for (stage, arm), n in sorted(self.matured.items())],
            "missing": [[metric, arm, n] for (metric, arm), n in sorted(self.missing.items())],
        }

    def _load(self, key: str, state: Any) -> None:
        kind, _, rest = key.partition("/")
        if kind == "ratio":
            self.ratios[rest] = SampleRatio.restore(state)
        elif kind == "cell":
            name, _, segment = rest.partition("/")
            bets = self._bets(self.definition.metric(name), segment)
            self.cells[name, segment] = ScoreCell.restore(bets, state)
        else:
            self.matured.update({(stage, arm): n for stage, arm, n in state["matured"]})
            self.missing.update({(metric, arm): n for metric, arm, n in state["missing"]})
