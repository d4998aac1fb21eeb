"""The store of one machine: one SQLite file with exactly one writing connection.

One writer is not only enough but required: SQLite before 3.51.3 can corrupt a WAL that two connections
checkpoint at once. Readers (notebooks, `sqlite3 gateway.db`) open the file read-only whenever they like.
Here are the facts and what is folded from them; what follows from those is in `releases`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from gateway.events import Assignment, Completion, Outcome, Shadow
from gateway.spool.format import Position
from gateway.spool.reader import StreamId
from gateway.store.base import (
    Exposure,
    FoldStep,
    KnownUnit,
    Measured,
    Scored,
    StreamCursor,
    UnitKey,
    Vote,
)
from gateway.store.draws import Draws
from gateway.store.releases import ReleaseTables

_SIGN = 1 << 63
_HASHES = 1 << 64


class SqliteStore(ReleaseTables):
    """Implements `store.base.Store`. Use from one thread at a time."""

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        super().__init__(path, read_only=read_only)
        self._draws = Draws(self)

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        try:
            with super().transaction(durable=durable):
                yield
        except BaseException:
            self._draws.rolled_back()
            raise
        self._draws.committed()

    # ------------------------------------------------------------------ shipping

    def streams(self) -> dict[StreamId, StreamCursor]:
        rows = self.rows("SELECT spool, stream, segment, offset, through, admitted, finished FROM stream")
        return {
            StreamId(spool, stream): StreamCursor(Position(segment, offset), through, admitted, bool(finished))
            for spool, stream, segment, offset, through, admitted, finished in rows
        }

    def save_stream(self, stream: StreamId, cursor: StreamCursor) -> None:
        at = cursor.position
        self.write(
            "INSERT OR REPLACE INTO stream VALUES (?, ?, ?, ?, ?, ?, ?)",
            (stream.spool, stream.stream, at.segment, at.offset, cursor.through, cursor.admitted, cursor.finished),
        )

    def last_step(self) -> FoldStep | None:
        row = self.row("SELECT * FROM fold_step ORDER BY step DESC LIMIT 1")
        return FoldStep(*row) if row else None

    def add_step(self, step: FoldStep) -> None:
        self.write("INSERT INTO fold_step VALUES (?, ?, ?, ?)", step)

    def add_assignments(self, step: int, facts: Iterable[Assignment]) -> None:
        number = self._draws.number
        self.write_all(
            "INSERT INTO assignment VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    fact.decision,
                    fact.at,
                    number(fact),
                    _signed(fact.bucket),
                    fact.unit,
                    _json(fact.covariates),
                    step,
                )
                for fact in facts
            ],
        )

    def add_completions(self, step: int, facts: Iterable[Completion]) -> None:
        self.write_all(
            "INSERT INTO completion VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    fact.decision,
                    fact.at,
                    fact.served,
                    fact.end,
                    fact.status,
                    fact.first_byte_us,
                    fact.total_us,
                    fact.error,
                    step,
                    fact.prediction,
                    fact.tries,
                )
                for fact in facts
            ),
        )

    def add_shadows(self, step: int, facts: Iterable[Shadow]) -> None:
        # A worker offers each copy once, but a plan that names a variant twice over must not stop the shipping.
        self.write_all(
            "INSERT OR IGNORE INTO shadow VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (fact.decision, fact.variant, fact.at, fact.total_us, fact.error, fact.prediction, step)
                for fact in facts
            ),
        )

    def add_outcomes(self, step: int, facts: Sequence[Outcome]) -> list[tuple[Outcome, float]]:
        inserted = self.write_all(
            "INSERT OR IGNORE INTO outcome VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (fact.decision, fact.metric, fact.id, fact.at, fact.value, step, ordinal)
                for ordinal, fact in enumerate(facts, 1)
            ),
        )
        if inserted == len(facts):
            return []
        kept = {
            (decision, metric, id): (value, origin)
            for decision, metric, id, value, *origin in self.rows(
                "SELECT decision, metric, id, value, step, ordinal FROM outcome"
                " WHERE decision IN (SELECT value FROM json_each(?))",
                (json.dumps([fact.decision for fact in facts]),),
            )
        }
        repeated: list[tuple[Outcome, float]] = []
        for ordinal, fact in enumerate(facts, 1):
            value, origin = kept[fact.decision, fact.metric, fact.id]
            if origin != [step, ordinal]:
                repeated.append((fact, value))
        return repeated

    def exposures(self, decisions: Iterable[int]) -> dict[int, Exposure]:
        rows = self.rows(
            "SELECT decision, experiment, variant, at FROM request WHERE decision IN (SELECT value FROM json_each(?))",
            (json.dumps(list(decisions)),),
        )
        return {decision: Exposure(*exposure) for decision, *exposure in rows}

    def assignments_after(self, decision: int, end: int) -> list[Assignment]:
        rows = self.rows(
            "SELECT decision, at, endpoint, experiment, stage, variant, pi, bucket, unit, segments, revision, flags,"
            " covariates FROM request WHERE decision > ? AND decision < ? ORDER BY decision",
            (decision, end),
        )
        return [_assignment(row) for row in rows]

    # ------------------------------------------------------------------ joining and folding

    def known_units(self, keys: Sequence[UnitKey]) -> list[KnownUnit | None]:
        wanted: dict[str, list[int]] = {}
        for key in keys:
            wanted.setdefault(key.experiment, []).append(_signed(key.bucket))
        known: dict[UnitKey, KnownUnit] = {}
        for experiment, buckets in wanted.items():
            rows = self.rows(
                "SELECT bucket, unit, decision, at, known FROM unit"
                " WHERE experiment = ? AND bucket IN (SELECT value FROM json_each(?))",
                (experiment, json.dumps(buckets)),
            )
            known |= {UnitKey(experiment, bucket % _HASHES, unit): KnownUnit(*more) for bucket, unit, *more in rows}
        return [known.get(key) for key in keys]

    def save_units(self, units: Mapping[UnitKey, KnownUnit]) -> None:
        self.write_all(
            "INSERT OR REPLACE INTO unit (experiment, bucket, unit, decision, at, known) VALUES (?, ?, ?, ?, ?, ?)",
            # In the order of the table: neighbours share a page.
            sorted((key.experiment, _signed(key.bucket), key.unit, *known) for key, known in units.items()),
        )

    def add_revisits(self, rows: Iterable[tuple[str, int, int]]) -> None:
        self.write_all("INSERT OR IGNORE INTO revisit VALUES (?, ?, ?)", rows)

    def add_votes(self, votes: Iterable[Vote]) -> None:
        self.write_all(
            "INSERT INTO vote (experiment, ordinal, decision, at, stage, variant, arm, segments, odds, complete,"
            " covariates) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (*vote[:7], _json(vote.segments), _json(vote.odds), vote.complete, _json(vote.covariates))
                for vote in votes
            ),
        )

    def vote_count(self, experiment: str) -> int:
        return self.row("SELECT max(ordinal) FROM vote WHERE experiment = ?", (experiment,))[0] or 0

    def request_errors(self, experiment: str, after: int, within_us: int) -> Iterator[Measured]:
        return self._requests("(c.error <> '') + 0.0", experiment, after, within_us)

    def request_latencies(self, experiment: str, after: int, within_us: int) -> Iterator[Measured]:
        # What never sent a first byte was waited for until it ended; a failure is slow whatever it took.
        first_byte = "coalesce(nullif(c.first_byte_us, 0), c.total_us) + 0.0"
        return self._requests(f"CASE WHEN c.error <> '' THEN 9e999 ELSE {first_byte} END", experiment, after, within_us)

    def outcome_values(
        self, experiment: str, parts: Sequence[tuple[str, str]], after: int, within_us: int
    ) -> Iterator[Measured]:
        again = self.row("SELECT 1 FROM revisit WHERE experiment = ? LIMIT 1", (experiment,)) is not None
        values = [_aggregated(f":metric{n}", aggregate, again) for n, (_, aggregate) in enumerate(parts)]
        named = {f"metric{n}": metric for n, (metric, _) in enumerate(parts)}
        rows = self.stream(
            f"SELECT {_VOTE}, {', '.join((*values, 'NULL')[:2])}"
            " FROM vote v WHERE v.experiment = :experiment AND v.ordinal > :after ORDER BY v.ordinal",
            {"experiment": experiment, "after": after, "within": within_us, **named},
        )
        return map(Measured._make, rows)

    def scored_values(self, experiment: str, metric: str, after: int, within_us: int) -> Iterator[Scored]:
        rows = self.stream(
            f"SELECT {_VOTE}, {_aggregated(':metric', 'first', again=False)}, c.served, c.prediction,"
            " coalesce(c.error <> '', 0),"
            # What counts is decided by the times of the facts: later ones may or may not have been shipped by now.
            " (SELECT json_group_object(s.variant, s.prediction) FROM shadow s"
            "  WHERE s.decision = v.decision AND s.at < v.at + :within)"
            " FROM vote v LEFT JOIN completion c ON c.decision = v.decision AND c.at < v.at + :within"
            " WHERE v.experiment = :experiment AND v.ordinal > :after ORDER BY v.ordinal",
            {"experiment": experiment, "after": after, "within": within_us, "metric": metric},
        )
        return map(Scored._make, rows)

    def _requests(self, value: str, experiment: str, after: int, within_us: int) -> Iterator[Measured]:
        rows = self.stream(
            f"SELECT {_VOTE}, {value}, NULL"
            " FROM vote v LEFT JOIN completion c ON c.decision = v.decision AND c.at < v.at + ?"
            " WHERE v.experiment = ? AND v.ordinal > ? ORDER BY v.ordinal",
            (within_us, experiment, after),
        )
        return map(Measured._make, rows)

    def cursors(self, experiment: str) -> dict[str, int]:
        return dict(self.rows("SELECT metric, ordinal FROM cursor WHERE experiment = ?", (experiment,)))

    def save_cursor(self, experiment: str, metric: str, ordinal: int) -> None:
        self.write("INSERT OR REPLACE INTO cursor VALUES (?, ?, ?)", (experiment, metric, ordinal))

    def evidence(self, experiment: str) -> dict[str, bytes]:
        return dict(self.rows("SELECT key, state FROM evidence WHERE experiment = ?", (experiment,)))

    def save_evidence(self, experiment: str, step: int, states: Mapping[str, bytes]) -> None:
        self.write_all(
            "INSERT OR REPLACE INTO evidence VALUES (?, ?, ?, ?)",
            ((experiment, key, state, step) for key, state in states.items()),
        )

    def count(self, experiment: str, variant: str, name: str, more: int = 1) -> None:
        self.write(
            "INSERT INTO counter VALUES (?, ?, ?, ?)"
            " ON CONFLICT (experiment, variant, name) DO UPDATE SET value = value + excluded.value",
            (experiment, variant, name, more),
        )

    def counters(self, experiment: str) -> dict[tuple[str, str], int]:
        rows = self.rows("SELECT variant, name, value FROM counter WHERE experiment = ?", (experiment,))
        return {(variant, name): value for variant, name, value in rows}


_VOTE = "v.ordinal, v.at, v.stage, v.arm, v.odds, v.segments, v.covariates, v.complete"


def _aggregated(metric: str, aggregate: str, again: bool) -> str:
    """A subselect of one metric's value; `again` where some unit of the experiment came more than once."""
    what = {"first": "o.value", "sum": "sum(o.value)", "count": "nullif(count(*), 0) + 0.0", "max": "max(o.value)"}
    later = " UNION ALL SELECT r.decision FROM revisit r WHERE r.experiment = v.experiment AND r.vote = v.decision"
    decisions = f"IN (SELECT v.decision{later})" if again else "= v.decision"
    first = " ORDER BY o.at, o.decision, o.id LIMIT 1" if aggregate == "first" else ""
    return (
        f"(SELECT {what[aggregate]} FROM outcome o WHERE o.decision {decisions} AND o.metric = {metric}"
        f" AND o.at < v.at + :within{first})"
    )


def _assignment(row: tuple[Any, ...]) -> Assignment:
    decision, at, endpoint, experiment, stage, variant, pi, bucket, unit, segments, revision, flags, covariates = row
    return Assignment(
        decision,
        at,
        endpoint,
        experiment,
        stage,
        variant,
        pi,
        bucket % _HASHES,
        unit,
        tuple(json.loads(segments)),
        revision,
        flags,
        tuple(json.loads(covariates)),
    )


@lru_cache(maxsize=4096)
def _json(values: tuple[str | float, ...]) -> str:
    """Segment values and odds repeat endlessly; their text is made once."""
    return json.dumps(values)


def _signed(bucket: int) -> int:
    """A 64-bit hash as SQLite's signed integer."""
    return bucket - _HASHES if bucket >= _SIGN else bucket
