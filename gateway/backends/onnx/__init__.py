"""Models served in the process."""

import os

# From 1.29 on onnxruntime sends names and hashes of models to its maker, and keeps a number of the machine in the home
# directory, unless this is set before it is loaded; nothing outside of this package loads it. See its Privacy.md.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from gateway.backends.onnx.artifacts import confined, digest, keep, kept_path, prune, verified
from gateway.backends.onnx.loading import load
from gateway.backends.onnx.model import OnnxModel
from gateway.backends.onnx.session import inspect
from gateway.backends.onnx.signature import MAX_ELEMENTS, ModelError, Signature, Tensors, TensorSpec, too_large

__all__ = [
    "MAX_ELEMENTS",
    "ModelError",
    "OnnxModel",
    "Signature",
    "TensorSpec",
    "Tensors",
    "confined",
    "digest",
    "inspect",
    "keep",
    "kept_path",
    "load",
    "prune",
    "too_large",
    "verified",
]
