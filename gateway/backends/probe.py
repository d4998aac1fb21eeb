"""Active health checks: one replica is asked for a path every few seconds, beside the traffic.

Until the first check a replica counts as healthy; the first one decides alone. Later it takes three failures in a row
to leave the rotation, and two successes to come back, so that one lost packet moves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from gateway.backends.base import Request
from gateway.backends.http import HttpBackend
from gateway.errors import BackendError, OutOfDescriptors
from gateway.plan import CheckPlan

UNHEALTHY, HEALTHY = 3, 2  # in a row


class Health:
    """What a row of checks says. Pure."""

    __slots__ = ("_row", "healthy")

    def __init__(self) -> None:
        self._row = -1  # results in a row that speak against `healthy`; -1 before the first
        self.healthy = True

    def heard(self, good: bool) -> None:
        if self._row < 0:
            self._row, self.healthy = 0, good
        elif good == self.healthy:
            self._row = 0
        else:
            self._row += 1
            if self._row >= (HEALTHY if good else UNHEALTHY):
                self._row, self.healthy = 0, good


class Probe:
    """The checks of one replica, from now on until it is closed. Needs a running loop."""

    def __init__(self, backend: HttpBackend, check: CheckPlan, luck: Callable[[], float]) -> None:
        self.health = Health()
        self._backend = backend
        self._check = check
        self._luck = luck
        self._request = Request(b"GET", check.path.encode(), [], whole=True)
        self._task = asyncio.get_running_loop().create_task(self._forever())

    def close(self) -> None:
        self._task.cancel()

    async def _forever(self) -> None:
        while True:
            if not self._backend.pool.full:  # an upstream that is busy answering is not asked how it is
                with suppress(OutOfDescriptors):
                    self.health.heard(await self._good())
            # Some earlier, some later, or all workers would ask at once.
            await asyncio.sleep(self._check.interval * (0.9 + 0.2 * self._luck()))

    async def _good(self) -> bool:
        try:
            answer = await self._backend.call(self._request, asyncio.get_running_loop().time() + self._check.timeout)
        except BackendError:
            return False
        return 200 <= answer.status < 300
