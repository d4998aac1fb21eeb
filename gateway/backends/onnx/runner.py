"""Runs requests: small models' on the loop's own thread, all others on a thread of the model's.

Nothing is waited for to fill a batch: a request that finds the model idle is run alone, and those that come while it
runs, or in one turn of the loop, share the next run. Whatever a shared run does not answer cleanly is run again alone,
once, so that no request is failed for what its neighbours sent.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import onnxruntime as ort

from gateway.backends.onnx.batching import Job, Outputs, Run, grouped, merged, not_finite, split, taken
from gateway.backends.onnx.session import first_line, give_memory_back
from gateway.backends.onnx.watchdog import Watchdog
from gateway.errors import BackendError, BadOutput

log = logging.getLogger(__name__)

HELD = 0.002  # seconds that runs may hold the loop in one of its turns; the rest goes to the thread

Result = Outputs | BackendError
Results = list[tuple[Job, Result]]


class Runner:
    """Owns the session from the first request on. All but the thread's own methods are for the loop.

    Runs have at most `max_batch` rows, if they are of several requests; those of at most `rows_here` rows are made on
    the loop, until one of them has taken too long. The watchdog stops that one, and the model leaves the loop for good.
    """

    def __init__(self, session: ort.InferenceSession, name: str, max_batch: int, rows_here: int) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._max_batch = max_batch
        self._rows_here = rows_here
        self._name = name
        self._watchdog: Watchdog | None = None
        self.runs = 0
        self._put = self._begun = 0  # requests that the thread was given, and has taken into a run
        self._jobs: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._running: Run | None = None
        self.thread = threading.Thread(target=self._work, name=f"onnx {name}", daemon=True)
        self.thread.start()

    @property
    def waiting(self) -> int:
        return self._put - self._begun

    @property
    def on_loop(self) -> bool:
        """Whether small requests are run on the loop's thread."""
        return self._rows_here > 0

    def put(self, jobs: list[Job]) -> None:
        """Run them; those that can be run on the loop are answered when this returns."""
        if self._rows_here:
            jobs = self._run_here(deque([job for job in jobs if not job.gone]))
        if jobs:
            self._put += len(jobs)
            self._jobs.put(jobs)

    def stop_if_gone(self) -> None:
        """Stop the run that is under way if nobody waits for it any more."""
        if (run := self._running) is not None:
            run.stop_if_gone()

    def close(self) -> None:
        """Let the thread end after what already waits, and take the model's memory with it; does not block."""
        if self._watchdog is not None:
            self._watchdog.close()
        self._jobs.put(None)

    def _run_here(self, waiting: deque[Job]) -> list[Job]:
        """Answers what it can; tells what is left for the thread."""
        end = time.monotonic() + HELD
        left: list[Job] = []
        while waiting and self._rows_here and time.monotonic() < end:
            jobs = taken(waiting, min(self._max_batch, self._rows_here))
            if jobs[0].rows > self._rows_here:
                left += jobs
                continue
            for group in grouped(jobs):
                left += self._answer(group, self._watched, _settle)
        return [*left, *waiting]

    def _watched(self, jobs: list[Job]) -> list[Result] | None:
        """The results of a run on the loop; None if it was stopped, or the one before it."""
        if not self._rows_here:
            return None
        if self._watchdog is None:
            self._watchdog = Watchdog(self._name)
        run = Run(jobs)
        with self._watchdog.watched(run):
            results = self._run(run)
        if not run.stopped:
            return results
        self.runs -= 1
        self._rows_here = 0
        self._watchdog.close()
        return None

    def _work(self) -> None:
        while self._serve(deque()):
            pass  # no tensor outlives the call
        del self._session
        give_memory_back()

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
                    self._answer(group, self._stoppable, _deliver)
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

    def _answer(
        self, jobs: list[Job], run: Callable[[list[Job]], list[Result] | None], tell: Callable[[Results], None]
    ) -> list[Job]:
        """Run and tell; the jobs whose run was not brought to its end."""
        results = run(jobs)
        if results is None:
            return jobs
        told = list(zip(jobs, results, strict=True))
        if len(jobs) == 1:
            tell(told)
            return []
        tell([(job, result) for job, result in told if not isinstance(result, BackendError)])
        left: list[Job] = []
        for job, result in told:
            if isinstance(result, BackendError) and not job.gone:
                left += self._answer([job], run, tell)
        return left

    def _run(self, run: Run) -> list[Result]:
        self.runs += 1
        try:
            outputs = self._session.run(self._outputs, merged(run.jobs), run.options)
            shares = split(outputs, run.jobs)
            return [*shares] if not_finite(outputs) is None else [self._checked(share) for share in shares]
        except Exception as error:
            return [BackendError(f"the model raised: {first_line(error)}")] * len(run.jobs)

    def _checked(self, outputs: Outputs) -> Result:
        place = not_finite(outputs)
        return outputs if place is None else BadOutput(f"output {self._outputs[place]!r} of the model is not finite")


def _deliver(results: Results) -> None:
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
