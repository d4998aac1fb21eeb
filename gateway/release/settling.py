"""From what a file asks for to what has happened: written down by whoever may, served from as far as it is written.

The only node writes at once. Of several the leader does, once all of them have the file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from gateway.clock import Clock
from gateway.config.load import LoadedConfig
from gateway.errors import ConfigError
from gateway.evidence.engine import AnyEngine
from gateway.release.artifacts import Artifacts
from gateway.release.journal import Basis, Journal
from gateway.release.reconcile import Reconciled, Row, reconcile
from gateway.release.runs import Run
from gateway.release.standing import Standing, standing
from gateway.release.state import ReleaseState
from gateway.store.base import Store

log = logging.getLogger(__name__)


class Settling:
    """The config in use, and how far the store has followed it."""

    def __init__(
        self, loaded: LoadedConfig, artifacts: Artifacts, journal: Journal, store: Store, clock: Clock
    ) -> None:
        self.loaded = loaded
        self.artifacts = artifacts
        self._journal = journal
        self._store = store
        self._clock = clock
        self._standing = Standing({}, frozenset())
        self._refused = ""
        self.settled = False

    @property
    def states(self) -> Mapping[str, ReleaseState]:
        """Of every endpoint of the file, and of those that the store still remembers."""
        return self._journal.states if self.settled else self._standing.states

    @property
    def pinned(self) -> frozenset[str]:
        """Endpoints that stay as the plan on disk has them."""
        return frozenset() if self.settled else self._standing.pinned

    def take(self, loaded: LoadedConfig, artifacts: Artifacts, engine: AnyEngine) -> None:
        """Use a config. Raises ConfigError if it contradicts what has happened; then nothing has changed."""
        wanted = self._wanted(loaded, artifacts, engine)
        self.loaded, self.artifacts, self._refused = loaded, artifacts, ""
        self._stand(wanted)

    def look(self, engine: AnyEngine) -> None:
        """The store has moved: what of the config is written down by now."""
        try:
            self._stand(self._wanted(self.loaded, self.artifacts, engine))
        except ConfigError as error:
            self.pin(self.loaded, self.artifacts, error)

    def pin(self, loaded: LoadedConfig, artifacts: Artifacts, error: ConfigError) -> None:
        """What has happened contradicts a config that is in use: endpoints that it concerns stay as they are served."""
        self.loaded, self.artifacts = loaded, artifacts
        self.settled, self._standing = False, standing(loaded.config, self._journal.states, {})
        if str(error) != self._refused:
            self._refused = str(error)
            log.error("the config in use contradicts what has happened:\n%s", error)

    def write(
        self, loaded: LoadedConfig, artifacts: Artifacts, engine: AnyEngine, basis: Basis, runs: Mapping[str, Run]
    ) -> list[Row]:
        """Write down what follows from a config, in one transaction; returns the rows of the ledger.

        Raises ConfigError if it contradicts what has happened, StoreError if it cannot be written; after that one the
        engine's memory may be ahead of the store.
        """
        result = self._wanted(loaded, artifacts, engine)
        rows = list(result.rows(self._journal.states))
        with self._journal.moves(basis, leading=True) as moves:
            for definition in result.starts:
                engine.start(definition)
            for row in rows:
                run = runs.get(row.about.experiment)
                moves.record(*row, "config", run.report if run else None)
            moves.save(result.states)
        self.loaded, self.artifacts, self._refused, self.settled = loaded, artifacts, "", True
        return rows

    def _wanted(self, loaded: LoadedConfig, artifacts: Artifacts, engine: AnyEngine) -> Reconciled:
        return reconcile(
            str(loaded.path),
            loaded.config,
            self._journal.states,
            {id: evidence.definition for id, evidence in engine.evidence.items()},
            artifacts,
            self._store.quarantined,
            self._clock.wall_us(),
        )

    def _stand(self, wanted: Reconciled) -> None:
        stored = self._journal.states
        self.settled = not wanted.starts and all(stored.get(name) == state for name, state in wanted.states.items())
        self._standing = standing(self.loaded.config, stored, wanted.states)
