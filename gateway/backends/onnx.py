"""Models served in the process: one ONNX session and one thread per model.

The event loop hands tensors to the model's thread and waits for a future under a deadline; a hang therefore
holds up its own model only. At the deadline the running call is told to stop (`RunOptions.terminate`), and
whatever waits behind it is refused as soon as its own deadline passes.
"""

from __future__ import annotations

import asyncio
import hashlib
import queue
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from gateway.errors import BackendError, BackendTimeout, BackendUnavailable, BadOutput, GatewayError

QUEUE_SIZE = 1024  # requests waiting for one model; beyond that they are refused at once
WARM_UP = 5.0  # seconds that a model may take for its first run

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
    "tensor(float)": ("FP32", np.float32),
    "tensor(double)": ("FP64", np.float64),
}


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

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype}{list(self.shape)}"


_DTYPES = dict(_TYPES.values())


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __str__(self) -> str:
        takes, gives = (", ".join(map(str, side)) for side in (self.inputs, self.outputs))
        return f"({takes}) -> ({gives})"


def load(path: Path, declared: str) -> OnnxModel:
    """Load and warm up the artifact with this digest ("" for whichever lies there); blocks.

    Raises ModelError if it cannot be loaded or is another file than declared: what is measured under a digest
    must be what that digest names.
    """
    try:
        before = _identity(path)
        found = digest(path) if declared else ""
        if found != declared:
            raise ModelError(f"{path}: has sha256 {found}, expected {declared}; it was replaced")
        model = OnnxModel(path)
        if _identity(path) != before:
            model.close()
            raise ModelError(f"{path}: was replaced while it was loaded")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    model.warm_up()
    return model


def _identity(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def digest(path: Path) -> str:
    """SHA-256 of an artifact, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inspect(path: Path) -> Signature:
    """Load a model and read its signature; raises ModelError if it cannot be loaded or described."""
    return _signature(_session(path), path)


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # a failing run is reported by its exception, once
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a family of pybind classes without a useful root
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path}: cannot be loaded: {first_line}") from error


def _signature(session: ort.InferenceSession, path: Path) -> Signature:
    def spec(node: Any) -> TensorSpec:
        if node.type not in _TYPES:
            raise ModelError(f"{path}: tensor {node.name!r} has type {node.type}, which cannot be served")
        shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
        return TensorSpec(node.name, _TYPES[node.type][0], shape)

    return Signature(
        tuple(spec(node) for node in session.get_inputs()),
        tuple(spec(node) for node in session.get_outputs()),
    )


Tensors = Mapping[str, NDArray[Any]]


@dataclass(slots=True)
class _Job:
    inputs: Tensors
    future: asyncio.Future[list[NDArray[Any]]]
    options: ort.RunOptions


class OnnxModel:
    """A loaded model. Load it off the loop (`OnnxModel(path)` blocks); call `infer` on the loop."""

    def __init__(self, path: Path) -> None:
        self._session = _session(path)
        self.signature = _signature(self._session, path)
        self._names = [spec.name for spec in self.signature.outputs]
        self.aside = asyncio.Lock()  # held by who runs a shadow copy: clients' requests wait behind one at most
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"onnx {path.stem}", daemon=True)
        self._thread.start()

    def warm_up(self) -> None:
        """Run once on zeros so that the first user does not pay for lazy initialisation.

        A model may legitimately refuse zeros; what it does with real inputs is for the traffic to tell.
        """
        zeros = {
            spec.name: np.zeros([1 if size < 0 else size for size in spec.shape], spec.dtype)
            for spec in self.signature.inputs
        }
        options = ort.RunOptions()
        watchdog = threading.Timer(WARM_UP, setattr, (options, "terminate", True))
        watchdog.start()
        try:
            with suppress(Exception):
                self._session.run(None, zeros, options)
        finally:
            watchdog.cancel()

    async def infer(self, inputs: Tensors, deadline: float) -> list[NDArray[Any]]:
        """Outputs in the order of the signature. `deadline` is loop time in seconds.

        Raises BackendTimeout at the deadline, BackendUnavailable when too many wait, BadOutput on NaN or
        infinity, BackendError when the model raises.
        """
        if self._closed:
            raise BackendUnavailable("the model was unloaded")
        # What has expired stays in the queue until the thread comes to it, and counts: a model that never
        # returns must not collect the requests of a whole night.
        if self._jobs.qsize() >= QUEUE_SIZE:
            raise BackendUnavailable(f"{QUEUE_SIZE} requests already wait for this model")
        loop = asyncio.get_running_loop()
        job = _Job(inputs, loop.create_future(), ort.RunOptions())
        timer = loop.call_at(deadline, _expire, job)
        try:
            self._jobs.put(job)
            return await job.future
        except asyncio.CancelledError:
            job.options.terminate = True
            raise
        finally:
            timer.cancel()

    def close(self) -> None:
        """Take no more calls and let the thread end after what already waits; does not block."""
        self._closed = True
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.future.done():
                continue
            loop = job.future.get_loop()
            try:
                outputs = self._session.run(self._names, dict(job.inputs), job.options)
                result: list[NDArray[Any]] | BackendError = _checked(outputs, self._names)
            except BackendError as error:
                result = error
            except Exception as error:
                first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
                result = BackendError(f"the model raised: {first_line[:300]}")
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_deliver, job.future, result)


def _expire(job: _Job) -> None:
    if not job.future.done():
        job.options.terminate = True
        job.future.set_exception(BackendTimeout("the model did not answer within its deadline"))


def _deliver(future: asyncio.Future[list[NDArray[Any]]], result: list[NDArray[Any]] | BackendError) -> None:
    if future.done():
        return
    if isinstance(result, BackendError):
        future.set_exception(result)
    else:
        future.set_result(result)


def _checked(outputs: list[NDArray[Any]], names: list[str]) -> list[NDArray[Any]]:
    for name, values in zip(names, outputs, strict=True):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise BadOutput(f"output {name!r} of the model is not finite")
    return outputs
