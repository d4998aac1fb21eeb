"""What has been folded, as the store has it: for whoever reports on it, and for whoever goes on."""

from __future__ import annotations

from gateway.evidence.cells import Evidence
from gateway.evidence.definition import decode
from gateway.store.base import Store
from gateway.store.cluster import SharedStore


class Folded:
    """Evidence of every experiment that ever ran, with the cursors that say how far it goes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.step_number = 0
        self.watermark = 0
        self.evidence: dict[str, Evidence] = {}
        self._cursors: dict[str, dict[str, int]] = {}
        self._load()

    def _load(self) -> None:
        last = self._store.last_step()
        self.step_number = last.step if last else 0
        self.watermark = last.watermark if last else 0
        for id, (_, definition) in self._store.experiments().items():
            cursors = self._store.cursors(id)
            if id not in self.evidence or cursors != self._cursors[id]:
                self.evidence[id] = Evidence.restore(decode(definition), self._store.evidence(id))
                self._cursors[id] = cursors

    def units(self, experiment: str) -> int:
        """Votes admitted so far."""
        return self._store.vote_count(experiment)

    def progress(self, experiment: str) -> tuple[int, ...]:
        """Votes admitted, and votes folded by each metric."""
        cursors = self._cursors[experiment]
        metrics = self.evidence[experiment].definition.metrics
        return self.units(experiment), *(cursors.get(metric.name, 0) for metric in metrics)


class Followed(Folded):
    """As a node sees it that does not lead: read again where somebody else has gone on."""

    _store: SharedStore

    def __init__(self, store: SharedStore) -> None:
        self._units: dict[str, int] = {}
        super().__init__(store)

    def follow(self) -> bool:
        """Whether there was anything new."""
        last = self._store.last_step()
        known = self.evidence.keys() >= self._store.experiments().keys()
        if known and (last is None or last.step == self.step_number):
            return False
        self._load()
        return True

    def _load(self) -> None:
        """All of it as of one step, also while the leader goes on: a row of the ledger names the step of its report."""
        with self._store.one_moment():
            super()._load()
            self._units = {experiment: super(Followed, self).units(experiment) for experiment in self.evidence}

    def units(self, experiment: str) -> int:
        if experiment not in self._units:
            self._units[experiment] = super().units(experiment)
        return self._units[experiment]
