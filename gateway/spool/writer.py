"""Append facts to one stream of a spool: one `write` per call, nothing buffered in the process.

What was appended survives `kill -9` of the worker (durability level `process`): the bytes are the kernel's. A
short or failed write is cut off again, so the file never has a bad middle; the caller learns that the fact
was not kept.
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

SEGMENT_BYTES = 64 << 20
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
    ) -> None:
        self.number = number
        self.stream = stream
        self._directory = directory
        self._incarnation = incarnation
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._segment = 0
        self._last_at = 0
        self._bad_tail = False  # bytes that could not be cut off: nothing may be appended behind them
        self._descriptor, self._size = self._open(0)

    def now(self) -> int:
        """The wall clock, never going back: times in one stream do not decrease."""
        at = self._clock.wall_us()
        if at > self._last_at:
            self._last_at = at
        return self._last_at

    def append(self, fact: events.Fact) -> None:
        """Keep one fact; raises SpoolError if it could not be kept."""
        self._write(_record(fact))

    def append_all(self, facts: Sequence[events.Fact]) -> None:
        """Keep all facts in one write. After a SpoolError the first few may have been kept, so what is
        appended in this way must bear being sent again."""
        self._write(b"".join([_record(fact) for fact in facts]))

    def heartbeat(self) -> None:
        """Tell the reader that nothing older than now is still to come."""
        self.append(events.Heartbeat(self.now()))

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, _CLOSED
        os.close(descriptor)

    def _write(self, data: bytes) -> None:
        if self._size >= self._segment_bytes or self._bad_tail:
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

    def _cut(self, written: bytes) -> None:
        """Leave no torn record. Whole ones stay: the reader may have them already, and must not find other
        bytes at their place."""
        self._size += whole_records(written)
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            self._bad_tail = True

    def _rotate(self) -> None:
        """Go on in a new segment. Where that fails a full segment just grows; a bad tail refuses the fact."""
        if self._descriptor == _CLOSED:
            return
        try:
            # The new segment exists and is locked before the old one is let go: a reader that finds the old
            # file unlocked and no successor may then conclude that the writer is dead.
            following, size = self._open(self._segment + 1)
        except SpoolError:
            if self._bad_tail:
                raise
            return
        os.close(self._descriptor)
        self._segment += 1
        self._descriptor, self._size = following, size
        self._bad_tail = False

    def _open(self, segment: int) -> tuple[int, int]:
        """Descriptor and size of a new segment that holds its header."""
        path = self._directory / file_name(self.number, self.stream, segment)
        header = Header(events.SCHEMA, self.number, self.stream, segment, self._incarnation, self._clock.wall_us())
        data = encode_header(header)
        try:
            return create_locked(path, data), len(data)
        except OSError as error:
            raise SpoolError(f"{path}: {error.strerror}") from error


def _record(fact: events.Fact) -> bytes:
    payload = events.encode(fact)
    if len(payload) > LONGEST:  # the reader would take it for damage and stop there
        raise SpoolError(f"a fact of {len(payload)} bytes is too long to be kept")
    return FRAME.pack(len(payload), crc32(payload)) + payload
