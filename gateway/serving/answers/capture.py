"""Which number of an answer is the prediction that a metric scores: from a model's arrays, or an upstream's JSON.

Nothing here raises: an answer in which the number cannot be found gives None, and whoever asked counts that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeGuard

import numpy as np
import orjson
from numpy.typing import NDArray

from gateway.backends.base import Headers
from gateway.backends.onnx import Signature
from gateway.errors import RequestError
from gateway.plan import CapturePlan
from gateway.serving.oip.datatypes import DATATYPES
from gateway.serving.oip.request import HEADER_LENGTH
from gateway.serving.wire import coding
from gateway.serving.wire.headers import field

MAX_DIMENSIONS = 64  # as many as numpy has
LARGEST = 1 << 20  # bytes of an answer that are parsed for one number: all other requests of the worker wait meanwhile
_NUMBERS = (float, int, bool)


@dataclass(frozen=True, slots=True)
class Capture:
    """Finds one number: `index` counts the elements of a tensor row by row, backwards if negative."""

    output: str  # "" for whichever an upstream names first, so clients that ask for some outputs only need a name here
    place: int | None  # of that output among those of the endpoint's in-process models, if they have it
    index: int

    @classmethod
    def of(cls, plan: CapturePlan, signature: Signature | None) -> Capture:
        """`signature` is that of the in-process models: with one, also the first output has a name for upstreams."""
        names = [spec.name for spec in signature.outputs] if signature is not None else []
        output = plan.output or next(iter(names), "")
        return cls(output, names.index(output) if output in names else None, plan.index)

    def from_arrays(self, outputs: Sequence[NDArray[Any]]) -> float | None:
        if self.place is None:
            return None
        values = outputs[self.place]
        return _finite(values.item(self.index)) if self._inside(values.size) else None

    def from_json(self, headers: Headers, body: bytes) -> float | None:
        """From an answer of the Open Inference Protocol, whose tensors may follow the JSON as binary data."""
        text = _decoded(headers, body)
        if text is None:
            return None
        at = _json_length(headers, len(text))
        for item in _outputs(text[:at]):
            size = _binary_size(item)
            if self._is_meant(item):
                data = _flat(item) if size is None else _unpacked(item, text[at : at + size], size)
                return _finite(data[self.index]) if data is not None and self._inside(len(data)) else None
            at += size or 0
        return None

    def _is_meant(self, item: Any) -> bool:
        return isinstance(item, dict) and self.output in ("", item.get("name"))

    def _inside(self, size: int) -> bool:
        return -size <= self.index < size


def _decoded(headers: Headers, body: bytes) -> bytes | None:
    """The answer, unless it is too long. Most clients ask for gzip, and upstreams do as they are asked."""
    try:
        text = coding.decoded(body, field(headers, b"content-encoding"), LARGEST)
    except RequestError:
        return None
    return text if len(text) <= LARGEST else None


def _outputs(text: bytes) -> list[Any]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return []
    outputs = document.get("outputs") if isinstance(document, dict) else None
    return outputs if isinstance(outputs, list) else []


def _json_length(headers: Headers, size: int) -> int:
    declared = field(headers, HEADER_LENGTH)
    return int(declared) if declared.isdigit() and len(declared) < 10 else size


def _binary_size(tensor: Any) -> int | None:
    """The bytes of a tensor that are not in the JSON; None if it is there."""
    parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    return size if type(size) is int and size >= 0 else None


def _unpacked(tensor: dict[str, Any], data: bytes, size: int) -> list[Any] | None:
    """The elements of a tensor that is binary data, if they are numbers, whole, and as many as the shape says."""
    name, shape = tensor.get("datatype"), tensor.get("shape")
    datatype = DATATYPES.get(name) if isinstance(name, str) else None
    if datatype is None or datatype.dtype.hasobject or not _is_shape(shape):
        return None
    if not len(data) == size == math.prod(shape) * datatype.dtype.itemsize:
        return None
    elements: list[Any] = np.frombuffer(data, datatype.dtype).tolist()
    return elements


def _is_shape(shape: Any) -> TypeGuard[list[int]]:
    """Of no more dimensions than numpy has: the product of thousands of large numbers takes seconds."""
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        return False
    return all(type(size) is int and size > 0 for size in shape)


def _flat(tensor: dict[str, Any]) -> list[Any] | None:
    """The elements of a tensor, whose `data` may be flat or nested as its shape says; None if it is neither."""
    shape, data = tensor.get("shape"), tensor.get("data")
    if not isinstance(data, list) or not _is_shape(shape):
        return None
    if data and type(data[0]) is list:
        for size in shape[1:]:
            if not all(type(row) is list and len(row) == size for row in data):
                return None
            data = list(chain.from_iterable(data))
    return data if len(data) == math.prod(shape) else None


def _finite(value: Any) -> float | None:
    return float(value) if type(value) in _NUMBERS and math.isfinite(value) else None
