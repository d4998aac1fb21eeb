"""From an artifact on disk to a model that is ready to answer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from gateway.backends.onnx.artifacts import verified
from gateway.backends.onnx.model import MAX_BATCH, UNMARKED, OnnxModel
from gateway.backends.onnx.signature import ModelError


def load(
    path: Path,
    declared: str,
    threads: int = 1,
    max_batch: int = MAX_BATCH,
    mark: AbstractContextManager[object] = UNMARKED,
) -> OnnxModel:
    """Load and warm up the artifact with this digest ("" for whichever lies there); blocks.

    Raises ModelError if it cannot be loaded or is another file than declared.
    """
    try:
        before = _identity(path)
        if declared:
            verified(path, declared)
        model = OnnxModel(path, threads, max_batch, mark)
        if _identity(path) != before:
            model.close()
            raise ModelError(f"{path}: was replaced while it was loaded")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    return model


def _identity(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
