"""Time as an argument: wall clock for records, monotonic clock for durations.

Whatever needs time takes a `Clock`; nothing in the package calls `time.time()` itself, so that a test can
drive a whole experiment through a `FakeClock` without sleeping.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def wall_us(self) -> int:
        """Microseconds since the Unix epoch, for records that people and other machines read."""

    def monotonic(self) -> float:
        """Seconds that never go back, for durations and deadlines."""


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


class FakeClock:
    """A clock that moves only when told to; both readings advance together."""

    __slots__ = ("_monotonic", "_wall_us")

    def __init__(self, wall_us: int = 1_700_000_000_000_000, monotonic: float = 1000.0) -> None:
        self._wall_us = wall_us
        self._monotonic = monotonic

    def wall_us(self) -> int:
        return self._wall_us

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward; a negative step is refused because monotonic time has none."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back {seconds} s")
        self._wall_us += round(seconds * 1e6)
        self._monotonic += seconds
