"""Open Inference Protocol v2, REST with JSON bodies: requests to tensors, tensors to answers.

Everything wrong with a request is found here, before a variant is drawn, so that a client's mistake never
counts against a model. Parsing is strict: NaN and infinity are no JSON, dtypes are not guessed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from gateway.backends.onnx import Signature, Tensors, TensorSpec
from gateway.errors import RequestError

JSON = [(b"content-type", b"application/json")]
_KINDS = {"b": "booleans", "i": "integers", "u": "integers", "f": "numbers"}
_LEAVES: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request that fits the signature of the endpoint's models."""

    inputs: Tensors
    id: str | None
    outputs: tuple[str, ...] | None  # names asked for; None means all


def parse(body: bytes, signature: Signature) -> InferRequest:
    """Raises RequestError naming the tensor and what was expected."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
        raise RequestError("expected an object with a list `inputs`")
    identifier = document.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise RequestError("`id` must be a string")
    given = {_name(item): item for item in document["inputs"]}
    expected = {spec.name for spec in signature.inputs}
    if len(given) != len(document["inputs"]) or set(given) != expected:
        raise RequestError(f"expected the inputs {sorted(expected)}, each once; got {sorted(given)}")
    tensors = {spec.name: _tensor(given[spec.name], spec) for spec in signature.inputs}
    return InferRequest(tensors, identifier, _outputs(document.get("outputs"), signature))


def render(model_name: str, request: InferRequest, signature: Signature, outputs: list[NDArray[Any]]) -> bytes:
    """The answer's body; `data` is flat, row-major."""
    wanted = request.outputs
    document: dict[str, Any] = {
        "model_name": model_name,
        "outputs": [
            {
                "name": spec.name,
                "datatype": spec.datatype,
                "shape": list(values.shape),
                "data": np.ascontiguousarray(values).reshape(-1),
            }
            for spec, values in zip(signature.outputs, outputs, strict=True)
            if wanted is None or spec.name in wanted
        ],
    }
    if request.id is not None:
        document["id"] = request.id
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def metadata(name: str, signature: Signature) -> bytes:
    def side(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
        return [{"name": s.name, "datatype": s.datatype, "shape": list(s.shape)} for s in specs]

    return orjson.dumps(
        {
            "name": name,
            "platform": "onnxruntime_onnx",
            "inputs": side(signature.inputs),
            "outputs": side(signature.outputs),
        }
    )


def error_body(message: str) -> bytes:
    return orjson.dumps({"error": message})


def _name(item: Any) -> str:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise RequestError("every input must be an object with a string `name`")
    name: str = item["name"]
    return name


def _tensor(item: dict[str, Any], spec: TensorSpec) -> NDArray[Any]:
    if item.get("datatype") != spec.datatype:
        raise RequestError(f"input {spec.name!r}: expected datatype {spec.datatype}, got {_shown(item, 'datatype')}")
    shape = _shape(item.get("shape"), spec)
    data = item.get("data")
    if not isinstance(data, list):
        raise RequestError(f"input {spec.name!r}: `data` must be a list")
    values = _array(data, spec)
    if values.size != math.prod(shape):
        raise RequestError(
            f"input {spec.name!r}: shape {list(shape)} holds {math.prod(shape)} elements, `data` has {values.size}"
        )
    return values.reshape(shape)


def _shape(given: Any, spec: TensorSpec) -> tuple[int, ...]:
    if not isinstance(given, list) or not all(type(size) is int and size > 0 for size in given):
        raise RequestError(f"input {spec.name!r}: `shape` must be a list of positive integers")
    fits = len(given) == len(spec.shape) and all(
        want in (-1, size) for size, want in zip(given, spec.shape, strict=True)
    )
    if not fits:
        raise RequestError(f"input {spec.name!r}: expected shape {list(spec.shape)}, got {given}")
    return tuple(given)


def _array(data: list[Any], spec: TensorSpec) -> NDArray[Any]:
    kind = np.dtype(spec.dtype).kind
    # Types first: numpy would parse strings, take null for NaN, and give every string the room of the longest.
    if not _leaf_types(data, len(spec.shape)) <= _LEAVES[kind]:
        raise RequestError(f"input {spec.name!r}: `data` must hold {_KINDS[kind]} for datatype {spec.datatype}")
    try:
        with np.errstate(over="ignore"):
            values = np.array(data, dtype=spec.dtype)
    except OverflowError as error:
        raise RequestError(f"input {spec.name!r}: a value does not fit {spec.datatype}") from error
    except ValueError as error:
        raise RequestError(f"input {spec.name!r}: the rows of `data` differ in length or depth") from error
    if kind == "f" and not np.isfinite(values).all():
        raise RequestError(f"input {spec.name!r}: a value is too large for {spec.datatype}")
    return values


def _leaf_types(data: list[Any], depth: int) -> set[type]:
    """The types at the bottom of a list that is nested at most `depth` deep (`list` itself if it is deeper)."""
    types = set(map(type, data))
    while types == {list} and depth > 1:
        data = list(chain.from_iterable(data))
        types = set(map(type, data))
        depth -= 1
    return types


def _shown(item: dict[str, Any], key: str) -> str:
    """What the client sent, if that is something to quote."""
    value = item.get(key)
    return repr(value) if isinstance(value, str) else "no string"


def _outputs(asked: Any, signature: Signature) -> tuple[str, ...] | None:
    if asked is None or asked == []:
        return None
    if not isinstance(asked, list):
        raise RequestError("`outputs` must be a list")
    names = tuple(_name(item) for item in asked)
    known = {spec.name for spec in signature.outputs}
    if unknown := sorted(set(names) - known):
        raise RequestError(f"unknown outputs {unknown}; the model has {sorted(known)}")
    return names
