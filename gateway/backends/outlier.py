"""When to leave a replica of an upstream out: some failures in a row, for a while that grows each time.

Pure. What may be left out at all is decided by who chooses among the replicas: never all of them. After the pause the
replica is on probation: one more failure and it is out again, one success and it is as good as any.
"""

from __future__ import annotations

THRESHOLD = 5  # failures in a row, as in Envoy's consecutive_5xx
PAUSE = 5.0  # seconds out of rotation the first time, then twice as long each time
LONGEST = 60.0


class Outlier:
    __slots__ = ("_failures", "_longest", "_pause", "_threshold", "_times", "until")

    def __init__(self, threshold: int = THRESHOLD, pause: float = PAUSE, longest: float = LONGEST) -> None:
        self._threshold = threshold
        self._pause = pause
        self._longest = longest
        self._failures = 0  # in a row
        self._times = 0  # out of rotation since it last did well
        self.until = 0.0  # out of rotation up to this time

    def __repr__(self) -> str:
        return f"<Outlier {self._failures} failures, out {self._times} times, until {self.until:g}>"

    def success(self) -> None:
        """A late success of a request from before the pause does not end it: it only counts for afterwards."""
        self._failures = self._times = 0

    def failure(self, now: float) -> bool:
        """True if the replica is out from now on. Failures during the pause are of requests sent before, or of such
        as had no other replica to go to."""
        if now < self.until:
            return False
        self._failures += 1
        if self._failures < (1 if self._times else self._threshold):
            return False
        self.until = now + min(self._longest, self._pause * 2**self._times)
        self._times = min(self._times + 1, 16)
        self._failures = 0
        return True
