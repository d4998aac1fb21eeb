"""What is new behind a position, kind by kind, in batches.

Exposures leave when they are completed, or when no completion can count any more: in each spool in the order of the
decisions, so one that is open holds up those behind it, in its spool and nowhere else. Outcomes leave in the order in
which they arrived, as soon as no earlier one can come. Decisions leave in the order of the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import NamedTuple

import msgspec
from msgspec.structs import asdict, replace

from gateway.events import decision_id
from gateway.export.columns import Row
from gateway.export.facts import ASSIGNED, CHUNK, OUTCOME, Names, named_exposure, stored_exposures
from gateway.export.outbox.events import Event, Teller
from gateway.export.outbox.position import Arrival, Position
from gateway.export.source import OpenStore
from gateway.export.spans import Span, first_since, spools

KINDS = ("exposures", "outcomes", "decisions")
OVERDUE_US = 3_600_000_000  # where no experiment says how long an answer may take
_BYTES = 1 << 20  # in a batch
_PAGE = 50_000  # outcomes in memory
_ROWS = 100  # of the ledger; each holds a whole report
_COMPLETED_AT, _EMPTY = 12, (None,) * 9  # in a row of EXPOSURES: where its completion begins, and none


class Terms(msgspec.Struct, frozen=True):
    """What is to be known of an experiment's definition."""

    segments: tuple[str, ...]
    answer_within_us: int


class Batch(NamedTuple):
    """Events of one kind, and the position behind them."""

    events: tuple[Event, ...]
    position: Position


@dataclass(slots=True)
class Horizon:
    """What can be told by now, read in one transaction. While it stays the same, there is nothing new."""

    step: int = 0
    watermark: int = 0
    decisions: int = 0  # the last row of the ledger: it grows between fold steps, too
    admitted: dict[int, int] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)  # spools of which no more comes
    experiments: dict[str, Terms] = field(default_factory=dict)
    expired_through: int = 0  # what was assigned before is deleted


