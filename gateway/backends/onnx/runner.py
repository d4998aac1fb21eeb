"""A model's thread: it takes all that waits, runs it at once, and goes back for more.

Nothing is waited for to fill a batch: a request that finds the thread idle is run alone, and those that come while it
runs share the next run. Whatever a shared run does not answer cleanly is run again alone, once, so that no request
is failed for what its neighbours sent.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import onnxruntime as ort

from gateway.backends.onnx.batching import Job, Outputs, grouped, merged, not_finite, split
from gateway.backends.onnx.session import first_line, give_memory_back
from gateway.errors import BackendError, BadOutput

# Elements that may go into a shared run: 4 MiB of float32. Activations are a multiple of that, and requests as large
# as these gain nothing by company.
SHARED = 1 << 20

Result = Outputs | BackendError


@dataclass(slots=True)
class _Run:
    jobs: Sequence[Job]
    options: ort.RunOptions = field(default_factory=ort.RunOptions)

    @property
    def gone(self) -> bool:
        return all(job.gone for job in self.jobs)


class Runner:
    """Owns the session from the first request on; `put`, `waiting`, `stop_if_gone` and `close` are for the loop."""

    def __init__(self, session: ort.InferenceSession, name: str, max_batch: int) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._max_batch = max_batch  # rows of one run of several requests
        self.runs = 0
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._taken: deque[Job | None] = deque()  # off the queue, but not yet in a run
        self._running: _Run | None = None
        self.thread = threading.Thread(target=self._work, name=f"onnx {name}", daemon=True)
        self.thread.start()

    @property
    def waiting(self) -> int:
        return self._jobs.qsize() + len(self._taken)

    def put(self, job: Job) -> None:
        self._jobs.put(job)

    def stop_if_gone(self) -> None:
        """Stop the run that is under way if nobody waits for it any more."""
        run = self._running
        if run is not None and run.gone:
            run.options.terminate = True

    def close(self) -> None:
        """Let the thread end after what already waits, and take the model's memory with it; does not block."""
        self._jobs.put(None)

    def _work(self) -> None:
        while self._serve():
            pass  # no tensor outlives the call
        del self._session
        give_memory_back()

    def _serve(self) -> bool:
        """Answer what waits; False at the end."""
        jobs = self._take()
        if jobs is None:
            return False
        for group in grouped(jobs):
            self._answer(group)
        return True

    def _take(self) -> list[Job] | None:
        """What waits and fits into a run, or one request of any size; blocks while nothing waits. None at the end."""
        taken = self._fetched()
        first = taken.popleft()
        if first is None:
            return None
        jobs = [first, *self._company(first)] if taken else [first]
        return [job for job in jobs if not job.gone]

    def _company(self, first: Job) -> Iterator[Job]:
        """Those next in line, as far as there is room for them in one run."""
        rows, elements = first.rows, first.elements
        while self._taken and (job := self._taken[0]) is not None:
            rows, elements = rows + job.rows, elements + job.elements
            if rows > self._max_batch or elements > SHARED:
                return
            self._taken.popleft()
            yield job

    def _fetched(self) -> deque[Job | None]:
        """Only this thread takes from the queue, so what is counted is there."""
        if not self._taken:
            self._taken.append(self._jobs.get())
        for _ in range(self._jobs.qsize()):
            self._taken.append(self._jobs.get())
        return self._taken

    def _answer(self, jobs: list[Job]) -> None:
        results = list(zip(jobs, self._run(jobs), strict=True))
        if len(jobs) == 1:
            _deliver(results)
            return
        _deliver([(job, result) for job, result in results if not isinstance(result, BackendError)])
        for job, result in results:
            if isinstance(result, BackendError) and not job.gone:
                self._answer([job])

    def _run(self, jobs: list[Job]) -> list[Result]:
        run = self._running = _Run(jobs)
        self.stop_if_gone()  # who left before the line above could not stop it
        self.runs += 1
        try:
            outputs = self._session.run(self._outputs, merged(jobs), run.options)
            shares = split(outputs, jobs)
        except Exception as error:
            return [BackendError(f"the model raised: {first_line(error)}")] * len(jobs)
        finally:
            self._running = None
        return list(shares) if not_finite(outputs) is None else [self._checked(share) for share in shares]

    def _checked(self, outputs: Outputs) -> Result:
        place = not_finite(outputs)
        return outputs if place is None else BadOutput(f"output {self._outputs[place]!r} of the model is not finite")


def _deliver(results: list[tuple[Job, Result]]) -> None:
    """All of a run in one step: waking the loop costs more than a small model's run."""
    if not results:
        return
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        results[0][0].future.get_loop().call_soon_threadsafe(_settle, results)


def _settle(results: list[tuple[Job, Result]]) -> None:
    for job, result in results:
        if job.gone:
            continue
        if isinstance(result, BackendError):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
