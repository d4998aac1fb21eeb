"""The node that leads folds what all nodes have shipped.

Its watermark is the least of the times up to which they have shipped everything, over the nodes that it waits for. One
that says nothing for `MAX_LAG` is given up, in a row: what it has from before the watermark is late when it comes.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from gateway.clock import Clock
from gateway.events import SEQUENCE_BITS, Assignment, decision_id, spool_of
from gateway.evidence.engine import NothingHappened
from gateway.evidence.folder import Arrived, Folder, Step
from gateway.evidence.join import Admission
from gateway.evidence.ship import MAX_LAG_US
from gateway.evidence.splits import Splits
from gateway.spool.reader import StreamId
from gateway.store.base import StreamCursor
from gateway.store.cluster import Node, SharedStore

MOST, LEAST = 20_000, 500  # assignments that one step admits, of all spools; of each at least


class _Heard(NamedTuple):
    through: int
    at: float  # monotonic seconds at which that was new


class Leader:
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
