"""Spool to store, first half: collect what the workers appended, and know up to which time it is complete.

The watermark is the time up to which every living spool is complete: nothing older can still come, except from
a spool that was declared dead, whose later facts are late. Dead is who lost the lock on the file (the process is
gone, the rest is read) and who was silent for `MAX_LAG` (it hangs, or its disk is full).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gateway.clock import Clock
from gateway.errors import SpoolError
from gateway.events import Assignment, Completion, Fact, Heartbeat, Outcome, Rejection, Shadow, UnitOutcome
from gateway.spool import reader
from gateway.spool.format import Stream
from gateway.spool.reader import StreamId
from gateway.store.base import FOREVER, Store, StreamCursor

SKEW_US = 5_000_000  # how far a worker's clock may be ahead of ours before its times are capped
BUDGET = 2 << 20  # bytes, about, that one step ships: who catches up must still be heard, and stop what fails
LEAST = 64 << 10  # bytes that are read of a stream, if any
FACT = 120  # bytes of a fact in a spool, about
MAX_LAG_US = 60_000_000  # a stream that is silent for longer no longer holds up the others


class Facts:
    """Facts by kind; of each kind streams come one after the other, each in the order of its own times."""

    def __init__(self) -> None:
        self.assignments: list[Assignment] = []
        self.completions: list[Completion] = []
        self.shadows: list[Shadow] = []
        self.outcomes: list[Outcome] = []  # posted by clients
        self.readings: list[Outcome] = []  # read from answers by the workers, who leave them among the requests
        self.unit_outcomes: list[UnitOutcome] = []
        self.rejections: list[Rejection] = []
        self.heartbeats: list[Heartbeat] = []
        self._by_kind: dict[type[Fact], list[Any]] = {
            Assignment: self.assignments,
            Completion: self.completions,
            Shadow: self.shadows,
            Outcome: self.outcomes,
            UnitOutcome: self.unit_outcomes,
            Rejection: self.rejections,
            Heartbeat: self.heartbeats,
        }
        self._append: dict[type[Fact], Callable[[Any], None]] = {
            kind: facts.append for kind, facts in self._by_kind.items()
        }
        self._append_request = self._append | {Outcome: self.readings.append}

    def extend(self, facts: Iterable[Fact], stream: Stream) -> None:
        append = self._append_request if stream == "requests" else self._append
        for fact in facts:
            append[type(fact)](fact)

    @property
    def posted(self) -> list[Outcome | UnitOutcome]:
        return [*self.outcomes, *self.unit_outcomes]

    @property
    def posted_or_read(self) -> list[Outcome | UnitOutcome]:
        return [*self.posted, *self.readings]

    def late(self, before: int) -> list[Fact]:
        """Take out what is older than facts may be that are still counted; assignments stay, and are late by their
        own rule: their coins must be known."""
        late: list[Fact] = []
        for kind, facts in self._by_kind.items():
            if kind not in (Assignment, Heartbeat) and any(fact.at < before for fact in facts):
                late += [fact for fact in facts if fact.at < before]
                facts[:] = [fact for fact in facts if fact.at >= before]
        if any(fact.at < before for fact in self.readings):
            late += [fact for fact in self.readings if fact.at < before]
            self.readings[:] = [fact for fact in self.readings if fact.at >= before]
        return late

    @property
    def counts(self) -> dict[str, int]:
        """How many there are, by the kind's name; kinds of which there are none are left out."""
        counts = {kind.__name__.lower(): len(facts) for kind, facts in self._by_kind.items() if facts}
        if self.readings:
            counts["outcome"] = len(self.outcomes) + len(self.readings)
        return counts


@dataclass(slots=True)
class Shipment:
    """What one look at all spools gave, not yet written."""

    cursors: dict[StreamId, StreamCursor] = field(default_factory=dict)  # of streams that moved
    facts: Facts = field(default_factory=Facts)
    watermark: int = 0
    oldest: int = 0  # time of the oldest fact, 0 without any but heartbeats
    ended: bool = False  # a segment was read to its end: the store must know before the file may go
    torn: int = 0
    quarantined: list[str] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """Nothing but heartbeats came, and no file came to its end."""
        return not self.ended and self.facts.counts.keys() <= {"heartbeat"}

    def note_oldest(self, facts: list[Fact]) -> None:
        """Times in a stream ascend."""
        first = next((fact.at for fact in facts if type(fact) is not Heartbeat), 0)
        if first:
            self.oldest = min(self.oldest or first, first)

    @property
    def positions(self) -> str:
        moved = {f"{s.spool}.{s.stream}": msgspec.to_builtins(c.position) for s, c in self.cursors.items()}
        return msgspec.json.encode(moved).decode()


