"""Read the spools of a node from known positions: what is new, how far each stream is complete, who is dead.

A bad tail of a live file is a write in progress: wait. The same in a dead file is a record torn by the
kill: counted, skipped. So is a tail of nothing but zeros, which a file system may leave where the power failed before
the bytes were on the disk. Damage with more records behind it is quarantined: the stream stops there and says so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import msgspec

from gateway import events
from gateway.errors import SpoolError
from gateway.files import is_locked
from gateway.spool.format import FRAME, LONGEST, Header, Position, Stream, decode_header, file_name, parse_name

CHUNK = 4 << 20  # bytes read from one stream in one call
HEAD = 4096  # bytes; no header is longer


@dataclass(frozen=True, slots=True)
class StreamId:
    spool: int
    stream: Stream


@dataclass(slots=True)
class Batch:
    """What one read of one stream gave."""

    position: Position
    facts: list[events.Fact] = field(default_factory=list)
    finished: bool = False  # the writer is dead and everything was read
    torn: int = 0  # records cut short by the writer's death
    corrupt: str = ""  # why the stream is quarantined, "" if it is sound
    incarnation: bytes = b""  # of the writer, where the header was read


def discover(directory: Path) -> list[StreamId]:
    """All streams with at least one segment file, in ascending order."""
    found = {StreamId(parsed[0], parsed[1]) for path in directory.iterdir() if (parsed := parse_name(path)) is not None}
    return sorted(found, key=lambda stream: (stream.spool, stream.stream))


def read(directory: Path, stream: StreamId, start: Position, incarnation: bytes = b"", limit: int = CHUNK) -> Batch:
    """Facts of a stream behind `start`. Reads at most about `limit` bytes and one segment boundary.

    `incarnation` is the writer's, where it is known. Damage is said in the batch. Raises SpoolError only where the file
    system refuses to read a file that is there: that may pass, so it is no reason to give up the stream.
    """
    path = directory / file_name(stream.spool, stream.stream, start.segment)
    batch = Batch(start, incarnation=incarnation)
    try:
        dead, data, size = _bytes(path, start.offset, limit)
    except FileNotFoundError:
        batch.corrupt = f"{path}: the segment is gone"
        return batch
    except OSError as error:
        raise SpoolError(f"{path}: cannot be read: {error.strerror}") from error
    if start.offset > size:
        batch.corrupt = f"{path}: shorter than the {start.offset} bytes that were read before"
        return batch
    used = _parse(data, path, start, batch)
    batch.position = Position(start.segment, start.offset + used)
    if batch.corrupt or not dead:
        return batch
    if start.offset + len(data) < size:
        if not _is_blank(data[used:]):
            return batch  # there is more to read
        if not _ends_blank(path, start.offset + used):
            batch.corrupt = f"{path}: empty record at byte {start.offset + used}"
            return batch
    batch.torn = int(used < len(data))
    if (directory / file_name(stream.spool, stream.stream, start.segment + 1)).exists():
        batch.position = Position(start.segment + 1, 0)
    else:
        batch.finished = True
    return batch


def _bytes(path: Path, offset: int, limit: int) -> tuple[bool, bytes, int]:
    """Whether the writer is dead, what lies behind the offset, and the size of the file after that was read."""
    # Liveness is asked before the bytes are read: a record that lands in between is seen next time, but a
    # dead file never grows.
    dead = not is_locked(path)
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(limit)
        return dead, data, os.fstat(file.fileno()).st_size


def _is_blank(data: bytes) -> bool:
    """Whether a record would begin here, and there are only zeros."""
    return len(data) >= FRAME.size and not data.strip(b"\0")


def _ends_blank(path: Path, offset: int) -> bool:
    """Whether a file holds only zeros from here to its end."""
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.read(CHUNK):
            if data.strip(b"\0"):
                return False
    return True


def _parse(data: bytes, path: Path, start: Position, batch: Batch) -> int:
    """Decode whole records into the batch; returns the bytes used, leaving a bad tail unread."""
    payloads, damage = _payloads(data)
    header = int(start.offset == 0 and bool(payloads))
    why = ""
    try:
        if header:
            _recognise(decode_header(payloads[0], path), path, batch)
        events.decode_into(batch.facts, payloads[header:])
    except SpoolError as error:
        batch.corrupt = str(error)
        return 0
    except msgspec.DecodeError as error:
        damage, why = "undecodable record", f": {error}"
    sound = payloads[: header + len(batch.facts)]
    used = sum(map(len, sound)) + FRAME.size * len(sound)
    if damage:
        batch.corrupt = f"{path}: {damage} at byte {start.offset + used}{why}"
    return used


def recognise(directory: Path, stream: StreamId, position: Position, incarnation: bytes) -> str:
    """Why a file that was read up to a position is not the one that it was, "" if it is: a data directory may have
    been made anew, or copied, and its numbers with it. What cannot be read now is not judged."""
    path = directory / file_name(stream.spool, stream.stream, position.segment)
    try:
        with path.open("rb") as file:
            payloads, _ = _payloads(file.read(HEAD))
        _recognise(decode_header(payloads[0], path), path, Batch(position, incarnation=incarnation))
    except (OSError, IndexError):
        return ""
    except SpoolError as error:
        return str(error)
    return ""


def _recognise(header: Header, path: Path, batch: Batch) -> None:
    """Note who wrote a segment; raises SpoolError if the stream was somebody else's before."""
    if batch.incarnation not in (b"", header.incarnation):
        raise SpoolError(f"{path}: written by another worker than the stream's: is the data directory a copy?")
    batch.incarnation = header.incarnation


def _payloads(data: bytes) -> tuple[list[bytes], str]:
    """Payloads of the whole, sound records at the start; and the damage behind them, "" if that may be a bad tail."""
    payloads: list[bytes] = []
    unpack, head = FRAME.unpack_from, FRAME.size
    used, size = 0, len(data)
    while (begin := used + head) <= size:
        length, checksum = unpack(data, used)
        if not 0 < length <= LONGEST:
            blank = not length and _is_blank(data[used:])
            return payloads, "" if blank else f"impossible record length {length}"
        used = begin + length
        if used > size:
            break
        payload = data[begin:used]
        if crc32(payload) != checksum:
            return payloads, "checksum mismatch" if used < size else ""
        payloads.append(payload)
    return payloads, ""
