"""Steps where several nodes share a store: each ships its own spools, one of them folds what all have shipped.

Shipping is a transaction of its own and needs no lease: a node writes rows that no other writes, and says with them up
to which time it has shipped everything. Folding is the leader's (`evidence.leader`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gateway.clock import Clock
from gateway.errors import LeaseLost
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import Definition
from gateway.evidence.engine import Shipped
from gateway.evidence.folded import Followed
from gateway.evidence.folder import Folder
from gateway.evidence.leader import Leader
from gateway.evidence.record import record
from gateway.evidence.ship import Shipper
from gateway.store.base import UnitKey
from gateway.store.cluster import SharedStore

REPORT = 0.2  # seconds between two words of a node that has nothing to ship
FOLLOW = 1.0  # seconds between two looks of a node that does not lead at what the leader has folded


class SharedEngine:
    """The engine of one of several nodes; the same to its owner as `engine.Engine`.

    `epoch` is that of the lease if this node holds it, else 0; its owner tells before each step.
    """

    def __init__(self, spool_directory: Path, store: SharedStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._shipper = Shipper(spool_directory, store, clock)
        self._through = 0
        self._report_at = self._follow_at = 0.0
        self._followed = Followed(store)
        self._leader: Leader | None = None
        self.epoch = 0
        self.ship_delay_us: int | None = None
        self.shipped = Shipped()
        self.damaged = ""

    @property
    def leading(self) -> bool:
        """Whether this node folds, and may write what follows."""
        return self._leader is not None

    @property
    def step_number(self) -> int:
        return self._known.step_number

    @property
    def watermark(self) -> int:
        return self._known.watermark

    @property
    def behind(self) -> bool:
        return self._shipper.behind

    @property
    def seen_through(self) -> int:
        """Of a node that does not lead: what it has shipped itself."""
        return self._leader.seen_through if self._leader else self._through

    @property
    def evidence(self) -> dict[str, Evidence]:
        return self._known.evidence

    def catch_up(self) -> None:
        if self._leader is None:
            self._followed.follow()

    def start(self, definition: Definition) -> None:
        """Begin to count an experiment; the leader's, inside a leading transaction."""
        if self._leader is None:
            raise LeaseLost(f"{definition.id} is begun by the node that leads")
        self._leader.folder.start(definition)

    def units(self, experiment: str) -> int:
        return self._known.units(experiment)

    def folded(self, experiment: str) -> int:
        return min(self.progress(experiment)[1:], default=0)

    def progress(self, experiment: str) -> tuple[int, ...]:
        return self._known.progress(experiment)

    @property
    def everything_read(self) -> bool:
        return self._shipper.everything_read

    @property
    def complete_through(self) -> int:
        """Of a node whose log is not whole nothing is known."""
        nodes = [0 if node.trouble else node.through for node in self._store.nodes()]
        streams = [cursor.through for cursor in self._store.streams().values() if not cursor.finished]
        return min([*nodes, *streams, self._shipper.complete_through])

    def forget(self, units: Iterable[UnitKey]) -> None:
        if self._leader is not None:
            self._leader.folder.forget(units)

    def write_down(self) -> None:
        if self._leader is not None:
            self._leader.to_be_written = True

    def step(self) -> int:
        """Ship what is here; fold, if this node leads. Returns the number of votes folded; raises StoreError, then
        discard me."""
        self._ship()
        if not self.epoch:
            self._leader = None
            self._follow()
            return 0
        if self._leader is None or self._leader.epoch != self.epoch:
            self._leader = Leader(self.epoch, self._store, self._clock)
        return self._leader.fold()

    @property
    def _known(self) -> Folder | Followed:
        return self._leader.folder if self._leader else self._followed

    def _ship(self) -> None:
        shipment = self._shipper.collect(self._through)
        now = self._clock.monotonic()
        self.ship_delay_us = None
        if shipment.idle and now < self._report_at:
            return  # what was read are heartbeats: they are read again
        with self._store.transaction():
            late_before = self._store.note_through(shipment.watermark)
            record(self._store, 0, shipment.facts, self.evidence, late_before)
            self._shipper.save(shipment.cursors)
        self._shipper.committed(shipment.cursors)
        self._through = shipment.watermark
        self._report_at = now + REPORT
        self.damaged = next(iter(shipment.quarantined), "")
        self.shipped.add(shipment)
        self.ship_delay_us = self._clock.wall_us() - shipment.oldest if shipment.oldest else None

    def _follow(self) -> None:
        now = self._clock.monotonic()
        if now >= self._follow_at:
            self._followed.follow()
            self._follow_at = now + FOLLOW
