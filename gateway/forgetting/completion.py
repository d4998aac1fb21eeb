"""When an erasure is complete: at its date, or when everything is here that is older than it.

A node may be away for longer than spools are kept, and bring the unit's requests when it is back: the row of an erasure
refuses them, so it stays for as long as some spool or node that is known has not shipped what it has from before. Who
never comes back would keep it for ever; but what is older than requests are kept goes again by itself as soon as it
comes, so by then the row goes, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from gateway.clock import Clock
from gateway.evidence.engine import AnyEngine
from gateway.store.base import Erasure
from gateway.store.keeping import Keeping

log = logging.getLogger(__name__)

AFTER_US: Final = 3_600_000_000  # a request may end so much later than it began
PAUSE: Final = 60.0  # seconds between two looks while something is missing


class Completion:
    """Drops the erasures that are complete. `expired` tells the time before which requests have gone by their age."""

    def __init__(self, store: Keeping, clock: Clock, expired: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._expired = expired
        self._look_at = clock.monotonic()
        self._told = False  # that something is missing

    def tick(self, erasures: Iterable[Erasure], engine: AnyEngine) -> None:
        """Raises StoreError."""
        now = self._clock.wall_us()
        over = [one for one in erasures if one.through and one.until <= now]
        if not over or self._clock.monotonic() < self._look_at:
            return
        complete = max(engine.complete_through - AFTER_US, self._expired())
        with self._store.transaction(leading=True):
            self._store.drop_erasures(now, complete)
        missing = sum(one.through > complete for one in over)
        if missing:
            self._look_at = self._clock.monotonic() + PAUSE
        if missing and not self._told:
            log.warning("%d erasures stay beyond their date: some spool or node has not shipped all of before", missing)
        self._told = missing > 0
