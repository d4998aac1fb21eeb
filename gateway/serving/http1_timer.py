"""A timer for deadlines that are mostly put off: it is moved only when it fires or when an earlier one comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

TICK = 0.001  # the resolution of the loop's timers: nearer than this is now


class LazyTimer:
    __slots__ = ("_expired", "_handle", "_handle_at", "_loop", "deadline")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._handle: asyncio.TimerHandle | None = None
        self._handle_at = inf
        self.deadline = inf  # the loop's seconds; inf while nothing is awaited

    def set(self, seconds: float) -> None:
        """Expire in so many seconds from now, and not when it was to expire before."""
        self.deadline = deadline = self._loop.time() + seconds
        if deadline < self._handle_at:
            self._arm(deadline)

    def clear(self) -> None:
        self.deadline = inf

    def close(self) -> None:
        """It will not expire any more, and holds nobody."""
        self.deadline = self._handle_at = inf
        if self._handle is not None:
            self._handle.cancel()
        del self._handle, self._expired

    def _arm(self, deadline: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle_at = deadline
        self._handle = self._loop.call_at(deadline, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self._handle_at = inf
        if self.deadline - self._loop.time() > TICK:
            if self.deadline < inf:
                self._arm(self.deadline)
        else:
            self.deadline = inf
            self._expired()
