"""What a vote counts, written down beside it: it outlives the facts that said so, and every fold reads the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import takewhile

from gateway.evidence.closing import measured
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.store.base import Measured, Scored, Settled
from gateway.store.keeping import Keeping


def settle(store: Keeping, definition: Definition, after: int, last: int) -> None:
    """Settle the votes from behind one ordinal up to another, folded or not, as the fold reads them now.

    Inside a transaction. A vote of which nothing is known needs no row once it is folded: without facts it reads so.
    """
    folded = store.cursors(definition.id)
    for metric in definition.metrics:
        rows = list(takewhile(lambda row: row.ordinal <= last, _settled(store, definition, metric, after)))
        cursor = folded.get(metric.name, 0)
        store.settle(definition.id, metric.name, [row for row in rows if row.ordinal > cursor or _says_something(row)])


def _settled(store: Keeping, definition: Definition, metric: MetricDefinition, after: int) -> Iterator[Settled]:
    if metric.type == "score":
        return _scored(store.scored_values(definition.id, metric.name, after, metric.within_us))
    return _measured(measured(store, definition.id, definition, metric, after))


def _measured(rows: Iterable[Measured]) -> Iterator[Settled]:
    return (Settled(row.ordinal, row.value, row.denominator, "") for row in rows)


def _scored(rows: Iterable[Scored]) -> Iterator[Settled]:
    for row in rows:
        known = [row.served, row.prediction, row.failed, row.shadows]
        yield Settled(row.ordinal, row.label, None, json.dumps(known))


_NOTHING = json.dumps([None, None, 0, "{}"])  # of the predictions


def _says_something(row: Settled) -> bool:
    return not (row.value is row.denominator is None and row.predictions in ("", _NOTHING))
