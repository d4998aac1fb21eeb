"""Models served in the process: one ONNX session and one thread per model.

The event loop hands tensors to the model's thread and waits for a future under a deadline; a hang therefore
holds up its own model only. A run is told to stop (`RunOptions.terminate`) when nobody waits for it any more,
and whatever waits behind it is refused as soon as its own deadline passes.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from gateway.backends.onnx.batching import Job, Outputs
from gateway.backends.onnx.deadlines import Deadlines
from gateway.backends.onnx.runner import Runner
from gateway.backends.onnx.session import open_session
from gateway.backends.onnx.signature import Tensors, signature_of
from gateway.backends.onnx.warm_up import warm_up
from gateway.errors import BackendUnavailable

log = logging.getLogger(__name__)

QUEUE_SIZE = 1024  # requests waiting for one model; beyond that they are refused at once
MAX_BATCH = 64  # rows: beyond that a run saves little more, and who came first waits for all of it
UNMARKED: AbstractContextManager[object] = nullcontext()


class OnnxModel:
    """A loaded and warm model. Load it off the loop (`OnnxModel(path)` blocks); call `infer` on one loop.

    A run has `threads` threads. Requests that wait share a run of at most `max_batch` rows, where none of them can
    notice (see `warm_up`); 1 turns that off. Runs for clients are made under `mark`, by one thread at a time. Raises
    ModelError if the file cannot be loaded or described.
    """

    def __init__(
        self,
        path: Path,
        threads: int = 1,
        max_batch: int = MAX_BATCH,
        mark: AbstractContextManager[object] = UNMARKED,
    ) -> None:
        session = open_session(path, threads)
        self.signature = signature_of(session, path)
        alone = warm_up(session, self.signature)
        if alone and max_batch > 1:
            log.info("%s: requests are run one by one: %s", path, alone)
        self.aside = asyncio.Lock()  # held by who runs a shadow copy: clients' requests wait behind one at most
        self._runner = Runner(session, path.stem, 1 if alone else max_batch, mark)
        self._deadlines = Deadlines(self._runner.stop_if_gone)
        self._arrived: list[Job] = []  # in this turn of the loop
        self._closed = False

    @property
    def runs(self) -> int:
        """How many runs there were for clients; fewer than requests where several shared one."""
        return self._runner.runs

    @property
    def waiting(self) -> int:
        """Requests that no run has taken yet, those that have expired among them."""
        return len(self._arrived) + self._runner.waiting

    async def infer(self, inputs: Tensors, deadline: float) -> Outputs:
        """Outputs in the order of the signature. `deadline` is loop time in seconds.

        Raises BackendTimeout at the deadline, BackendUnavailable when too many wait, BadOutput on NaN or
        infinity, BackendError when the model raises.
        """
        if self._closed:
            raise BackendUnavailable("the model was unloaded")
        # What has expired stays in the queue until the thread comes to it, and counts: a model that never
        # returns must not collect the requests of a whole night.
        if self.waiting >= QUEUE_SIZE:
            raise BackendUnavailable(f"{QUEUE_SIZE} requests already wait for this model")
        loop = asyncio.get_running_loop()
        job = Job(inputs, deadline, loop.create_future())
        self._deadlines.add(job)
        if not self._arrived:
            loop.call_soon(self._hand_over)
        self._arrived.append(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._runner.stop_if_gone()
            raise
        finally:
            self._deadlines.discard(job)

    def close(self) -> None:
        """Take no more calls and let the thread end after what already waits; does not block."""
        self._closed = True
        self._hand_over()
        self._deadlines.close()
        self._runner.close()

    def _hand_over(self) -> None:
        """At the end of a turn of the loop, so that what came in it shares a run: woken by the first request, the
        thread would take that alone, and contend with the loop for the interpreter once for each of the others.
        """
        arrived, self._arrived = self._arrived, []
        if arrived:
            self._runner.put(arrived)
