"""What a node does beside deciding, a little at a time: numbers of spools in advance, shipped files that may go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from gateway.clock import Clock
from gateway.config.schema import Config
from gateway.errors import StoreError
from gateway.numbers import SpoolNumbers
from gateway.spool.keeping import Keeper, Tidied
from gateway.store.base import Store
from gateway.store.cluster import SPOOLS
from gateway.telemetry import metrics
from gateway.telemetry.exposition import Sample

log = logging.getLogger(__name__)

TIDY = 10.0  # seconds between two looks at the spool folder
RESERVE = 32  # numbers of spools that a node keeps unused: workers are started also while the store is away


class Upkeep:
    """The chores of one node. A tick is bounded; what fails is tried again at the next look."""

    def __init__(self, config: Config, store: Store, clock: Clock, claim: Callable[[], int] | None) -> None:
        """`claim` gives the first of a block of numbers of spools; None where the node counts by itself."""
        self._store = store
        self._clock = clock
        self._claim = claim
        self._numbers = SpoolNumbers(config.data_dir)
        self._keeper = Keeper(config.data_dir / "spool", clock, config.spool.keep, config.spool.max_size)
        self._tidy_at = clock.monotonic()
        self.tidied = Tidied([], 0, 0)

    def take(self, config: Config) -> None:
        """The config in use has changed."""
        self._keeper.keep_seconds, self._keeper.max_bytes = config.spool.keep, config.spool.max_size

    def tick(self) -> None:
        """Raises StoreError."""
        self.grant()
        if self._clock.monotonic() >= self._tidy_at:
            self._tidy_at = self._clock.monotonic() + TIDY
            self._tidy()

    def grant(self) -> None:
        """See to it that workers can be started. Raises StoreError."""
        if self._claim is None:
            return
        try:
            if self._numbers.left < RESERVE:
                self._numbers.grant(self._claim(), SPOOLS)
        except (OSError, ValueError) as error:
            raise StoreError(f"numbers of spools cannot be kept: {error}") from error

    def samples(self) -> Iterator[Sample]:
        """As of the last look."""
        tidied = self.tidied
        yield metrics.WAL, (), self._store.wal_bytes
        yield metrics.SPOOL_BYTES, ("shipped",), tidied.bytes - tidied.unshipped
        yield metrics.SPOOL_BYTES, ("waiting",), tidied.unshipped

    def _tidy(self) -> None:
        try:
            cursors = self._store.streams()
            with self._store.transaction(durable=True):
                # The disk of the store has what was shipped once somebody waits for that; no file may go sooner.
                self._store.count("", "", "tidied", 1)
            self.tidied = self._keeper.tidy(cursors)
        except OSError as error:
            log.warning("the spools cannot be tidied: %s", error)
