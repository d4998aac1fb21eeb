"""The bytes of a spool: framed, checksummed records in append-only segment files.

A spool belongs to one incarnation of one worker and has two streams, `requests` (assignments, completions,
heartbeats) and `outcomes`. A stream is a row of segment files `{number:08d}.{stream}.{segment:06d}`; every file
starts with a header record. Record: length u32 · CRC-32 u32 · payload (little-endian).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal
from zlib import crc32

import msgspec

from gateway import events
from gateway.errors import SpoolError

Stream = Literal["requests", "outcomes"]
STREAMS: tuple[Stream, ...] = ("requests", "outcomes")
FRAME = struct.Struct("<II")
LONGEST = 1 << 20  # bytes; no fact comes near, so a larger length is damage


class Header(msgspec.Struct, frozen=True, array_like=True, tag="gateway-spool"):
    """First record of every segment file."""

    schema: int
    spool: int
    stream: Stream
    segment: int
    incarnation: bytes
    started_at: int


class Position(msgspec.Struct, frozen=True, array_like=True, order=True):
    """How far a stream has been read: the byte offset in a segment."""

    segment: int = 0
    offset: int = 0


def frame(payload: bytes) -> bytes:
    return FRAME.pack(len(payload), crc32(payload)) + payload


def whole_records(data: bytes) -> int:
    """How many bytes at the start of `data`, which starts with a record of ours, are whole records."""
    end = 0
    while end + FRAME.size <= len(data):
        following = end + FRAME.size + int(FRAME.unpack_from(data, end)[0])
        if following > len(data):
            break
        end = following
    return end


def file_name(spool: int, stream: Stream, segment: int) -> str:
    return f"{spool:08d}.{stream}.{segment:06d}"


def parse_name(path: Path) -> tuple[int, Stream, int] | None:
    """Spool number, stream and segment of a file, or None for a file that is not a segment."""
    parts = path.name.split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in (parts[0], parts[2])):
        return None
    for stream in STREAMS:
        if parts[1] == stream:
            return int(parts[0]), stream, int(parts[2])
    return None


def decode_header(payload: bytes, path: Path) -> Header:
    """The header of the segment at `path`; raises SpoolError if it is none, or another file's."""
    try:
        header = msgspec.msgpack.decode(payload, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpoolError(f"{path}: not a spool segment: {error}") from error
    if header.schema not in events.READABLE:
        raise SpoolError(f"{path}: schema {header.schema}, this program reads {sorted(events.READABLE)}")
    if path.name != file_name(header.spool, header.stream, header.segment):
        raise SpoolError(f"{path}: holds spool {header.spool}, {header.stream}, segment {header.segment}")
    return header


def encode_header(header: Header) -> bytes:
    return frame(msgspec.msgpack.encode(header))
