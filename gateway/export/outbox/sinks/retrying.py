"""The same batch again, until the other side has taken it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from gateway.clock import Clock
from gateway.export.outbox.sinks import SinkUnavailable, Stopped
from gateway.export.outbox.waiting import Waiter

_FIRST, _LONGEST = 0.5, 60.0  # seconds between two tries, before jitter
_MOST_ASKED = 3600.0  # seconds that the other side may ask for


class Failure(NamedTuple):
    """Why a batch was not taken now."""

    said: str
    after: float | None = None  # seconds, where the other side asks for them


class Retrying(NamedTuple):
    """How long the same batch is tried, and what tells of it."""

    clock: Clock
    waiter: Waiter
    patience: float | None  # seconds; None: for ever
    tell: Callable[[str], None] = lambda _: None
    jitter: Callable[[], float] = random.random  # in [0, 1)

    def until_taken(self, place: str, attempt: Callable[[], Failure | None]) -> None:
        """Raises SinkUnavailable when patience is at its end, Stopped; and whatever `attempt` raises."""
        began, tries = self.clock.monotonic(), 0
        while (why := attempt()) is not None:
            tries += 1
            pause = self._pause(tries, why.after)
            if self.patience is not None and self.clock.monotonic() + pause - began > self.patience:
                raise SinkUnavailable(f"{place}: {why.said}; given up after {tries} tries")
            self.tell(f"{place}: {why.said}; again in {pause:.1f} s")
            if self.waiter.wait(pause):
                raise Stopped

    def _pause(self, tries: int, asked: float | None) -> float:
        """Never before the other side wants it; those who failed together do not come back together."""
        backoff = min(_FIRST * 2.0 ** min(tries - 1, 20), _LONGEST) * (0.5 + 0.5 * self.jitter())
        return backoff if asked is None else max(min(asked, _MOST_ASKED), backoff)
