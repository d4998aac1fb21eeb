"""Shipping and joining: the statements that engines share. How facts are written in bulk is each engine's own."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from gateway.errors import StoreError
from gateway.events import Assignment, Fact, UnitOutcome
from gateway.spool.format import Position
from gateway.spool.reader import StreamId
from gateway.store.base import (
    FOREVER,
    NO_LIMIT,
    Exposure,
    FoldStep,
    KnownUnit,
    StreamCursor,
    UnitKey,
    Vote,
)
from gateway.store.tables import Tables

_STEP = "step, at, watermark, positions, cursors"
_SIGN = 1 << 63
_HASHES = 1 << 64


class FactTables(Tables):
    """Facts, and the votes that are made of them."""

    # ------------------------------------------------------------------ shipping

    def streams(self) -> dict[StreamId, StreamCursor]:
        rows = self.rows('SELECT spool, stream, segment, "offset", through, finished, incarnation FROM stream')
        return {
            StreamId(spool, stream): StreamCursor(Position(segment, offset), through, bool(finished), incarnation)
            for spool, stream, segment, offset, through, finished, incarnation in rows
        }

    def save_stream(self, stream: StreamId, before: StreamCursor | None, cursor: StreamCursor) -> None:
        at, whose = cursor.position, (stream.spool, stream.stream)
        moved = (at.segment, at.offset, cursor.through, int(cursor.finished), cursor.incarnation)
        if before is None:
            changed = self.write(
                'INSERT INTO stream (segment, "offset", through, finished, incarnation, spool, stream)'
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (*moved, *whose),
            )
        else:
            changed = self.write(
                'UPDATE stream SET segment = ?, "offset" = ?, through = ?, finished = ?, incarnation = ?'
                ' WHERE spool = ? AND stream = ? AND segment = ? AND "offset" = ?',
                (*moved, *whose, before.position.segment, before.position.offset),
            )
        if changed != 1:
            raise StoreError(f"spool {stream.spool}, {stream.stream}: shipped up to another place than is known here")

    def last_step(self) -> FoldStep | None:
        row = self.row(f"SELECT {_STEP} FROM fold_step ORDER BY step DESC LIMIT 1")
        return FoldStep(*row) if row else None

    def steps(self, after: int = 0) -> Iterator[FoldStep]:
        rows = self.stream(f"SELECT {_STEP} FROM fold_step WHERE step > ? ORDER BY step", (after,))
        return map(FoldStep._make, rows)

    def add_step(self, step: FoldStep) -> None:
        changed = self.write(
            f"INSERT INTO fold_step ({_STEP}) SELECT ?, ?, ?, ?, ?"
            " WHERE coalesce((SELECT max(step) FROM fold_step), 0) = ?",
            (*step, step.step - 1),
        )
        if changed != 1:
            raise StoreError(f"step {step.step} does not follow the last one that is stored")

    def add_late(self, facts: Iterable[Fact]) -> None:
        self.write_all(
            "INSERT INTO late_fact (decision, kind, at, body) VALUES (?, ?, ?, ?)",
            [(getattr(fact, "decision", 0), type(fact).__name__.lower(), fact.at, _body(fact)) for fact in facts],
        )

    def add_unit_outcomes(self, facts: Iterable[UnitOutcome]) -> None:
        self.write_all(
            "INSERT INTO unit_outcome (experiment, bucket, unit, metric, id, at, value, happened_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [
                (
                    fact.experiment,
                    signed(fact.bucket),
                    fact.unit,
                    fact.metric,
                    fact.id,
                    fact.at,
                    fact.value,
                    fact.happened_at,
                )
                for fact in facts
            ],
        )

    def exposures(self, decisions: Iterable[int], times: Collection[int] = ()) -> dict[int, Exposure]:
        condition, wanted = self.among("decision", list(decisions))
        rows = self.rows(
            f"SELECT decision, experiment, variant, at FROM request WHERE {condition}{self.on_days(times)}", (wanted,)
        )
        return {decision: Exposure(*exposure) for decision, *exposure in rows}

    def assignments_after(
        self, decision: int, end: int, *, before: int = FOREVER, limit: int = NO_LIMIT
    ) -> list[Assignment]:
        rows = self.rows(
            "SELECT decision, at, endpoint, experiment, stage, variant, pi, bucket, unit, segments, revision, flags,"
            " covariates FROM request WHERE decision > ? AND decision < ? AND at < ? ORDER BY decision LIMIT ?",
            (decision, end, before, limit),
        )
        return [_assignment(row) for row in rows]

    # ------------------------------------------------------------------ joining

    def admitted(self) -> dict[int, int]:
        return dict(self.rows("SELECT spool, decision FROM admission"))

    def save_admitted(self, marks: Mapping[int, int]) -> None:
        self.write_all(
            "INSERT INTO admission (spool, decision) VALUES (?, ?)"
            " ON CONFLICT (spool) DO UPDATE SET decision = excluded.decision",
            sorted(marks.items()),
        )

    def unit_outcomes(self, before: int) -> list[UnitOutcome]:
        rows = self.rows(
            "SELECT id, at, experiment, bucket, unit, metric, value, happened_at FROM unit_outcome"
            " WHERE at < ? ORDER BY at, experiment, bucket, unit, metric, id",
            (before,),
        )
        return [
            UnitOutcome(id, at, "", experiment, bucket % _HASHES, unit, metric, value, happened_at)
            for id, at, experiment, bucket, unit, metric, value, happened_at in rows
        ]

    def drop_unit_outcomes(self, before: int) -> None:
        self.write("DELETE FROM unit_outcome WHERE at < ?", (before,))

    def known_units(self, keys: Sequence[UnitKey]) -> list[KnownUnit | None]:
        wanted: dict[str, list[int]] = {}
        for key in keys:
            wanted.setdefault(key.experiment, []).append(signed(key.bucket))
        known: dict[UnitKey, KnownUnit] = {}
        for experiment, buckets in wanted.items():
            condition, among = self.among("bucket", buckets)
            rows = self.rows(
                f"SELECT bucket, unit, decision, at, known FROM unit WHERE experiment = ? AND {condition}",
                (experiment, among),
            )
            known |= {UnitKey(experiment, bucket % _HASHES, unit): KnownUnit(*more) for bucket, unit, *more in rows}
        return [known.get(key) for key in keys]

    def save_units(self, units: Mapping[UnitKey, KnownUnit]) -> None:
        self.write_all(
            "INSERT INTO unit (experiment, bucket, unit, decision, at, known) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (experiment, bucket, unit) DO UPDATE SET decision = excluded.decision, at = excluded.at,"
            " known = excluded.known",
            # In the order of the table: neighbours share a page.
            sorted((key.experiment, signed(key.bucket), key.unit, *known) for key, known in units.items()),
        )

    def add_revisits(self, rows: Iterable[tuple[str, int, int]]) -> None:
        self.write_all(
            "INSERT INTO revisit (experiment, vote, decision) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", list(rows)
        )

    def add_votes(self, votes: Iterable[Vote]) -> None:
        self.write_all(
            "INSERT INTO vote (experiment, ordinal, decision, at, stage, variant, arm, segments, odds, complete,"
            " covariates) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    *vote[:7],
                    json_text(vote.segments),
                    json_text(vote.odds),
                    int(vote.complete),
                    json_text(vote.covariates),
                )
                for vote in votes
            ],
        )

    def vote_count(self, experiment: str) -> int:
        return self.row("SELECT max(ordinal) FROM vote WHERE experiment = ?", (experiment,))[0] or 0


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


def _body(fact: Fact) -> str:
    """A fact as JSON, for people and for erasure."""
    return msgspec.json.encode(fact).decode()


@lru_cache(maxsize=4096)
def json_text(values: tuple[str | float, ...]) -> str:
    """Segment values and odds repeat endlessly; their text is made once."""
    return json.dumps(values)


def signed(bucket: int) -> int:
    """A 64-bit hash as the engines' signed integer."""
    return bucket - _HASHES if bucket >= _SIGN else bucket
