"""One input of a request to a tensor, from JSON or from bytes: exact, or refused in words.

Types are checked before values and sizes before memory: a client may declare 10^9 elements, but only what it
sent is ever allocated.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.backends.onnx import MAX_ELEMENTS, TensorSpec, too_large
from gateway.errors import RequestError, ValueRejected
from gateway.serving.oip.datatypes import DATATYPES

PIECE = 1 << 15  # elements that are looked at or packed in one call: it stops all threads
LENGTH = struct.Struct("<I")  # before each element of a BYTES tensor


class InputReader:
    """Reads the tensors of one input of an endpoint's models."""

    __slots__ = ("_code", "_datatype", "_dtype", "_floats", "_leaves", "_noun", "_numbers", "_shape", "name")

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self._datatype = spec.datatype
        self._shape = spec.shape
        self._dtype, self._leaves, self._noun, self._code = DATATYPES[spec.datatype]
        self._floats = self._dtype.kind == "f"
        self._numbers = self._code not in ("", "?")  # `struct` takes anything for a boolean

    def from_json(self, item: dict[str, Any], booleans: bool = True) -> NDArray[Any]:
        """The tensor whose `data` is flat or nested as the shape says, row-major.

        Without `booleans` anywhere in the document, what is not of the right type does not pack as a number either,
        and to look at every element beforehand would cost as much as to parse it.
        """
        shape = self._declared(item)
        data = item.get("data")
        if type(data) is not list:
            raise self._refusal("`data` must be a list")
        looked = booleans or not self._numbers or not data or type(data[0]) is list
        if looked and not self._are_leaves(data):
            data = self._flat(data, shape)
        if len(data) != math.prod(shape):
            self._check_leaves(data)
            raise self._refusal(f"shape {shape} holds {math.prod(shape)} elements, `data` has {len(data)}")
        return self._packed(data).reshape(shape)

    def from_bytes(self, item: dict[str, Any], data: memoryview) -> NDArray[Any]:
        """The tensor that these bytes are; raises ValueRejected for NaN, infinity and bytes that are no element."""
        shape = self._declared(item)
        values = self._binary(data, shape)
        if too_large(shape):  # of JSON no body holds as many
            raise self._refusal(f"shape {shape} holds more than {MAX_ELEMENTS} elements")
        return values.reshape(shape)

    def from_raw(self, body: memoryview) -> NDArray[Any]:
        """A whole body as one row; a single free dimension beside the batch is told by the length."""
        shape = [1 if size < 0 and place == 0 else size for place, size in enumerate(self._shape)]
        if self._datatype == "BYTES":
            if any(size not in (1, -1) for size in shape):
                raise self._refusal(f"a raw body is one element, the shape is {list(self._shape)}")
            return self._strings([body], 1).reshape([1] * len(shape))
        if shape.count(-1) > 1:
            raise self._refusal(f"a raw body cannot tell the shape {list(self._shape)}: send a JSON header")
        if -1 in shape:
            row = self._dtype.itemsize * -math.prod(shape)
            shape[shape.index(-1)] = max(1, len(body) // max(1, row))
        return self._binary(body, shape).reshape(shape)

    def _declared(self, item: dict[str, Any]) -> list[int]:
        """The shape, if it and the datatype are the model's."""
        if item.get("datatype") != self._datatype:
            raise self._refusal(f"expected datatype {self._datatype}, got {_shown(item, 'datatype')}")
        given = item.get("shape")
        if type(given) is not list:
            raise self._refusal("`shape` must be a list of positive integers")
        fits = len(given) == len(self._shape)
        for place, size in enumerate(given):
            if type(size) is not int or size < 1:
                raise self._refusal("`shape` must be a list of positive integers")
            if fits and self._shape[place] not in (-1, size):
                fits = False
        if not fits:
            got = given if len(given) <= 10 else f"{len(given)} dimensions"
            raise self._refusal(f"expected shape {list(self._shape)}, got {got}")
        return given

    def _flat(self, data: list[Any], shape: list[int]) -> list[Any]:
        """Nested rows, opened one dimension after the other."""
        if not self._leaves:
            raise self._refusal(f"{self._datatype} has no JSON form: send binary data")
        for size in shape[1:]:
            if set(map(type, data)) != {list}:
                break
            if set(map(len, data)) != {size}:
                raise self._refusal(f"the rows of `data` differ in length or depth from shape {shape}")
            data = list(chain.from_iterable(data))
        self._check_leaves(data)
        return data

    def _check_leaves(self, data: list[Any]) -> None:
        if not self._are_leaves(data):
            raise self._refusal(f"`data` must hold {self._noun} for datatype {self._datatype}")

    def _are_leaves(self, data: list[Any]) -> bool:
        if len(data) <= PIECE:
            return set(map(type, data)) <= self._leaves
        return all(self._are_leaves(data[at : at + PIECE]) for at in range(0, len(data), PIECE))

    def _packed(self, data: list[Any]) -> NDArray[Any]:
        if not self._code:
            return np.array(data, object)
        try:
            # Not numpy: it would parse strings, and make infinity of what is too large.
            return np.frombuffer(b"".join(self._pieces(data)), self._dtype)
        except (struct.error, OverflowError) as error:
            self._check_leaves(data)
            place = next(place for place, value in enumerate(data) if not self._fits(value))
            raise self._refusal(f"element {place} does not fit {self._datatype}") from error

    def _pieces(self, data: list[Any]) -> Iterator[bytes]:
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            yield struct.pack(f"<{len(piece)}{self._code}", *piece)

    def _fits(self, value: Any) -> bool:
        try:
            struct.pack(f"<{self._code}", value)
        except (struct.error, OverflowError):
            return False
        return True

    def _binary(self, data: memoryview, shape: Sequence[int]) -> NDArray[Any]:
        count = math.prod(shape)
        if self._datatype == "BYTES":
            if count * LENGTH.size > len(data):  # before there is room for so many
                raise self._refusal(f"{count} elements take at least {count * LENGTH.size} bytes, got {len(data)}")
            return self._strings(self._elements(data, count), count)
        if len(data) != count * self._dtype.itemsize:
            expected = f"{count * self._dtype.itemsize} bytes of {self._datatype}"
            raise self._refusal(f"shape {list(shape)} takes {expected}, got {len(data)}")
        values = np.frombuffer(data, self._dtype)
        if self._floats and (place := _not_finite(values)) is not None:
            raise self._unfit(place, "is not finite")
        if self._datatype == "BOOL" and (high := np.flatnonzero(values.view(np.uint8) > 1)).size:
            raise self._unfit(int(high[0]), "is neither 0 nor 1")
        return values if values.flags.aligned else values.copy()

    def _elements(self, data: memoryview, count: int) -> Iterator[memoryview]:
        """The elements of a BYTES tensor, each after its length."""
        at = 0
        for place in range(count):
            start = at + LENGTH.size
            if start > len(data) or (at := start + LENGTH.unpack_from(data, start - LENGTH.size)[0]) > len(data):
                raise self._refusal(f"the data ends inside element {place}")
            yield data[start:at]
        if at != len(data):
            raise self._refusal(f"{len(data) - at} bytes are left after {count} elements")

    def _strings(self, elements: Iterable[memoryview], count: int) -> NDArray[Any]:
        """ONNX strings are text in UTF-8."""
        values = np.empty(count, object)
        for place, element in enumerate(elements):
            try:
                values[place] = str(element, "utf-8")
            except UnicodeDecodeError as error:
                raise self._unfit(place, "is not valid UTF-8") from error
        return values

    def _refusal(self, words: str) -> RequestError:
        return RequestError(f"input {self.name!r}: {words}")

    def _unfit(self, place: int, words: str) -> ValueRejected:
        return ValueRejected(f"input {self.name!r}: element {place} {words}")


def _not_finite(values: NDArray[Any]) -> int | None:
    """The place of the first NaN or infinity, row by row."""
    finite = np.isfinite(values)
    return None if np.count_nonzero(finite) == finite.size else int(np.argmin(finite))


def _shown(item: dict[str, Any], key: str) -> str:
    """What the client sent, if that is something to quote."""
    value = item.get(key)
    return repr(value[:100]) if isinstance(value, str) else "no string"
