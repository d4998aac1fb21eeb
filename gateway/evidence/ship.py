"""Spool to store: collect what the workers appended, and write it with the new positions in one transaction.

The watermark is the time up to which every living spool is complete: nothing older can still come, except from
a spool that was declared dead, whose later facts are late.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gateway.clock import Clock
from gateway.events import (
    SEQUENCE_BITS,
    Assignment,
    Completion,
    Fact,
    Heartbeat,
    Outcome,
    Rejection,
    spool_of,
)
from gateway.spool import reader
from gateway.spool.reader import StreamId
from gateway.store.base import Store, StreamCursor

SKEW_US = 5_000_000  # how far a worker's clock may be ahead of ours before its times are capped


@dataclass(slots=True)
class Shipment:
    """What one look at all spools gave, not yet written."""

    cursors: dict[StreamId, StreamCursor] = field(default_factory=dict)  # of streams that moved
    facts: list[Fact] = field(default_factory=list)
    watermark: int = 0
    torn: int = 0
    quarantined: list[str] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """Nothing but heartbeats came."""
        return all(isinstance(fact, Heartbeat) for fact in self.facts)

    @property
    def positions(self) -> str:
        moved = {f"{s.spool}.{s.stream}": msgspec.to_builtins(c.position) for s, c in self.cursors.items()}
        return msgspec.json.encode(moved).decode()


class Shipper:
    """Follows the spools of one node from the positions in the store."""

    def __init__(self, directory: Path, store: Store, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self.cursors = store.streams()

    def collect(self, watermark: int) -> Shipment:
        """Read what is new in every stream. `watermark` is the last one: it never falls."""
        shipment = Shipment()
        # A spool that appears after this moment holds only later facts, so the watermark may not pass it.
        through = [self._clock.wall_us()]
        latest = through[0] + SKEW_US
        for stream in reader.discover(self._directory):
            cursor = self.cursors.get(stream, StreamCursor())
            if cursor.finished:
                continue
            batch = reader.read(self._directory, stream, cursor.position)
            shipment.torn += batch.torn
            if batch.corrupt:
                shipment.quarantined.append(batch.corrupt)
            newest = min(batch.facts[-1].at, latest) if batch.facts else cursor.through
            moved = StreamCursor(batch.position, newest, cursor.admitted, batch.finished)
            if moved != cursor:
                shipment.cursors[stream] = moved
                shipment.facts += batch.facts
            if not batch.finished and not batch.corrupt:
                through.append(newest)
        shipment.watermark = max(watermark, min(through))
        return shipment

    @property
    def everything_read(self) -> bool:
        """No living spool is left, and nothing of the dead ones is unread."""
        return all(self.cursors.get(stream, StreamCursor()).finished for stream in reader.discover(self._directory))

    def committed(self, cursors: dict[StreamId, StreamCursor]) -> None:
        """The store has the shipment: go on from there."""
        self.cursors |= cursors


def write(store: Store, step: int, facts: list[Fact]) -> list[Assignment]:
    """Write facts inside the caller's transaction; returns the assignments among them."""
    assignments = [fact for fact in facts if isinstance(fact, Assignment)]
    store.add_assignments(step, assignments)
    store.add_completions(step, (fact for fact in facts if isinstance(fact, Completion)))
    ordinal = 0
    for fact in facts:
        if isinstance(fact, Outcome):
            ordinal += 1
            kept = store.add_outcome(step, ordinal, fact)
            if kept is not None:
                _count(store, fact, "duplicate" if kept == fact.value else "conflict")
        elif isinstance(fact, Rejection):
            _count(store, fact, "rejected")
    return assignments


def _count(store: Store, fact: Outcome | Rejection, name: str) -> None:
    # An outcome can overtake its assignment (another worker, another spool): then it is counted without variant.
    store.count(fact.experiment, store.variant_of(fact.decision) or "", name)


def end_of_spool(decision: int) -> int:
    """The first id beyond those of the decision's spool."""
    return (spool_of(decision) + 1) << SEQUENCE_BITS
