"""What a model takes and gives, in the words of the Open Inference Protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from gateway.errors import GatewayError

# Elements of one tensor in one request: 64 MiB of float32. A body of JSON cannot hold them below its own limit, but a
# binary tensor can, and a model's activations are a multiple of its input.
MAX_ELEMENTS = 1 << 24

# ONNX tensor types that the Open Inference Protocol can name and numpy can hold.
_TYPES: dict[str, tuple[str, type[np.generic]]] = {
    "tensor(bool)": ("BOOL", np.bool_),
    "tensor(int8)": ("INT8", np.int8),
    "tensor(int16)": ("INT16", np.int16),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(int64)": ("INT64", np.int64),
    "tensor(uint8)": ("UINT8", np.uint8),
    "tensor(uint16)": ("UINT16", np.uint16),
    "tensor(uint32)": ("UINT32", np.uint32),
    "tensor(uint64)": ("UINT64", np.uint64),
    "tensor(float16)": ("FP16", np.float16),
    "tensor(float)": ("FP32", np.float32),
    "tensor(double)": ("FP64", np.float64),
    "tensor(string)": ("BYTES", np.object_),  # elements are `str`: onnxruntime takes `bytes` for their repr
}
_DTYPES = dict(_TYPES.values())

Tensors = Mapping[str, NDArray[Any]]


class ModelError(GatewayError):
    """A model file that cannot be served; the message names the file and the cause."""

    reason = "model"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, protocol datatype and shape of an input or output; -1 is a free dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> type[np.generic]:
        return _DTYPES[self.datatype]

    @property
    def has_rows(self) -> bool:
        """Whether the first dimension is free, as that of a batch is."""
        return bool(self.shape) and self.shape[0] < 0

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def has_rows(self) -> bool:
        """Whether several requests could be put together along the first dimension."""
        return bool(self.inputs) and all(spec.has_rows for spec in (*self.inputs, *self.outputs))

    def __str__(self) -> str:
        takes, gives = (", ".join(map(str, side)) for side in (self.inputs, self.outputs))
        return f"({takes}) -> ({gives})"


def too_large(shape: Sequence[int]) -> bool:
    """Whether a tensor of this shape has more elements than a request may hold. Ask before it is built."""
    return math.prod(shape) > MAX_ELEMENTS


def signature_of(session: ort.InferenceSession, where: object) -> Signature:
    """Raises ModelError naming `where` if a tensor has a type that the protocol cannot carry."""

    def spec(node: Any) -> TensorSpec:
        if node.type not in _TYPES:
            raise ModelError(f"{where}: tensor {node.name!r} has type {node.type}, which cannot be served")
        shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
        return TensorSpec(node.name, _TYPES[node.type][0], shape)

    return Signature(
        tuple(spec(node) for node in session.get_inputs()),
        tuple(spec(node) for node in session.get_outputs()),
    )
