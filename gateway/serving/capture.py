"""Which number of an answer is the prediction that a metric scores: from a model's arrays, or an upstream's JSON.

Nothing here raises: an answer in which the number cannot be found gives None, and whoever asked counts that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson
from numpy.typing import NDArray

from gateway.backends.base import Headers
from gateway.backends.onnx import Signature
from gateway.plan import CapturePlan
from gateway.serving.encoding import Decoder

LARGEST = 1 << 20  # bytes of JSON that are parsed for one number: every other request of the worker waits meanwhile
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
        """From an answer of the Open Inference Protocol."""
        text = _decoded(headers, body)
        if text is None:
            return None
        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError:
            return None
        outputs = document.get("outputs") if isinstance(document, dict) else None
        if not isinstance(outputs, list):
            return None
        data = next((_flat(item) for item in outputs if self._is_meant(item)), None)
        return _finite(data[self.index]) if data is not None and self._inside(len(data)) else None

    def _is_meant(self, item: Any) -> bool:
        return isinstance(item, dict) and self.output in ("", item.get("name"))

    def _inside(self, size: int) -> bool:
        return -size <= self.index < size


def _decoded(headers: Headers, body: bytes) -> bytes | None:
    """The JSON text, unless it is too long."""
    decoder = Decoder(headers)
    text = decoder.feed(body)
    return text if decoder.complete and len(text) <= LARGEST else None


def _flat(tensor: dict[str, Any]) -> list[Any] | None:
    """The elements of a tensor, whose `data` may be flat or nested as its shape says; None if it is neither."""
    shape, data = tensor.get("shape"), tensor.get("data")
    if not isinstance(data, list) or not isinstance(shape, list):
        return None
    if not all(type(size) is int and size > 0 for size in shape):
        return None
    if data and type(data[0]) is list:
        for size in shape[1:]:
            if not all(type(row) is list and len(row) == size for row in data):
                return None
            data = list(chain.from_iterable(data))
    return data if len(data) == math.prod(shape) else None


def _finite(value: Any) -> float | None:
    return float(value) if type(value) in _NUMBERS and math.isfinite(value) else None
