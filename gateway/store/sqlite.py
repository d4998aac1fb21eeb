"""The store of one machine: one SQLite file with exactly one writing connection.

One writer is not only enough but required: SQLite before 3.51.3 can corrupt a WAL that two connections
checkpoint at once. Readers (notebooks, `sqlite3 gateway.db`) open the file read-only whenever they like.
Here are the facts and what is folded from them; what follows from those is in `releases`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from gateway.events import Assignment, Completion, Outcome
from gateway.spool.format import Position
from gateway.spool.reader import StreamId
from gateway.store.base import Claim, Exposure, FoldStep, Measured, StreamCursor, Vote
from gateway.store.releases import ReleaseTables

_SIGN = 1 << 63


class SqliteStore(ReleaseTables):
    """Implements `store.base.Store`. Use from one thread at a time."""

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
        self.write_all(
            "INSERT INTO request VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    fact.decision,
                    fact.at,
                    fact.endpoint,
                    fact.experiment,
                    fact.stage,
                    fact.variant,
                    fact.pi,
                    _signed(fact.bucket),
                    fact.unit,
                    _json(fact.segments),
                    fact.revision,
                    fact.flags,
                    step,
                )
                for fact in facts
            ),
        )

    def add_completions(self, step: int, facts: Iterable[Completion]) -> None:
        self.write_all(
            "INSERT INTO completion VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                )
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
            "SELECT decision, at, endpoint, experiment, stage, variant, pi, bucket, unit, segments, revision, flags"
            " FROM request WHERE decision > ? AND decision < ? ORDER BY decision",
            (decision, end),
        )
        return [_assignment(row) for row in rows]

    # ------------------------------------------------------------------ joining and folding

    def claim_units(self, claims: Sequence[Claim]) -> list[bool]:
        rows = [(claim.experiment, _signed(claim.bucket), claim.unit, claim.decision) for claim in claims]
        if self.write_all("INSERT OR IGNORE INTO unit VALUES (?, ?, ?, ?)", rows) == len(rows):
            return [True] * len(rows)
        first = "SELECT decision FROM unit WHERE experiment = ? AND bucket = ? AND unit = ?"
        return [self.row(first, row[:3])[0] == row[3] for row in rows]

    def add_votes(self, votes: Iterable[Vote]) -> None:
        self.write_all(
            "INSERT INTO vote VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", ((*vote[:8], _json(vote.segments)) for vote in votes)
        )

    def vote_count(self, experiment: str) -> int:
        return self.row("SELECT max(ordinal) FROM vote WHERE experiment = ?", (experiment,))[0] or 0

    def request_values(self, experiment: str, after: int, within_us: int, limit_us: int | None) -> Iterator[Measured]:
        # What never sent a first byte was waited for until it ended; a failure is slow whatever it took.
        slow = "" if limit_us is None else f" OR coalesce(nullif(c.first_byte_us, 0), c.total_us) > {limit_us:d}"
        return self.stream(
            f"SELECT v.ordinal, v.at, v.stage, v.challenger, v.pi, v.segments, (c.error <> ''{slow}) + 0.0"
            " FROM vote v LEFT JOIN completion c ON c.decision = v.decision AND c.at < v.at + ?"
            " WHERE v.experiment = ? AND v.ordinal > ? ORDER BY v.ordinal",
            (within_us, experiment, after),
        )

    def outcome_values(self, experiment: str, metric: str, after: int, within_us: int) -> Iterator[Measured]:
        return self.stream(
            "SELECT v.ordinal, v.at, v.stage, v.challenger, v.pi, v.segments,"
            " (SELECT o.value FROM outcome o WHERE o.decision = v.decision AND o.metric = ? AND o.at < v.at + ?"
            "  ORDER BY o.at, o.id LIMIT 1)"
            " FROM vote v WHERE v.experiment = ? AND v.ordinal > ? ORDER BY v.ordinal",
            (metric, within_us, experiment, after),
        )

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


def _assignment(row: tuple[Any, ...]) -> Assignment:
    decision, at, endpoint, experiment, stage, variant, pi, bucket, unit, segments, revision, flags = row
    return Assignment(
        decision,
        at,
        endpoint,
        experiment,
        stage,
        variant,
        pi,
        bucket % (1 << 64),
        unit,
        tuple(json.loads(segments)),
        revision,
        flags,
    )


@lru_cache(maxsize=4096)
def _json(values: tuple[str, ...]) -> str:
    """Segment values repeat endlessly; their text is made once."""
    return json.dumps(values)


def _signed(bucket: int) -> int:
    """A 64-bit hash as SQLite's signed integer."""
    return bucket - (1 << 64) if bucket >= _SIGN else bucket