class Feed:
    """Reads one store; keeps nothing between two calls but what it may forget."""

    def __init__(self, store: OpenStore, teller: Teller, kinds: tuple[str, ...], most: int) -> None:
        self._store = store
        self._teller = teller
        self._most = most
        every: dict[str, Callable[[Position, Horizon], Iterator[Batch]]] = {
            "exposures": self._exposures,
            "outcomes": self._outcomes,
            "decisions": self._decisions,
        }
        self._ways = [every[kind] for kind in KINDS if kind in kinds]

    def horizon(self) -> Horizon:
        with self._store.transaction():
            found = Horizon(admitted=self._store.admitted(), expired_through=self._store.expired_through())
            last = self._store.last_step()
            if last is not None:
                found.step, found.watermark = last.step, last.watermark
            (found.decisions,) = self._store.row("SELECT coalesce(max(id), 0) FROM ledger")
            for stream, cursor in self._store.streams().items():
                if stream.stream == "requests" and cursor.finished:
                    found.finished.add(stream.spool)
            found.experiments = {
                id: msgspec.json.decode(text, type=Terms) for id, (_, text) in self._store.experiments().items()
            }
        return found

    def identity(self) -> str:
        """By which a store is known again, on another engine too; "" while nothing has happened in it."""
        row = self._store.row("SELECT step, at FROM fold_step ORDER BY step LIMIT 1")
        return "" if row is None else f"{row[0]}@{row[1]}"

    def begin(self, since: int) -> Position:
        """The position before everything from a time on."""
        exposures = {spool: first_since(self._store, spool, since) - 1 for spool in spools(self._store)}
        (decisions,) = self._store.row("SELECT coalesce(max(id), 0) FROM ledger WHERE at < ?", (since,))
        return Position(exposures=exposures, outcomes=Arrival(at=since), decisions=decisions)

    def batches(self, position: Position, horizon: Horizon) -> Iterator[Batch]:
        """Everything that can be told; each batch goes on from the position of the one before."""
        for way in self._ways:
            for batch in way(position, horizon):
                position = batch.position
                yield batch

    def _exposures(self, position: Position, horizon: Horizon) -> Iterator[Batch]:
        names = Names({id: terms.segments for id, terms in horizon.experiments.items()})
        for spool, admitted in sorted(horizon.admitted.items()):
            last = position.exposures.get(spool, decision_id(spool, 0))
            while last < admitted and (rows := self._due(Span(0, spool, last + 1, admitted + 1), horizon)):
                events = [self._teller.exposure(named_exposure(row, names)) for row in rows]
                for part in self._parts(events):
                    last = rows[part.stop - 1][0]
                    position = replace(position, exposures={**position.exposures, spool: last})
                    yield Batch(tuple(events[part]), position)

    def _due(self, span: Span, horizon: Horizon) -> list[Row]:
        """The first exposures of a span, as far as they can be told."""
        finished = span.spool in horizon.finished
        rows = islice(stored_exposures(self._store, span, horizon.watermark), CHUNK)
        return [_punctual(row, horizon) for row in takewhile(lambda row: finished or _closed(row, horizon), rows)]

    def _outcomes(self, position: Position, horizon: Horizon) -> Iterator[Batch]:
        while rows := self._arrived(position.outcomes, horizon):
            events = list(map(self._teller.outcome, rows))
            for part in self._parts(events):
                decision, metric, id, at = (rows[part.stop - 1][place] for place in (0, 5, 6, 8))
                position = replace(position, outcomes=Arrival(at, decision, metric, id))
                yield Batch(tuple(events[part]), position)

    def _arrived(self, after: Arrival, horizon: Horizon) -> list[Row]:
        """Rows of OUTCOMES. Where no index finds them every outcome is looked at: so as many as memory bears."""
        return self._store.rows(
            f"SELECT {OUTCOME} FROM (SELECT * FROM outcome WHERE at >= :at AND at < :watermark"
            " AND (at, decision, metric, id) > (:at, :decision, :metric, :id)"
            f" ORDER BY at, decision, metric, id LIMIT :most) o {ASSIGNED.format('o')}"
            " ORDER BY o.at, o.decision, o.metric, o.id",
            {**asdict(after), "watermark": horizon.watermark, "most": _PAGE},
        )

    def _decisions(self, position: Position, horizon: Horizon) -> Iterator[Batch]:
        while rows := self._store.rows(
            "SELECT id, at, step, endpoint, experiment, kind, body, hash FROM ledger WHERE id > ? ORDER BY id LIMIT ?",
            (position.decisions, _ROWS),
        ):
            events = list(map(self._teller.decision, rows))
            for part in self._parts(events):
                position = replace(position, decisions=rows[part.stop - 1][0])
                yield Batch(tuple(events[part]), position)

    def _parts(self, events: list[Event]) -> Iterator[slice]:
        """Batches of so many events and bytes at most, or of one event that is larger."""
        begin = size = 0
        for place, event in enumerate(events):
            if place - begin == self._most or (size and size + len(event.text) > _BYTES):
                yield slice(begin, place)
                begin, size = place, 0
            size += len(event.text)
        yield slice(begin, len(events))


def _within(row: Row, horizon: Horizon) -> int:
    terms = horizon.experiments.get(row[3])
    return terms.answer_within_us if terms else OVERDUE_US


def _closed(row: Row, horizon: Horizon) -> bool:
    return row[_COMPLETED_AT] is not None or row[1] + _within(row, horizon) <= horizon.watermark


def _punctual(row: Row, horizon: Horizon) -> Row:
    """Without a completion that came too late to count, so that an event is the same whenever it is told."""
    if row[_COMPLETED_AT] is None or row[_COMPLETED_AT] < row[1] + _within(row, horizon):
        return row
    return (*row[:_COMPLETED_AT], *_EMPTY)
