"""Everything that the control process forgets, in pieces between its rounds."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.clock import Clock
from gateway.config.schema import Config
from gateway.errors import LeaseLost
from gateway.evidence.engine import AnyEngine
from gateway.forgetting.erasure import Asked, Erasures, ask
from gateway.forgetting.retention import Retention
from gateway.store.keeping import Keeping
from gateway.telemetry import metrics
from gateway.telemetry.exposition import Sample


class Forgetting:
    """Erasure and retention of one node."""

    def __init__(self, config: Config, store: Keeping, pepper: str, clock: Clock) -> None:
        self._store = store
        self._pepper = bytes.fromhex(pepper)
        self._clock = clock
        self._kept_seconds = config.spool.keep
        self.retention = Retention(store, clock, config.retention.requests)
        self._erasures = Erasures(store, clock, self.retention.expired)

    def take(self, config: Config) -> None:
        """Keep to a config."""
        self._kept_seconds = config.spool.keep
        self.retention.keep_seconds = config.retention.requests

    def ask(self, unit: str, endpoint: str, actor: str, reason: str) -> Asked:
        """Have a unit erased; any node may take that in. Raises StoreError."""
        now = self._clock.wall_us()
        return ask(self._store, self._pepper, unit.encode(), endpoint, actor, reason, now, self._kept_seconds)

    def samples(self) -> Iterator[Sample]:
        yield metrics.DAYS_DROPPED, (), self.retention.dropped
        yield metrics.DAYS_OVERDUE, (), self.retention.remaining

    def tick(self, engine: AnyEngine) -> None:
        """Go on a little: on the node that leads, between two steps of its engine. Raises StoreError."""
        try:
            self._erasures.tick(engine)
            self.retention.tick(engine.seen_through)
        except LeaseLost:
            pass  # another node goes on
