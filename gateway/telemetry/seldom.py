"""Log lines about what may happen a thousand times a second: one an interval of each kind, and how many were left
out."""

from __future__ import annotations

from collections.abc import Hashable

INTERVAL = 1.0  # seconds
MOST = 1024  # kinds to remember


class Seldom:
    """Times are seconds of the caller's monotonic clock."""

    __slots__ = ("_interval", "_kinds")

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval  # seconds
        self._kinds: dict[Hashable, tuple[float, int]] = {}  # when it was said last, and how often not since

    def due(self, kind: Hashable, now: float) -> int | None:
        """None if this is not to be said; else how many of its kind were left out since the last that was."""
        said, left_out = self._kinds.get(kind, (now - self._interval, 0))
        if now - said < self._interval:
            self._kinds[kind] = said, left_out + 1
            return None
        if len(self._kinds) >= MOST:
            self._kinds.clear()
        self._kinds[kind] = now, 0
        return left_out
