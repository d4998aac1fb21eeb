"""Open Inference Protocol v2, REST: requests to tensors and tensors to answers, as JSON and as binary data."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from gateway.backends.onnx import Signature
from gateway.serving.asgi import Headers
from gateway.serving.oip import metadata
from gateway.serving.oip.request import HEADER_LENGTH, InferRequest, RequestReader
from gateway.serving.oip.response import JSON, VERSION, coded, error_body, render, worth_coding

DECIDING = (HEADER_LENGTH, b"content-encoding")  # headers that must not come twice
__all__ = [
    "DECIDING",
    "HEADER_LENGTH",
    "JSON",
    "VERSION",
    "Codec",
    "InferRequest",
    "coded",
    "error_body",
    "metadata",
    "worth_coding",
]


class Codec:
    """Reads the requests and writes the answers of one endpoint, whose in-process models share a signature."""

    def __init__(self, name: str, signature: Signature, max_body: int) -> None:
        reader = RequestReader(signature, max_body)
        self.parse = reader.read
        self.heavy = reader.heavy
        self._name = name
        self._signature = signature

    def render(self, request: InferRequest, outputs: list[NDArray[Any]]) -> tuple[Headers, bytes]:
        """Headers and body of the answer that these outputs, in the order of the signature, are."""
        return render(self._name, self._signature, request, outputs)
