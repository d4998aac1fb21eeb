"""One fold step: ship, admit, fold, all in one transaction, so that a kill at any moment loses and doubles nothing.

After a failed transaction the memory is ahead of the store; `step` then raises and the owner builds a new engine
from the store. Where nodes share a store, shipping and folding are transactions of their own (`evidence.shared`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gateway.clock import Clock
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import Definition
from gateway.evidence.folder import Arrived, Folder
from gateway.evidence.join import Admission
from gateway.evidence.record import record
from gateway.evidence.ship import Shipment, Shipper
from gateway.store.base import Store, UnitKey

log = logging.getLogger(__name__)

REMEDY = (
    "nothing behind that is shipped, and nobody is promoted; if it does not pass, restart the gateway, so that its"
    " workers begin new files, and move this one away"
)


@dataclass(slots=True)
class Shipped:
    """Running totals since the process started, for metrics."""

    facts: Counter[str] = field(default_factory=Counter)
    torn: int = 0
    quarantined: set[str] = field(default_factory=set)

    def add(self, shipment: Shipment) -> None:
        self.facts.update(shipment.facts.counts)
        self.torn += shipment.torn
        for why in shipment.quarantined:
            if why not in self.quarantined:
                log.error("%s: %s", why, REMEDY)
        self.quarantined.update(shipment.quarantined)


class AnyEngine(Protocol):
    """What turns spools into evidence, as its owner sees it."""

    epoch: int  # of the lease, 0 while another node holds it; its owner tells before each step
    shipped: Shipped
    ship_delay_us: int | None  # age of the oldest fact that the last step brought to the store; None if it brought none
    damaged: str  # why a spool could not be read in the last step, and the log is not whole; "" if all could

    @property
    def leading(self) -> bool:
        """Whether this node folds, and may write what follows."""

    @property
    def step_number(self) -> int: ...
    @property
    def watermark(self) -> int:
        """Up to which time facts were known at the last step that was written down."""

    @property
    def behind(self) -> bool:
        """Whether there is more to ship already."""

    @property
    def seen_through(self) -> int:
        """Up to which time facts are known."""

    @property
    def complete_through(self) -> int:
        """The time before which no spool that is known can bring anything more, not even late."""

    @property
    def evidence(self) -> dict[str, Evidence]: ...
    @property
    def everything_read(self) -> bool:
        """No living spool is left, and nothing of the dead ones."""

    def catch_up(self) -> None:
        """Another node has moved a release: know what it has folded and begun by now."""

    def start(self, definition: Definition) -> None:
        """Begin to count an experiment; call inside a transaction, before its first plan is published."""

    def units(self, experiment: str) -> int:
        """Votes admitted so far."""

    def folded(self, experiment: str) -> int:
        """Votes that every metric has folded."""

    def progress(self, experiment: str) -> tuple[int, ...]:
        """Votes admitted, and votes folded by each metric: where these stand still, the evidence does."""

    def forget(self, units: Iterable[UnitKey]) -> None:
        """The store no longer knows these units."""

    def write_down(self) -> None:
        """Let the next step have its row though nothing but time has passed: `watermark` is to come up to
        `seen_through`, of which a restart knows nothing."""

    def step(self) -> int:
        """Ship and fold what is due. Returns the number of votes folded; raises StoreError, then discard me."""


class Engine:
    """Turns spools into evidence. Owned by the control process; not thread-safe."""

    epoch = 1  # of a lease that nobody else asks for
    leading = True

    def __init__(self, spool_directory: Path, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.ship_delay_us: int | None = None
        self._folder = Folder(store, clock, Admission.restore(store))
        self._shipper = Shipper(spool_directory, store, clock)
        self._seen_through = self.watermark
        self._to_be_written = False
        self.shipped = Shipped()
        self.damaged = ""

    @property
    def step_number(self) -> int:
        return self._folder.step_number

    @property
    def watermark(self) -> int:
        return self._folder.watermark

    @property
    def behind(self) -> bool:
        return self._shipper.behind

    @property
    def seen_through(self) -> int:
        return self._seen_through

    @property
    def evidence(self) -> dict[str, Evidence]:
        return self._folder.evidence

    def catch_up(self) -> None:
        pass  # there is no other

    def start(self, definition: Definition) -> None:
        self._folder.start(definition)

    def units(self, experiment: str) -> int:
        return self._folder.units(experiment)

    def folded(self, experiment: str) -> int:
        return min(self.progress(experiment)[1:], default=0)

    def progress(self, experiment: str) -> tuple[int, ...]:
        return self._folder.progress(experiment)

    @property
    def everything_read(self) -> bool:
        return self._shipper.everything_read

    @property
    def complete_through(self) -> int:
        return self._shipper.complete_through

    def forget(self, units: Iterable[UnitKey]) -> None:
        self._folder.forget(units)

    def write_down(self) -> None:
        self._to_be_written = True

    def step(self) -> int:
        shipment = self._shipper.collect(self.watermark)
        idle = shipment.idle and not self._to_be_written
        arrived = Arrived(shipment.facts.assignments, shipment.watermark, shipment.positions, idle)
        step = None
        try:
            with self._store.transaction():
                record(self._store, self.step_number + 1, shipment.facts, self.evidence, self.watermark)
                step = self._folder.fold(arrived)
                if step is None:
                    raise NothingHappened
                self._shipper.save(shipment.cursors)
        except NothingHappened:
            pass  # time passed and no more: no row; the watermark of record stays that of the last written step
        else:
            self._folder.committed(step)
            self._to_be_written = False
        self._shipper.committed(shipment.cursors, saved=step is not None)
        self._seen_through = shipment.watermark
        self.damaged = next(iter(shipment.quarantined), "")
        self.shipped.add(shipment)
        self.ship_delay_us = self._clock.wall_us() - shipment.oldest if shipment.oldest else None
        return step.votes if step else 0


class NothingHappened(Exception):
    """Rolls an empty step back."""
