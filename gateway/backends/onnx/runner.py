"""Runs requests on a thread of the model's.

Nothing is waited for to fill a batch: a request that finds the model idle is run alone, and those that come while it
runs, or in one turn of the loop, share the next run. Whatever a shared run does not answer cleanly is run again alone,
once, so that no request is failed for what its neighbours sent.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress

import onnxruntime as ort

from gateway import memory
from gateway.backends.onnx.batching import Job, Outputs, Run, grouped, merged, not_finite, split, taken
from gateway.backends.onnx.session import first_line
from gateway.errors import BackendError, BadOutput

log = logging.getLogger(__name__)

Result = Outputs | BackendError


class Runner:
    """Owns the session from the first request on. All but the thread's own methods are for the loop.

    Runs have at most `max_batch` rows, if they are of several requests. Native code runs under `mark`.
    """

    def __init__(
        self, session: ort.InferenceSession, name: str, max_batch: int, mark: AbstractContextManager[object]
    ) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._max_batch = max_batch
        self._name = name
        self._mark = mark
        self.runs = 0
        self._put = self._begun = 0  # requests that the thread was given, and has taken into a run
        self._jobs: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._running: Run | None = None
        self.thread = threading.Thread(target=self._work, name=f"onnx {name}", daemon=True)
        self.thread.start()

    @property
    def waiting(self) -> int:
        return self._put - self._begun

    def put(self, jobs: list[Job]) -> None:
        self._put += len(jobs)
        self._jobs.put(jobs)

    def stop_if_gone(self) -> None:
        """Stop the run that is under way if nobody waits for it any more."""
        if (run := self._running) is not None:
            run.stop_if_gone()

    def close(self) -> None:
        """Let the thread end after what already waits, and take the model's memory with it; does not block."""
        self._jobs.put(None)

    def _work(self) -> None:
        while self._serve(deque()):
            pass  # no tensor outlives the call
        del self._session
        memory.give_back()

    def _serve(self, waiting: deque[Job]) -> bool:
        """Answer what the queue holds and what comes meanwhile; blocks while that is nothing. False at the end."""
        goes_on = self._fetch(waiting)
        while waiting:
            while goes_on and self._jobs.qsize():  # only this thread takes from it, so what is counted is there
                goes_on = self._fetch(waiting)
            jobs = taken(waiting, self._max_batch)
            self._begun += len(jobs)
            try:
                for group in grouped([job for job in jobs if not job.gone]):
                    self._answer(group)
            except Exception as error:  # without its thread the model would never answer again
                log.exception("%s: a run failed outside of the model", self._name)
                _deliver([(job, BackendError(f"the run failed: {first_line(error)}")) for job in jobs])
        return goes_on

    def _fetch(self, waiting: deque[Job]) -> bool:
        jobs = self._jobs.get()
        waiting += jobs or []
        return jobs is not None

    def _stoppable(self, jobs: list[Job]) -> list[Result]:
        run = self._running = Run(jobs)
        run.stop_if_gone()  # who left before the line above could not stop it
        try:
            return self._run(run)
        finally:
            self._running = None

    def _answer(self, jobs: list[Job]) -> None:
        told = list(zip(jobs, self._stoppable(jobs), strict=True))
        if len(jobs) == 1:
            _deliver(told)
            return
        _deliver([(job, result) for job, result in told if not isinstance(result, BackendError)])
        for job, result in told:
            if isinstance(result, BackendError) and not job.gone:
                self._answer([job])

    def _run(self, run: Run) -> list[Result]:
        self.runs += 1
        try:
            inputs = merged(run.jobs)
            with self._mark:
                outputs = self._session.run(self._outputs, inputs, run.options)
            shares = split(outputs, run.jobs)
            return [*shares] if not_finite(outputs) is None else [self._checked(share) for share in shares]
        except Exception as error:
            return [BackendError(f"the model raised: {first_line(error)}")] * len(run.jobs)

    def _checked(self, outputs: Outputs) -> Result:
        place = not_finite(outputs)
        return outputs if place is None else BadOutput(f"output {self._outputs[place]!r} of the model is not finite")


def _deliver(results: Sequence[tuple[Job, Result]]) -> None:
    """All of a run in one step: waking the loop costs more than a small model's run."""
    if not results:
        return
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        results[0][0].future.get_loop().call_soon_threadsafe(_settle, results)


def _settle(results: Sequence[tuple[Job, Result]]) -> None:
    for job, result in results:
        if job.gone:
            continue
        if isinstance(result, BackendError):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
