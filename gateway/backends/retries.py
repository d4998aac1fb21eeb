"""Whether a request may be tried again, and how long to wait before. Pure: times are arguments.

A retry multiplies load just when an upstream has too much of it, so retries draw on a budget: a fifth of the requests,
and ten a second for upstreams that get few (of each worker).
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.backends.base import Headers

SHARE = 0.2  # of the requests
RATE = 10.0  # a second, on top
BURST = 100.0  # retries that a calm time may save up
BACKOFF = 0.025  # seconds before the second try of one replica, then twice as long each time
RETRIED = frozenset((502, 503, 504))  # statuses after which another try may help
BUSY = frozenset((429, 503))  # statuses that may say when


class RetryBudget:
    """How many retries one upstream gets."""

    __slots__ = ("_at", "_floor", "_saved")

    def __init__(self) -> None:
        self._saved = 0.0  # from requests
        self._floor = RATE  # of this second
        self._at = 0.0

    def __repr__(self) -> str:
        return f"<RetryBudget {self._saved:.1f} saved, {self._floor:.1f} by the second>"

    def earn(self) -> None:
        """A request has come."""
        if self._saved < BURST:
            self._saved += SHARE

    def spend(self, now: float) -> bool:
        """Take a retry out of the budget; False if there is none left."""
        self._floor = min(RATE, self._floor + RATE * (now - self._at))
        self._at = now
        if self._floor >= 1.0:
            self._floor -= 1.0
        elif self._saved >= 1.0:
            self._saved -= 1.0
        else:
            return False
        return True


def backoff(tries: int, luck: float) -> float:
    """Seconds before the next try of the same replica after so many; `luck` in [0, 1) keeps callers apart."""
    return BACKOFF * 2.0 ** (tries - 1) * (0.5 + luck)


def retry_after(headers: Headers) -> float | None:
    """Seconds that the answer asks to wait (RFC 9110 10.2.3); None if it does not. A date is taken relative to the
    answer's own, so that no clock of ours is compared with the upstream's."""
    fields = dict(headers)
    value = fields.get(b"retry-after", b"").strip()
    if value.isdigit() and len(value) < 10:
        return float(value)
    try:
        then = parsedate_to_datetime(value.decode("latin-1"))
        return max(0.0, (then - parsedate_to_datetime(fields[b"date"].decode("latin-1"))).total_seconds())
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
