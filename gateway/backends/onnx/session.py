"""onnxruntime sessions as the gateway opens them, and the memory that they leave behind."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from gateway import memory
from gateway.backends.onnx.signature import ModelError, Signature, signature_of


def open_session(path: Path, threads: int = 1) -> ort.InferenceSession:
    """Load by path, so that the GIL is free meanwhile; blocks. Raises ModelError if the file cannot be loaded.

    The session has `threads` threads of its own. They sleep between runs: spinning, the default, would take a core
    from whoever else has something to do. The session keeps the memory of its largest run, but for runs that
    `batching` calls large.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # a failing run is reported by its exception, once
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a family of pybind classes without a useful root
        raise ModelError(f"{path}: cannot be loaded: {first_line(error)}") from error


def inspect(path: Path) -> Signature:
    """Load a model and read its signature; raises ModelError if it cannot be loaded or described."""
    signature = signature_of(open_session(path), path)
    memory.give_back()
    return signature


def first_line(error: Exception) -> str:
    """onnxruntime's messages may go on for pages."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
