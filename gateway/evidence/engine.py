"""One fold step: ship, admit, fold, all in one transaction, so that a kill at any moment loses and doubles nothing.

After a failed transaction the memory is ahead of the store; `step` then raises and the owner builds a new engine
from the store.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gateway.clock import Clock
from gateway.evidence.cells import Evidence
from gateway.evidence.closing import fold_metric
from gateway.evidence.definition import Definition, decode, encode
from gateway.evidence.join import Admission
from gateway.evidence.record import record
from gateway.evidence.ship import Shipment, Shipper
from gateway.spool.reader import StreamId
from gateway.store.base import FoldStep, Store, StreamCursor


@dataclass(slots=True)
class Shipped:
    """Running totals since the process started, for metrics."""

    facts: Counter[str] = field(default_factory=Counter)
    torn: int = 0
    quarantined: set[str] = field(default_factory=set)

    def add(self, shipment: Shipment) -> None:
        self.facts.update(shipment.facts.counts)
        self.torn += shipment.torn
        self.quarantined.update(shipment.quarantined)


class Engine:
    """Turns spools into evidence. Owned by the control process; not thread-safe."""

    def __init__(self, spool_directory: Path, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._shipper = Shipper(spool_directory, store, clock)
        last = store.last_step()
        self.step_number = last.step if last else 0
        self.watermark = last.watermark if last else 0
        self.seen_through = self.watermark
        cursors = store.streams()
        self._admission = Admission.restore(store, cursors)
        self.evidence: dict[str, Evidence] = {}
        self._metric_cursors: dict[str, dict[str, int]] = {}
        for id, (_, definition) in store.experiments().items():
            self.evidence[id] = Evidence.restore(decode(definition), store.evidence(id))
            self._metric_cursors[id] = store.cursors(id)
        self.shipped = Shipped()
        self.damaged = False  # whether a spool could not be read in the last step: the log is not whole

    def start(self, definition: Definition) -> None:
        """Begin to count an experiment; call inside a transaction, before its first plan is published."""
        self._store.add_experiment(definition.id, definition.endpoint, encode(definition), self._clock.wall_us())
        self.evidence[definition.id] = Evidence(definition)
        self._metric_cursors[definition.id] = {}

    def units(self, experiment: str) -> int:
        """Votes admitted so far."""
        return self._admission.units(self._store, experiment)

    def folded(self, experiment: str) -> int:
        """Votes that every metric has folded."""
        return min(self.progress(experiment)[1:], default=0)

    def progress(self, experiment: str) -> tuple[int, ...]:
        """Votes admitted, and votes folded by each metric: where these stand still, the evidence does."""
        cursors = self._metric_cursors[experiment]
        metrics = self.evidence[experiment].definition.metrics
        return self.units(experiment), *(cursors.get(metric.name, 0) for metric in metrics)

    @property
    def everything_read(self) -> bool:
        """No living spool is left, and nothing of the dead ones."""
        return self._shipper.everything_read

    def step(self) -> int:
        """Ship and fold what is due. Returns the number of votes folded; raises StoreError, then discard me."""
        shipment = self._shipper.collect(self.watermark)
        number = self.step_number + 1
        folded = 0
        try:
            with self._store.transaction():
                record(self._store, number, shipment.facts, self.evidence)
                marks = self._admission.admit(
                    self._store, shipment.facts.assignments, self.watermark, shipment.watermark, self.evidence
                )
                folded = self._fold(number, shipment.watermark)
                if shipment.idle and not folded and not marks:
                    raise _NothingHappened
                cursors = self._marked(shipment.cursors, marks)
                for stream, cursor in cursors.items():
                    self._store.save_stream(stream, cursor)
                self._store.add_step(FoldStep(number, self._clock.wall_us(), shipment.watermark, shipment.positions))
        except _NothingHappened:
            # Time passed and no more: no row. The watermark of record stays that of the last written step.
            cursors = shipment.cursors
        else:
            self.step_number, self.watermark = number, shipment.watermark
        self._shipper.committed(cursors)
        self.seen_through = shipment.watermark
        self.damaged = bool(shipment.quarantined)
        self.shipped.add(shipment)
        return folded

    def _marked(self, moved: dict[StreamId, StreamCursor], marks: dict[int, int]) -> dict[StreamId, StreamCursor]:
        """The cursors to store: streams that moved, and those of which assignments were admitted."""
        cursors = dict(moved)
        for spool, decision in marks.items():
            stream = StreamId(spool, "requests")
            current = cursors.get(stream) or self._shipper.cursors[stream]
            cursors[stream] = msgspec.structs.replace(current, admitted=decision)
        return cursors

    def _fold(self, step: int, watermark: int) -> int:
        folded = 0
        for id, evidence in self.evidence.items():
            cursors = self._metric_cursors[id]
            for metric in evidence.definition.metrics:
                before = cursors.get(metric.name, 0)
                if before == self.units(id):
                    continue
                after = fold_metric(self._store, evidence, metric, before, watermark)
                if after != before:
                    cursors[metric.name] = after
                    self._store.save_cursor(id, metric.name, after)
                    folded += after - before
            if changes := evidence.take_changes():
                self._store.save_evidence(id, step, changes)
        return folded


class _NothingHappened(Exception):
    """Rolls an empty step back."""
