"""Steps where several nodes share a store: each ships its own spools, one of them folds what all have shipped.

Shipping is a transaction of its own and needs no lease: a node writes rows that no other writes, and says with them up
to which time it has shipped everything. Folding is the leader's: its watermark is the least of these times over the
nodes that it waits for. A node that says nothing for `MAX_LAG` is given up, in a row: what it has from before the
watermark is late when it comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.clock import Clock
from gateway.errors import LeaseLost
from gateway.events import SEQUENCE_BITS, Assignment, decision_id, spool_of
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import Definition
from gateway.evidence.engine import NothingHappened, Shipped
from gateway.evidence.folded import Followed
from gateway.evidence.folder import Arrived, Folder, Step
from gateway.evidence.join import Admission
from gateway.evidence.record import record
from gateway.evidence.ship import MAX_LAG_US, Shipper
from gateway.evidence.splits import Splits
from gateway.spool.reader import StreamId
from gateway.store.base import StreamCursor, UnitKey
from gateway.store.cluster import Node, SharedStore

REPORT = 0.2  # seconds between two words of a node that has nothing to ship
MOST, LEAST = 20_000, 500  # assignments that one step admits, of all spools; of each at least
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
        self._leader: _Leader | None = None
        self.epoch = 0
        self.ship_delay_us: int | None = None
        self.shipped = Shipped()
        self.damaged = False

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
            self._leader = _Leader(self.epoch, self._store, self._clock)
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
        self.damaged = bool(shipment.quarantined)
        self.shipped.add(shipment)
        self.ship_delay_us = self._clock.wall_us() - shipment.oldest if shipment.oldest else None

    def _follow(self) -> None:
        now = self._clock.monotonic()
        if now >= self._follow_at:
            self._followed.follow()
            self._follow_at = now + FOLLOW


class _Heard(NamedTuple):
    through: int
    at: float  # monotonic seconds at which that was new


class _Leader:
    """Folds what all nodes have shipped, under one epoch of the lease."""

    def __init__(self, epoch: int, store: SharedStore, clock: Clock) -> None:
        self.epoch = epoch
        # Nothing is kept waiting in memory: what lies beyond the watermark is read when the watermark has passed it.
        self.folder = Folder(store, clock, Admission(Splits(store)))
        self.seen_through = self.folder.watermark
        self.to_be_written = False
        self._store = store
        self._clock = clock
        self._heard: dict[int, _Heard] = {}
        self._cursors = store.streams()  # as of the last step that was written down
        self._admitted = store.admitted()
        self._asked: dict[StreamId, tuple[StreamCursor, int]] = {}  # where each was, and up to which time it was read

    def fold(self) -> int:
        """One step. Raises StoreError, LeaseLost among them; then discard me."""
        step: Step | None = None
        try:
            with self._store.transaction(leading=True):
                cursors = self._store.streams()
                fresh, watermark = self._arrived(cursors, self._watermark())
                step = self.folder.fold(Arrived(fresh, watermark, self._moved(cursors), not self.to_be_written))
                if step is None:
                    raise NothingHappened
        except NothingHappened:
            pass
        else:
            assert step is not None
            self.folder.committed(step)
            self.to_be_written = False
            self._cursors = cursors
            for fact in fresh:
                self._admitted[spool_of(fact.decision)] = fact.decision
        self.seen_through = max(self.seen_through, watermark)
        return step.votes if step else 0

    def _watermark(self) -> int:
        """The time up to which everything is here that is waited for; who is not waited for is told so.

        A node was silent for as long as this process has heard nothing new of it: the store may have been away for
        everybody.
        """
        now = self._clock.monotonic()
        silent: list[Node] = []
        waited: list[int] = []
        for node in self._store.nodes():
            heard = self._heard.get(node.number)
            if heard is None or heard.through != node.through:
                heard = self._heard[node.number] = _Heard(node.through, now)
            if node.given_up > node.through:
                continue  # it has said nothing since, and was told that nobody waits
            if (now - heard.at) * 1e6 > MAX_LAG_US:
                silent.append(node)
            else:
                waited.append(node.through)
        watermark = max(self.folder.watermark, min(waited, default=0))
        for node in silent:
            self._store.give_up(node.number, watermark)
        return watermark

    def _arrived(self, cursors: dict[StreamId, StreamCursor], watermark: int) -> tuple[list[Assignment], int]:
        """The assignments before the watermark that were not admitted yet; of many the oldest, and then the watermark
        is lower: the order of the coins is that over all spools."""
        found: list[Assignment] = []
        asked = {stream: cursor for stream, cursor in cursors.items() if self._may_have_more(stream, cursor)}
        most = max(LEAST, MOST // max(1, len(asked)))
        for stream in sorted(asked, key=lambda stream: stream.spool):
            after = self._admitted.get(stream.spool) or decision_id(stream.spool, 0)
            end = (stream.spool + 1) << SEQUENCE_BITS
            more, cut = self._some(after, end, watermark, most)
            if cut:
                watermark = max(self.folder.watermark, more[-1].at)
            found += more
        self._asked |= {stream: (cursor, watermark) for stream, cursor in asked.items()}
        return [fact for fact in found if fact.at < watermark], watermark

    def _some(self, after: int, end: int, before: int, most: int) -> tuple[list[Assignment], bool]:
        """The oldest so many of a spool, and whether there may be others; more where these have all one time, as after
        a clock was set back: a watermark cannot come between them."""
        while True:
            found = self._store.assignments_after(after, end, before=before, limit=most)
            cut = len(found) == most
            if not cut or found[-1].at > max(self.folder.watermark, found[0].at):
                return found, cut
            most *= 2

    def _may_have_more(self, stream: StreamId, cursor: StreamCursor) -> bool:
        """Whether it has moved, or had facts beyond the watermark: of the many that have ended nobody asks again."""
        if stream.stream != "requests":
            return False
        before, read_to = self._asked.get(stream, (None, 0))
        return cursor != before or cursor.through >= read_to

    def _moved(self, cursors: dict[StreamId, StreamCursor]) -> str:
        """The positions, as JSON, of streams that have moved since the last step that was written down."""
        moved = {
            f"{stream.spool}.{stream.stream}": msgspec.to_builtins(cursor.position)
            for stream, cursor in cursors.items()
            if cursor != self._cursors.get(stream)
        }
        return msgspec.json.encode(moved).decode()
