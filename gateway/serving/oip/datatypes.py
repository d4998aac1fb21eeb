"""The datatypes of the protocol, as numpy, as JSON and as words. BF16 is missing: numpy cannot hold it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Datatype(NamedTuple):
    """How the elements of a tensor are written down."""

    dtype: np.dtype[Any]  # little-endian, as binary tensors are
    leaves: frozenset[type]  # what JSON parses to; nothing for a type without a JSON form
    noun: str  # of its JSON form
    code: str  # by which `struct` packs JSON elements; "" for types that are not packed


_BOOLEANS = frozenset({bool}), "booleans"
_INTEGERS = frozenset({int}), "integers"
_NUMBERS = frozenset({int, float}), "numbers"

DATATYPES: dict[str, Datatype] = {
    "BOOL": Datatype(np.dtype("?"), *_BOOLEANS, "?"),
    "UINT8": Datatype(np.dtype("u1"), *_INTEGERS, "B"),
    "UINT16": Datatype(np.dtype("<u2"), *_INTEGERS, "H"),
    "UINT32": Datatype(np.dtype("<u4"), *_INTEGERS, "I"),
    "UINT64": Datatype(np.dtype("<u8"), *_INTEGERS, "Q"),
    "INT8": Datatype(np.dtype("i1"), *_INTEGERS, "b"),
    "INT16": Datatype(np.dtype("<i2"), *_INTEGERS, "h"),
    "INT32": Datatype(np.dtype("<i4"), *_INTEGERS, "i"),
    "INT64": Datatype(np.dtype("<i8"), *_INTEGERS, "q"),
    "FP16": Datatype(np.dtype("<f2"), frozenset(), "", ""),
    "FP32": Datatype(np.dtype("<f4"), *_NUMBERS, "f"),
    "FP64": Datatype(np.dtype("<f8"), *_NUMBERS, "d"),
    "BYTES": Datatype(np.dtype(object), frozenset({str}), "strings", ""),
}
