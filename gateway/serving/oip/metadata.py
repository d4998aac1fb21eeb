"""What an endpoint says of its model: metadata, configuration and its line in the repository index."""

from __future__ import annotations

from typing import Any

from gateway.backends.onnx import Signature, TensorSpec
from gateway.serving.oip.response import VERSION

PLATFORM = "onnxruntime_onnx"
_CONFIG_TYPES = {"BYTES": "TYPE_STRING"}  # the one datatype that configurations call by another name


def metadata(name: str, signature: Signature) -> dict[str, Any]:
    return {
        "name": name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [_tensor(spec) for spec in signature.inputs],
        "outputs": [_tensor(spec) for spec in signature.outputs],
    }


def configuration(name: str, signature: Signature) -> dict[str, Any]:
    """As Triton's model configuration. `max_batch_size` 0 says that `dims` are the whole shape."""
    return {
        "name": name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": 0,
        "input": [_configured(spec) for spec in signature.inputs],
        "output": [_configured(spec) for spec in signature.outputs],
    }


def index_entry(name: str, signature: Signature | None) -> dict[str, str]:
    """A model in the repository index; of an upstream's neither version nor state are known here."""
    return {"name": name} if signature is None else {"name": name, "version": VERSION, "state": "READY", "reason": ""}


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


def _configured(spec: TensorSpec) -> dict[str, Any]:
    datatype = _CONFIG_TYPES.get(spec.datatype, f"TYPE_{spec.datatype}")
    return {"name": spec.name, "data_type": datatype, "dims": spec.shape}
