"""A variant served over HTTP: one upstream or several replicas of it, and what is done when one of them fails.

A call goes to the replica with the fewest requests outstanding. One that keeps failing is left out for a while
(`outlier`), as is one that fails its health checks (`probe`) or has asked for a pause; but where none is left all of
them are asked, for there is nobody else. After a try that failed comes another only before anything of the answer has
been passed on, where the request may be repeated or nobody has heard of it, within budget and deadline (`retries`): to
another replica at once, to the same one after a moment. Other variants are nobody's business here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Protocol

from gateway.backends import retries
from gateway.backends.base import Answer, Request
from gateway.backends.faults import NoSlot
from gateway.backends.http import HttpBackend
from gateway.backends.outlier import Outlier
from gateway.backends.probe import Probe
from gateway.errors import BackendError, BackendUnavailable
from gateway.plan import CheckPlan

LONGEST_REST = 60.0  # seconds that a replica is left alone at most because it has asked for it
Came = Answer | BackendError  # what a try has come to


class Told(Protocol):
    """Who counts what happens in here; `upstream` is the base URL of a replica."""

    def retried(self, reason: str) -> None: ...

    def ejected(self, upstream: str) -> None: ...

    def available(self, upstream: str, available: bool) -> None: ...


@dataclass(slots=True, eq=False)
class Replica:
    """One address of the upstream, and how it has been doing."""

    backend: HttpBackend
    probe: Probe | None = None
    outlier: Outlier = field(default_factory=Outlier)
    rests_until: float = 0.0  # it has asked for a pause

    @property
    def name(self) -> str:
        return self.backend.url

    def usable(self, now: float) -> bool:
        healthy = self.probe is None or self.probe.health.healthy
        return healthy and now >= self.outlier.until and now >= self.rests_until


class Upstream:
    """A `Backend`. What it has learnt is one worker's."""

    def __init__(
        self,
        replicas: Sequence[HttpBackend],
        told: Told,
        *,
        most_retries: int = 1,
        check: CheckPlan | None = None,
        luck: Callable[[], float] = random.random,
    ) -> None:
        """`luck` gives numbers in [0, 1). With a `check` it needs a running loop, and has tasks until it is closed."""
        self.replicas = tuple(
            Replica(backend, None if check is None else Probe(backend, check, luck)) for backend in replicas
        )
        for replica in self.replicas:
            replica.backend.pool.streamed = partial(self._streamed, replica)
        self._only = self.replicas[0] if len(self.replicas) == 1 else None
        self._told = told
        self._most_retries = most_retries
        self._luck = luck
        self._budget = retries.RetryBudget()
        self._turn = 0

    def __repr__(self) -> str:
        return f"<Upstream {', '.join(replica.name for replica in self.replicas)}>"

    def may_repeat(self, request: Request) -> bool:
        """Whether it may be sent again when nobody knows what became of it."""
        return self.replicas[0].backend.may_repeat(request)

    def report(self) -> None:
        """Tell which replicas are in rotation now."""
        now = asyncio.get_running_loop().time()
        for replica in self.replicas:
            self._told.available(replica.name, replica.usable(now))

    async def call(self, request: Request, deadline: float, *, retry: bool = True) -> Answer:
        """As `Backend.call`; of the last try if there were several, which the answer or the error tells. A call that
        may not `retry` leaves the budget to the others."""
        if retry:
            self._budget.earn()
        replica = self._only or self._choose(None)
        came = await self._try(replica, request, deadline)
        if isinstance(came, Answer) and came.status < 500 and came.status != 429:
            return came
        tries = came.tries
        while retry and (pause := self._pause(request, deadline, replica, came, tries)) is not None:
            if isinstance(came, Answer) and came.rest is not None:
                came.rest.close()
            if pause:
                await asyncio.sleep(pause)
            self._told.retried(came.kind if isinstance(came, BackendError) else "status")
            replica = self._choose(replica)
            came = await self._try(replica, request, deadline)
            tries += came.tries
        came.tries = tries
        if isinstance(came, Answer):
            return came
        try:
            raise came
        finally:
            del came  # its traceback keeps this frame, which would keep it, and the request with both

    async def close(self) -> None:
        for replica in self.replicas:
            if replica.probe is not None:
                replica.probe.close()
            await replica.backend.close()

    async def _try(self, replica: Replica, request: Request, deadline: float) -> Came:
        try:
            answer = await replica.backend.call(request, deadline)
        except BackendError as failure:
            if not isinstance(failure, NoSlot):  # busy is not broken
                self._failed(replica)
            return failure
        if answer.status >= 500:
            self._failed(replica)
            if answer.status == 503 and self._only is None and (asked := retries.retry_after(answer.headers)):
                replica.rests_until = asyncio.get_running_loop().time() + min(asked, LONGEST_REST)
        elif answer.rest is None:  # else its end tells
            replica.outlier.success()
        return answer

    # -- another try

    def _pause(self, request: Request, deadline: float, failed: Replica, came: Came, tries: int) -> float | None:
        """Seconds until the request may be tried again; None if it may not."""
        now = asyncio.get_running_loop().time()
        unheard = isinstance(came, BackendUnavailable)
        if tries > self._most_retries or not (unheard or self.may_repeat(request)):
            return None
        other = any(one is not failed and one.usable(now) for one in self.replicas)
        pause: float | None = 0.0 if other else retries.backoff(tries, self._luck())
        if isinstance(came, Answer):
            asked = retries.retry_after(came.headers) if came.status in retries.BUSY else None
            if came.status == 429:
                pause = asked  # a quota is the same wherever it is asked for
            elif came.status not in retries.RETRIED:
                pause = None
            elif asked is not None and not other:
                pause = asked
        if pause is None or now + pause >= deadline or not self._budget.spend(now):
            return None
        return pause

    # -- the replicas

    def _choose(self, failed: Replica | None) -> Replica:
        """The one with the fewest requests outstanding of those in rotation, in turn where they are equal. After a
        failure another one, if there is any; where nobody is in rotation, one of those who are not."""
        if self._only is not None:
            return self._only
        replicas, number = self.replicas, len(self.replicas)
        self._turn = turn = (self._turn + 1) % number
        now = asyncio.get_running_loop().time()
        best, fewest = None, inf
        for place in range(turn - number, turn):
            replica = replicas[place]
            outstanding = replica.backend.pool.outstanding
            if outstanding < fewest and replica is not failed and replica.usable(now):
                best, fewest = replica, outstanding
                if not outstanding:
                    break
        if best is not None:
            return best
        if failed is not None and failed.usable(now):
            return failed
        others = [replica for replica in replicas if replica is not failed]
        return min(others, key=lambda replica: replica.backend.pool.outstanding)

    def _streamed(self, replica: Replica, well: bool) -> None:
        """A streamed answer of this replica has ended."""
        if well:
            replica.outlier.success()
        else:
            self._failed(replica)

    def _failed(self, replica: Replica) -> None:
        if self._only is None and replica.outlier.failure(asyncio.get_running_loop().time()):
            self._told.ejected(replica.name)
