"""Read the spools of a node from known positions: what is new, how far each stream is complete, who is dead.

A bad tail of a live file is a write in progress: wait. The same in a dead file is a record torn by the
kill: counted, skipped. Damage with more records behind it is quarantined: the stream stops there and says so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import msgspec

from gateway import events
from gateway.files import is_locked
from gateway.spool.format import FRAME, LONGEST, Position, Stream, decode_header, file_name, parse_name

CHUNK = 4 << 20  # bytes read from one stream in one call


@dataclass(frozen=True, slots=True)
class StreamId:
    spool: int
    stream: Stream


@dataclass(slots=True)
class Batch:
    """What one read of one stream gave."""

    facts: list[events.Fact] = field(default_factory=list)
    position: Position = Position()
    finished: bool = False  # the writer is dead and everything was read
    torn: int = 0  # records cut short by the writer's death
    corrupt: str = ""  # why the stream is quarantined, "" if it is sound


def discover(directory: Path) -> list[StreamId]:
    """All streams with at least one segment file, in ascending order."""
    found = {StreamId(parsed[0], parsed[1]) for path in directory.iterdir() if (parsed := parse_name(path)) is not None}
    return sorted(found, key=lambda stream: (stream.spool, stream.stream))


def read(directory: Path, stream: StreamId, start: Position, limit: int = CHUNK) -> Batch:
    """Facts of a stream behind `start`. Reads at most about `limit` bytes and one segment boundary."""
    path = directory / file_name(stream.spool, stream.stream, start.segment)
    # Liveness is asked before the bytes are read: a record that lands in between is seen next time, but a
    # dead file never grows.
    dead = not is_locked(path)
    with path.open("rb") as file:
        file.seek(start.offset)
        data = file.read(limit)
        at_end = file.tell() == os.fstat(file.fileno()).st_size
    batch = Batch()
    used = _parse(data, path, start, batch)
    batch.position = Position(start.segment, start.offset + used)
    if batch.corrupt or not at_end:
        return batch
    following = directory / file_name(stream.spool, stream.stream, start.segment + 1)
    if dead and following.exists():
        batch.position = Position(start.segment + 1, 0)
    elif dead:
        batch.finished = True
        batch.torn = int(used < len(data))
    return batch


def _parse(data: bytes, path: Path, start: Position, batch: Batch) -> int:
    """Decode whole records into the batch; returns the bytes used, leaving a bad tail unread."""
    used = 0
    view = memoryview(data)
    while used + FRAME.size <= len(data):
        length, checksum = FRAME.unpack_from(data, used)
        end = used + FRAME.size + length
        if length > LONGEST:
            batch.corrupt = f"{path}: impossible record length {length} at byte {start.offset + used}"
            break
        if end > len(data):
            break
        payload = view[used + FRAME.size : end]
        if crc32(payload) != checksum:
            if end < len(data):
                batch.corrupt = f"{path}: checksum mismatch at byte {start.offset + used}"
            break
        try:
            if start.offset + used == 0:
                decode_header(bytes(payload), path)
            else:
                batch.facts.append(events.decode(payload))
        except msgspec.DecodeError as error:
            batch.corrupt = f"{path}: undecodable record at byte {start.offset + used}: {error}"
            break
        used = end
    return used
