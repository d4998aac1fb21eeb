"""Votes folded once more, up to cursors that are written down, into evidence of its own.

In what batches they are folded is free, for that changes no bit (`evidence.fold`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.evidence.cells import Evidence
from gateway.evidence.closing import MOST, fold_through
from gateway.evidence.definition import Definition
from gateway.evidence.report import Report, Thresholds
from gateway.evidence.verdict import judge
from gateway.store.keeping import Keeping

ADMITTED = ""  # in the place of a metric: how many votes there are

Cursors = Mapping[str, int]


class Refolding:
    """One experiment. Call inside a transaction of the store."""

    def __init__(
        self, store: Keeping, definition: Definition, done: Callable[[int], None] = lambda _: None, most: int = MOST
    ) -> None:
        """`done` hears how many votes were read, of each metric; `most` are folded at a time."""
        self._store = store
        self._done = done
        self._most = most
        self.evidence = Evidence(definition)
        self.cursors: dict[str, int] = {}

    def advance(self, cursors: Cursors) -> None:
        """Fold up to these cursors; where there are fewer votes, up to those that there are."""
        self._coins(cursors.get(ADMITTED, 0))
        for metric in self.evidence.definition.metrics:
            name, last = metric.name, cursors.get(metric.name, 0)
            while (begin := self.cursors.get(name, 0)) < last:
                end = fold_through(self._store, self.evidence, metric, begin, last, self._most)
                if end == begin:
                    break
                self.cursors[name] = end
                self._done(end - begin)

    def report(self, thresholds: Thresholds) -> Report:
        """What was known here."""
        folded = min((self.cursors.get(metric.name, 0) for metric in self.evidence.definition.metrics), default=0)
        return judge(self.evidence, thresholds, self.cursors.get(ADMITTED, 0), folded)

    def states(self) -> dict[str, bytes]:
        """As the store keeps them; once, at the end."""
        return self.evidence.take_changes()

    def _coins(self, last: int) -> None:
        id = self.evidence.definition.id
        while (begin := self.cursors.get(ADMITTED, 0)) < last:
            votes = self._store.votes(id, begin, min(self._most, last - begin))
            if votes := [vote for vote in votes if vote.ordinal <= last]:
                self.evidence.fold_coins([vote.arm for vote in votes], [vote.odds for vote in votes])
                self.cursors[ADMITTED] = votes[-1].ordinal
                self._done(len(votes))
            else:
                break
