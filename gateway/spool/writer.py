"""Append facts to one stream of a spool: one `write` per fact, nothing buffered in the process.

What was appended survives `kill -9` of the worker (durability level `process`): the bytes are the kernel's. A
short or failed write is cut off again, so the file never has a bad middle; the caller learns that the fact
was not kept.
"""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

from gateway import events
from gateway.clock import Clock
from gateway.errors import SpoolError
from gateway.files import create_locked
from gateway.spool.format import FRAME, Header, Stream, encode_header, file_name

SEGMENT_BYTES = 64 << 20


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
        self._descriptor = self._open(0)

    def now(self) -> int:
        """The wall clock, never going back: times in one stream do not decrease."""
        self._last_at = max(self._last_at, self._clock.wall_us())
        return self._last_at

    def append(self, fact: events.Fact) -> None:
        """Keep one fact; raises SpoolError if it could not be kept."""
        payload = events.encode(fact)
        self._write(FRAME.pack(len(payload), crc32(payload)) + payload)

    def append_all(self, facts: list[events.Fact]) -> None:
        """Keep all facts or none, in one write."""
        frames = []
        for fact in facts:
            payload = events.encode(fact)
            frames.append(FRAME.pack(len(payload), crc32(payload)) + payload)
        self._write(b"".join(frames))

    def heartbeat(self) -> None:
        """Tell the reader that nothing older than now is still to come."""
        self.append(events.Heartbeat(self.now()))

    def close(self) -> None:
        os.close(self._descriptor)

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            self._cut()
            raise SpoolError(f"spool {self.number}: {error.strerror}") from error
        if written != len(data):
            self._cut()
            raise SpoolError(f"spool {self.number}: short write, is the disk full?")
        self._size += written
        if self._size >= self._segment_bytes:
            self._rotate()

    def _cut(self) -> None:
        os.ftruncate(self._descriptor, self._size)

    def _rotate(self) -> None:
        # The new segment exists and is locked before the old one is let go: a reader that finds the old
        # file unlocked and no successor may then conclude that the writer is dead.
        following = self._open(self._segment + 1)
        os.close(self._descriptor)
        self._segment += 1
        self._descriptor = following

    def _open(self, segment: int) -> int:
        path = self._directory / file_name(self.number, self.stream, segment)
        header = Header(events.SCHEMA, self.number, self.stream, segment, self._incarnation, self._clock.wall_us())
        data = encode_header(header)
        try:
            descriptor = create_locked(path, data)
        except OSError as error:
            raise SpoolError(f"{path}: {error.strerror}") from error
        self._size = len(data)
        return descriptor
