"""Which other files a model file names, read from the file alone.

onnxruntime tells the names only when it fails to open them. An ONNX file is one protobuf message; this walks it far
enough to meet every tensor and skips the weights without reading them.
Source: onnx/onnx.proto3; protobuf encoding, https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from gateway.backends.onnx.signature import ModelError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types

# By message: fields that lead on to tensors.
_LEADS = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_KEY, _VALUE = 1, 2  # of an entry


def external_data(path: Path, original: Path | None = None) -> set[str]:
    """The `location` of every tensor that is stored outside, as written; empty for a model in one piece.

    Raises ModelError, which names the `original` of a copy, if the file is no protobuf message, and OSError if it
    cannot be read. For files that nobody writes to meanwhile: one that gets shorter is a SIGBUS.
    """
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return set(_locations(data, 0, len(data), "model"))
        except (IndexError, ValueError, RecursionError) as error:  # ValueError: also for an empty file
            raise ModelError(f"{original or path}: is no ONNX model, or is cut off") from error


def _locations(data: mmap.mmap, start: int, end: int, message: str) -> Iterator[str]:
    if message == "entry":
        entry = {field: data[first:last] for field, first, last in _fields(data, start, end)}
        if entry.get(_KEY) == b"location":
            yield entry.get(_VALUE, b"").decode()
        return
    for field, first, last in _fields(data, start, end):
        if lead := _LEADS[message].get(field):
            yield from _locations(data, first, last, lead)


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each length-delimited field; raises ValueError or IndexError if it is none."""
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _BYTES:
            size, at = _varint(data, at)
            yield tag >> 3, at, at + size
            at += size
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
    if at != end:
        raise ValueError("a field goes beyond its message")


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