class Shipper:
    """Follows the spools of one node from the positions in the store."""

    def __init__(self, directory: Path, store: Store, clock: Clock) -> None:
        self._directory = directory
        self._store = store
        self._clock = clock
        self._heard: dict[StreamId, int] = {}  # when this process last had something new of a stream
        self._quarantined: set[StreamId] = set()
        self._left = BUDGET
        self.behind = False  # whether the last step left something for the next
        self.cursors = store.streams()
        self._stored = dict(self.cursors)

    def collect(self, watermark: int) -> Shipment:
        """Read what is new in every stream. `watermark` is the last one: it never falls."""
        shipment = Shipment()
        # A spool that appears after this moment holds only later facts, so the watermark may not pass it. Where the
        # clock was set back, the times of streams stand still until it has come as far again, and so does this one.
        now = max(self._clock.wall_us(), watermark)
        through = [now]
        self._left = BUDGET
        for stream, cursor in self._unread():
            if self._left > 0:
                through += self._read(shipment, stream, cursor, now)
            else:
                through.append(cursor.through)
        self.behind = self._left <= 0
        shipment.watermark = max(watermark, min(through))
        return shipment

    def _unread(self) -> list[tuple[StreamId, StreamCursor]]:
        """Streams that may have more, those first that hold up the others."""
        known = ((stream, self.cursors.get(stream, StreamCursor())) for stream in reader.discover(self._directory))
        return sorted(((s, c) for s, c in known if not c.finished), key=lambda one: one[1].through)

    @property
    def everything_read(self) -> bool:
        """No living spool is left, and nothing of the dead ones is unread."""
        return all(
            self.cursors.get(stream, StreamCursor()).finished or stream in self._quarantined
            for stream in reader.discover(self._directory)
        )

    @property
    def complete_through(self) -> int:
        """The time before which no spool of this node can bring anything more, however long it is silent."""
        return min((cursor.through for _, cursor in self._unread()), default=FOREVER)

    def save(self, cursors: dict[StreamId, StreamCursor]) -> None:
        """Write the positions beside the facts; raises StoreError if the store has others than this process knows."""
        for stream, cursor in cursors.items():
            self._store.save_stream(stream, self._stored.get(stream), cursor)

    def committed(self, cursors: dict[StreamId, StreamCursor], *, saved: bool = True) -> None:
        """The store has the shipment, or there was nothing in it to be kept: go on from there."""
        self.cursors |= cursors
        if saved:
            self._stored |= cursors

    def _read(self, shipment: Shipment, stream: StreamId, cursor: StreamCursor, now: int) -> Iterable[int]:
        """Add what is new in one stream; returns the time up to which it is complete, if it counts."""
        try:
            batch = self._batch(stream, cursor)
        except SpoolError as error:
            # It may pass (too many open files), so until then nothing is complete beyond this stream.
            shipment.quarantined.append(str(error))
            heard = self._heard.setdefault(stream, now)
            return [cursor.through] if now - heard <= MAX_LAG_US else []
        if batch.corrupt:
            self._quarantined.add(stream)
            shipment.quarantined.append(batch.corrupt)
        shipment.torn += batch.torn
        facts = _capped(batch.facts, now + SKEW_US)
        newest = facts[-1].at if facts else cursor.through
        moved = StreamCursor(batch.position, newest, batch.finished, batch.incarnation or cursor.incarnation)
        if moved != cursor:
            shipment.cursors[stream] = moved
            shipment.ended |= batch.finished or batch.position.segment != cursor.position.segment
            shipment.facts.extend(facts, stream.stream)
            shipment.note_oldest(facts)
        if facts or stream not in self._heard:
            self._heard[stream] = now
        if batch.finished or batch.corrupt or now - self._heard[stream] > MAX_LAG_US:
            return []
        return [newest]

    def _batch(self, stream: StreamId, cursor: StreamCursor) -> reader.Batch:
        """What is behind the cursor; of a stream that this process meets for the first time only if it is the one that
        the store knows."""
        if stream not in self._heard and cursor.incarnation:
            why = reader.recognise(self._directory, stream, cursor.position, cursor.incarnation)
            if why:
                return reader.Batch(cursor.position, corrupt=why)
        batch = reader.read(self._directory, stream, cursor.position, cursor.incarnation, max(self._left, LEAST))
        self._left -= len(batch.facts) * FACT
        if batch.position.segment != cursor.position.segment:
            # The end of a segment says nothing about how far the stream has come.
            following = reader.read(self._directory, stream, batch.position, batch.incarnation, max(self._left, LEAST))
            self._left -= len(following.facts) * FACT
            if not following.corrupt:
                following.facts[:0] = batch.facts
                following.torn += batch.torn
                return following
        return batch


def _capped(facts: list[Fact], latest: int) -> list[Fact]:
    """Facts with no time beyond `latest` (rule R4). Times in a stream ascend, so mostly one look is enough."""
    if not facts or facts[-1].at <= latest:
        return facts
    return [msgspec.structs.replace(fact, at=latest) if fact.at > latest else fact for fact in facts]
