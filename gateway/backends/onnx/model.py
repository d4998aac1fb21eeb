"""Models served in the process: one ONNX session and one thread per model.

The event loop hands tensors to the model's thread and waits for a future under a deadline; a hang therefore
holds up its own model only. At the deadline the running call is told to stop (`RunOptions.terminate`), and
whatever waits behind it is refused as soon as its own deadline passes.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from gateway.backends.onnx.session import open_session
from gateway.backends.onnx.signature import Tensors, signature_of
from gateway.errors import BackendError, BackendTimeout, BackendUnavailable, BadOutput

QUEUE_SIZE = 1024  # requests waiting for one model; beyond that they are refused at once
WARM_UP = 5.0  # seconds that a model may take for its first run


@dataclass(slots=True)
class _Job:
    inputs: Tensors
    future: asyncio.Future[list[NDArray[Any]]]
    options: ort.RunOptions


class OnnxModel:
    """A loaded model. Load it off the loop (`OnnxModel(path)` blocks); call `infer` on the loop."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)
        self.signature = signature_of(self._session, path)
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
