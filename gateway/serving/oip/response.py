"""Tensors to an answer of the protocol: JSON, with binary data behind it for the outputs asked for so."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from gateway.backends.onnx import Signature, TensorSpec
from gateway.serving.asgi import Headers
from gateway.serving.oip.datatypes import DATATYPES
from gateway.serving.oip.request import HEADER_LENGTH, InferRequest
from gateway.serving.oip.tensors import LENGTH
from gateway.serving.wire import coding

JSON: Headers = [(b"content-type", b"application/json")]
_BINARY: Headers = [(b"content-type", b"application/octet-stream")]
VERSION = "1"  # an endpoint serves one version of its model at a time, under this name


def render(
    name: str, signature: Signature, request: InferRequest, outputs: list[NDArray[Any]]
) -> tuple[Headers, bytes]:
    """Headers and body of the answer; tensors are flat, row-major."""
    wanted = request.wanted
    described: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for spec, values in zip(signature.outputs, outputs, strict=True):
        if wanted is None or wanted.get(spec.name) is False:
            described.append(_described(spec, values) | {"data": _plain(spec, values)})
        elif spec.name in wanted:
            tail.append(_bytes(spec, values))
            described.append(_described(spec, values) | {"parameters": {"binary_data_size": len(tail[-1])}})
    document: dict[str, Any] = {"model_name": name, "model_version": VERSION, "outputs": described}
    if request.id is not None:
        document["id"] = request.id
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tail:
        return JSON, text
    return [*_BINARY, (HEADER_LENGTH, b"%d" % len(text))], b"".join([text, *tail])


def worth_coding(request: InferRequest, body: bytes) -> str:
    """The content coding that the client wants and the body is large enough for; "" for none."""
    return coding.acceptable(request.accept) if request.accept and len(body) > coding.WORTH else ""


def coded(headers: Headers, body: bytes, name: str) -> tuple[Headers, bytes]:
    """The answer in a content coding; the length of its JSON part stays that of the text."""
    return [*headers, (b"content-encoding", name.encode())], coding.encoded(body, name)


def error_body(message: str) -> bytes:
    return orjson.dumps({"error": message})


def _described(spec: TensorSpec, values: NDArray[Any]) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": values.shape}


def _plain(spec: TensorSpec, values: NDArray[Any]) -> Any:
    flat = np.ascontiguousarray(values).reshape(-1)
    return flat.tolist() if spec.datatype == "BYTES" else flat


def _bytes(spec: TensorSpec, values: NDArray[Any]) -> bytes:
    if spec.datatype != "BYTES":
        return values.astype(DATATYPES[spec.datatype].dtype, copy=False).tobytes()
    parts: list[bytes] = []
    for element in values.reshape(-1).tolist():
        text = element.encode()
        parts += (LENGTH.pack(len(text)), text)
    return b"".join(parts)
