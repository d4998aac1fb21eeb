"""One timer for all requests that wait for a model, set to the earliest deadline.

A timer for each would cost more than a small model's run, and hardly any of them would ever fire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

from gateway.backends.onnx.batching import Job
from gateway.errors import BackendTimeout

_TICK = 0.001  # seconds between two looks: a thousand deadlines in one millisecond are one look


class Deadlines:
    """Fails jobs at their deadlines and tells `expired` so. On the loop only."""

    def __init__(self, expired: Callable[[], None]) -> None:
        self._expired = expired
        self._jobs: set[Job] = set()
        self._due = inf
        self._timer: asyncio.TimerHandle | None = None

    def add(self, job: Job) -> None:
        self._jobs.add(job)
        if job.deadline < self._due:
            self._arm(job.deadline)

    def discard(self, job: Job) -> None:
        """The timer stays: the next request, with a later deadline, will find it set."""
        self._jobs.discard(job)

    def close(self) -> None:
        if not self._jobs:
            self._disarm()

    def _arm(self, due: float) -> None:
        self._disarm()
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._look)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, inf

    def _look(self) -> None:
        self._disarm()
        now = asyncio.get_running_loop().time()
        late = [job for job in self._jobs if job.deadline <= now]
        for job in late:
            self._jobs.discard(job)
            if not job.gone:
                job.future.set_exception(BackendTimeout("the model did not answer within its deadline"))
        if self._jobs:
            self._arm(max(min(job.deadline for job in self._jobs), now + _TICK))
        if late:
            self._expired()
