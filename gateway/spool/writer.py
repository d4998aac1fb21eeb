"""Append facts to one stream of a spool: one `write` per call, nothing buffered in the process.

What was appended survives `kill -9` of the worker (durability level `process`): the bytes are the kernel's. `sync`
takes them to the disk. A short or failed write is cut off again, so the file never has a bad middle; the caller learns
that the fact was not kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

from gateway import events
from gateway.clock import Clock
from gateway.errors import SpoolError
from gateway.files import create_locked
from gateway.spool.format import FRAME, LONGEST, Header, Stream, encode_header, file_name, whole_records
from gateway.spool.room import Room
from gateway.spool.unsynced import Unsynced

SEGMENT_BYTES = 64 << 20
SEGMENT_SECONDS = 3600.0  # after which a segment ends, so that it can be shipped to its end, and go
_CLOSED = -1


class SpoolWriter:
    """One stream of one incarnation. The file is held under `flock`: unlocked means its writer is dead."""

    def __init__(
        self,
        directory: Path,
        number: int,
        stream: Stream,
        incarnation: bytes,
        clock: Clock,
        segment_bytes: int = SEGMENT_BYTES,
        room: Room | None = None,
    ) -> None:
        """`room` is what this writer shares with others of its process; by default there is no bound."""
        self.number = number
        self.stream = stream
        self._directory = directory
        self._incarnation = incarnation
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._room = room or Room()
        self._segment = 0
        self._last_at = 0
        self._given = 0
        self._spoilt = False  # nothing may be appended here: a torn tail that could not be cut off, or a failed sync
        self._awaited = False  # somebody waits for bytes of this segment to reach the disk
        self._ended: list[int] = []  # descriptors of full segments of which that is still true
        self._listed = _CLOSED  # the segment up to which the folder's entries are on the disk
        self._opened_at = clock.monotonic()
        self._descriptor, self._size = self._open(0)

    def now(self) -> int:
        """The wall clock, never going back: times in one stream do not decrease."""
        at = self._clock.wall_us()
        if at > self._last_at:
            self._last_at = at
        return self._last_at

    def moments(self, number: int) -> int:
        """The first of so many microseconds in a row that are given to nobody else who asks for moments."""
        first = max(self.now(), self._given + 1)
        self._given = self._last_at = first + number - 1
        return first

    def append(self, fact: events.Fact) -> None:
        """Keep one fact; raises SpoolError if it could not be kept."""
        self._write(_record(fact))

    def append_all(self, facts: Sequence[events.Fact]) -> None:
        """Keep all facts in one write. After a SpoolError the first few may have been kept, so what is
        appended in this way must bear being sent again."""
        self._write(b"".join([_record(fact) for fact in facts]))

    def heartbeat(self) -> None:
        """Tell the reader that nothing older than now is still to come, and end a segment that is old."""
        if self._clock.monotonic() - self._opened_at >= SEGMENT_SECONDS:
            self._rotate()
        self.append(events.Heartbeat(self.now()))

    def end_segment(self, least: int) -> None:
        """Go on in a new segment if this one has `least` bytes: what is shipped of it may then be deleted."""
        if self._size >= least:
            self._rotate()

    def await_disk(self) -> None:
        """Somebody waits until what was appended so far is on the disk."""
        self._awaited = True

    def unsynced(self) -> Unsynced:
        """What to sync for them. Its files stay open until `synced` or `give_up_segment`."""
        fresh = self._segment > self._listed
        return Unsynced((*self._ended, self._descriptor), self._segment, self._directory if fresh else None)

    def synced(self, done: Unsynced, *, more: bool) -> None:
        """That is on the disk; `more` if somebody waits for what was appended since."""
        self._listed = max(self._listed, done.segment)
        self._awaited = more
        *whole, _ = done.descriptors  # of the last, more may have been written meanwhile
        for descriptor in [one for one in self._ended if one in whole or not more]:
            self._ended.remove(descriptor)
            os.close(descriptor)

    def give_up_segment(self) -> None:
        """A sync has failed. The kernel then forgets which bytes it has not written, so neither these files nor another
        sync of them can be trusted: what comes next goes to a new segment."""
        self._spoilt = True
        self._awaited = False
        for descriptor in self._ended:
            os.close(descriptor)
        self._ended.clear()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, _CLOSED
        for one in (*self._ended, descriptor):
            os.close(one)
        self._ended.clear()

    def _write(self, data: bytes) -> None:
        if len(data) > self._room.left:
            raise SpoolError(f"spool {self.number}: the spools have reached their bound")
        if self._size >= self._segment_bytes or self._spoilt:
            self._rotate()
        if self._descriptor == _CLOSED:
            raise SpoolError(f"spool {self.number}: closed")
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            self._cut(b"")
            raise SpoolError(f"spool {self.number}: {error.strerror}") from error
        if written != len(data):
            self._cut(data[:written])
            raise SpoolError(f"spool {self.number}: short write, is the disk full?")
        self._size += written
        self._room.left -= written

    def _cut(self, written: bytes) -> None:
        """Leave no torn record. Whole ones stay: the reader may have them already, and must not find other
        bytes at their place."""
        self._size += whole_records(written)
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            self._spoilt = True

    def _rotate(self) -> None:
        """Go on in a new segment. Where that fails a segment just grows; a spoilt one refuses the fact."""
        if self._descriptor == _CLOSED:
            return
        try:
            # The new segment exists and is locked before the old one is let go: a reader that finds the old
            # file unlocked and no successor may then conclude that the writer is dead.
            following, size = self._open(self._segment + 1)
        except SpoolError:
            if self._spoilt:
                raise
            return
        if self._awaited:
            self._ended.append(self._descriptor)
        else:
            os.close(self._descriptor)
        self._segment += 1
        self._descriptor, self._size = following, size
        self._opened_at = self._clock.monotonic()
        self._spoilt = False

    def _open(self, segment: int) -> tuple[int, int]:
        """Descriptor and size of a new segment that holds its header."""
        path = self._directory / file_name(self.number, self.stream, segment)
        header = Header(events.SCHEMA, self.number, self.stream, segment, self._incarnation, self._clock.wall_us())
        data = encode_header(header)
        try:
            descriptor = create_locked(path, data)
        except OSError as error:
            raise SpoolError(f"{path}: {error.strerror}") from error
        self._room.left -= len(data)
        return descriptor, len(data)


def _record(fact: events.Fact) -> bytes:
    payload = events.encode(fact)
    if len(payload) > LONGEST:  # the reader would take it for damage and stop there
        raise SpoolError(f"a fact of {len(payload)} bytes is too long to be kept")
    return FRAME.pack(len(payload), crc32(payload)) + payload
