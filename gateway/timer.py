"""Timers that are set far more often than they fire: the loop's own is moved only when it fires or when an earlier
time comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

TICK = 0.001  # the resolution of the loop's timers: nearer than this is now


class LazyTimer:
    """Calls `due(now)` at the earliest time that it was set to. `due` says when to look again, None for not until the
    timer is set. Times are the loop's seconds."""

    __slots__ = ("_at", "_due", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Callable[[float], float | None]) -> None:
        self._loop = loop
        self._due = due
        self._handle: asyncio.TimerHandle | None = None
        self._at = inf  # when the loop's timer fires; inf while there is none

    def wake(self, at: float) -> None:
        """Look at `at`, or before."""
        if at < self._at:
            self._arm(at)

    def close(self) -> None:
        """For good; `due`, a bound method of the owner, is let go."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._at = -inf  # nothing is earlier
        self._due = _never

    def _arm(self, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._at = at
        self._handle = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self._at = inf
        again = self._due(self._loop.time() + TICK)
        if again is not None:
            self._arm(again)


class Deadline(LazyTimer):
    """Calls `expired()` when the time that was set last is over, once."""

    __slots__ = ("_end", "_expired")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        super().__init__(loop, self._look)
        self._expired = expired
        self._end = inf  # inf while nothing is awaited

    def set(self, seconds: float) -> None:
        """Expire in so many seconds from now, and not when it was to expire before."""
        self._end = end = self._loop.time() + seconds
        if end < self._at:
            self._arm(end)

    def clear(self) -> None:
        self._end = inf

    def left(self) -> float:
        """Seconds until it expires."""
        return self._end - self._loop.time()

    def close(self) -> None:
        super().close()
        self._expired = _nothing

    def _look(self, now: float) -> float | None:
        if self._end <= now:
            self._end = inf
            self._expired()
        return None if self._end == inf else self._end


def _never(_: float) -> None:
    return None


def _nothing() -> None:
    return None
