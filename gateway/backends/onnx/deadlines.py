"""One timer for all requests that wait for a model, set to the earliest deadline.

A timer for each would cost more than a small model's run, and hardly any of them would ever fire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.backends.onnx.batching import Job
from gateway.errors import BackendTimeout
from gateway.timer import LazyTimer


class Deadlines:
    """Fails jobs at their deadlines and tells `expired` so. On one loop only, that of the first job."""

    def __init__(self, expired: Callable[[], None]) -> None:
        self._expired = expired
        self._jobs: set[Job] = set()
        self._timer: LazyTimer | None = None

    def add(self, job: Job) -> None:
        self._jobs.add(job)
        if self._timer is None:
            self._timer = LazyTimer(asyncio.get_running_loop(), self._look)
        self._timer.wake(job.deadline)

    def discard(self, job: Job) -> None:
        """The timer stays: the next request, with a later deadline, will find it set."""
        self._jobs.discard(job)

    def close(self) -> None:
        """No job will be added; those that wait still expire."""
        if self._timer is not None and not self._jobs:
            self._timer.close()

    def _look(self, now: float) -> float | None:
        late = [job for job in self._jobs if job.deadline <= now]
        for job in late:
            self._jobs.discard(job)
            if not job.gone:
                job.future.set_exception(BackendTimeout("the model did not answer within its deadline"))
        if late:
            self._expired()
        return min([job.deadline for job in self._jobs], default=None)
