"""The folding half of a step: what is in the store becomes votes, votes become evidence, in a written order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from gateway.clock import Clock
from gateway.events import Assignment
from gateway.evidence.cells import Evidence
from gateway.evidence.closing import fold_metric
from gateway.evidence.definition import Definition, encode
from gateway.evidence.folded import Folded
from gateway.evidence.join import Admission, Admitted
from gateway.evidence.record import note_repeated
from gateway.store.base import FoldStep, Store, UnitKey


class Arrived(NamedTuple):
    """What a step folds."""

    assignments: list[Assignment]  # new since the last step; complete up to the watermark, and more
    watermark: int
    positions: str  # JSON, for the row of the step
    idle: bool  # nothing but time has passed


class Step(NamedTuple):
    """What a step came to: believed once its transaction has committed."""

    number: int
    watermark: int
    votes: int  # folded, over all metrics


class Folder(Folded):
    """Owns everything that is folded. After a failed transaction it is ahead of the store: build another."""

    def __init__(self, store: Store, clock: Clock, admission: Admission) -> None:
        super().__init__(store)
        self._clock = clock
        self._admission = admission

    def start(self, definition: Definition) -> None:
        """Begin to count an experiment; inside a transaction, before its first plan is published."""
        self._store.add_experiment(definition.id, definition.endpoint, encode(definition), self._clock.wall_us())
        self.evidence[definition.id] = Evidence(definition)
        self._cursors[definition.id] = {}

    def units(self, experiment: str) -> int:
        return self._admission.units(self._store, experiment)

    def forget(self, units: Iterable[UnitKey]) -> None:
        """The store no longer knows these units."""
        self._admission.known.forget(units)

    def fold(self, arrived: Arrived) -> Step | None:
        """One step inside the caller's transaction, with its row; None if nothing has happened, and no row."""
        number = self.step_number + 1
        before = {id: self.units(id) for id in self.evidence}
        admitted = self._admission.admit(
            self._store, arrived.assignments, self.watermark, arrived.watermark, self.evidence
        )
        self._attribute(number, admitted)
        moved = self._fold(number, arrived.watermark)
        votes = sum(after - earlier for cursors in moved.values() for earlier, after in cursors.values())
        if arrived.idle and not (votes or admitted.marks or admitted.unparked):
            return None
        self._store.save_admitted(admitted.marks)
        cursors = {id: {metric: after for metric, (_, after) in of.items()} for id, of in moved.items()}
        for id, units in before.items():
            if self.units(id) != units:
                cursors.setdefault(id, {})[""] = self.units(id)
        text = msgspec.json.encode(cursors).decode()
        self._store.add_step(FoldStep(number, self._clock.wall_us(), arrived.watermark, arrived.positions, text))
        return Step(number, arrived.watermark, votes)

    def committed(self, step: Step) -> None:
        self.step_number, self.watermark = step.number, step.watermark

    def _attribute(self, step: int, admitted: Admitted) -> None:
        """Outcomes that were given by unit become outcomes of the requests that they belong to."""
        if admitted.attributed:
            repeated = self._store.add_outcomes(step, admitted.attributed, attributed=True)
            note_repeated(self._store, admitted.attributed, repeated)

    def _fold(self, step: int, watermark: int) -> dict[str, dict[str, tuple[int, int]]]:
        """Fold what is closed; by experiment and metric, from which vote to which."""
        moved: dict[str, dict[str, tuple[int, int]]] = {}
        for id, evidence in self.evidence.items():
            cursors = self._cursors[id]
            for metric in evidence.definition.metrics:
                before = cursors.get(metric.name, 0)
                if before == self.units(id):
                    continue
                after = fold_metric(self._store, evidence, metric, before, watermark)
                if after != before:
                    cursors[metric.name] = after
                    self._store.save_cursor(id, metric.name, after)
                    moved.setdefault(id, {})[metric.name] = before, after
            if changes := evidence.take_changes():
                self._store.save_evidence(id, step, changes)
        return moved
