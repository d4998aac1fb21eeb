"""A timer that is set far more often than it fires: once per request, or per piece of a stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TICK = 0.001  # the resolution of the loop's timers: nearer than this is now


class LazyTimer:
    """Calls `due(now)` at the earliest time it was set to, or before the one that counts now: it is moved only
    when it fires or when an earlier time comes. `due` returns when to look again, None for not until it is set."""

    __slots__ = ("_at", "_due", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Callable[[float], float | None]) -> None:
        self._loop = loop
        self._due = due
        self._handle: asyncio.TimerHandle | None = None
        self._at = 0.0

    def set(self, at: float) -> None:
        if self._handle is None or at < self._at:
            self._arm(at)

    def close(self) -> None:
        """For good; `due`, a bound method of the owner, is let go."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._due = _never

    def _arm(self, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._at = at
        self._handle = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._handle = None
        again = self._due(self._loop.time() + TICK)
        if again is not None:
            self._arm(again)


def _never(_: float) -> None:
    return None
