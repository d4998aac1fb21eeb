"""When to stop asking a challenger: three failures in a row, then one probe at a time.

Pure and synchronous. Every call that `allow` let through must be reported exactly once, by `success`,
`failure` or `abandon` (cancelled: it says nothing about the backend).

Reports carry no name, so calls from before the opening that end late cannot be told from the probe. Of the
failures and cancellations that arrive while a probe is out, the last one home counts as the probe's: no
second probe leaves while the first may still be out. A success closes at once, whoever brings it: the backend
answers again.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

State: TypeAlias = Literal["closed", "open", "half_open"]


class Breaker:
    __slots__ = ("_failures", "_out", "_pause", "_probing", "_retry_at", "_threshold", "state")

    def __init__(self, threshold: int = 3, pause: float = 5.0) -> None:
        self._threshold = threshold
        self._pause = pause
        self._failures = 0  # in a row, while closed
        self._out = 0  # calls let through and not yet reported
        self._probing = False
        self._retry_at = 0.0
        self.state: State = "closed"

    def __repr__(self) -> str:
        return f"<Breaker {self.state}, {self._failures} failures, {self._out} out>"

    def allow(self, now: float) -> bool:
        """Whether to send a call; after the pause, the one that is sent is the probe."""
        if self.state != "closed":
            if self._probing or now < self._retry_at:
                return False
            self.state = "half_open"
            self._probing = True
        self._out += 1
        return True

    def success(self) -> None:
        self._out -= 1
        if self.state == "open":
            return  # sent before the opening
        self.state = "closed"
        self._probing = False
        self._failures = 0

    def failure(self, now: float) -> None:
        self._out -= 1
        if self.state == "closed":
            self._failures += 1
            if self._failures >= self._threshold:
                self._open(now)
        elif self._probing and self._out <= 0:
            self._open(now)

    def abandon(self) -> None:
        """Give back a place that will bring no verdict; the next call allowed is the probe again."""
        self._out -= 1
        if self._probing and self._out <= 0:
            self._probing = False

    def _open(self, now: float) -> None:
        self.state = "open"
        self._probing = False
        self._failures = 0
        self._retry_at = now + self._pause
