"""The store of one machine: one SQLite file with exactly one writing connection.

One writer is not only enough but required: SQLite before 3.51.3 can corrupt a WAL that two connections
checkpoint at once. Readers (notebooks, `sqlite3 gateway.db`) open the file read-only whenever they like.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from gateway.errors import StoreError
from gateway.events import Assignment, Completion, Outcome
from gateway.spool.format import Position
from gateway.spool.reader import StreamId
from gateway.store.base import FoldStep, GatewayRow, LedgerRow, OutcomeRow, PlanRow, StreamCursor, Vote

SCHEMA_VERSION = 1
_SIGN = 1 << 63
_MAGIC = b"SQLite format 3\0"


class SqliteStore:
    """Implements `store.base.Store`. Use from one thread at a time."""

    def __init__(self, path: Path | str) -> None:
        _refuse_foreign(path)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._migrate(path)
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{path}: {error}") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise StoreError(f"the store failed: {error}") from error
            raise

    def close(self) -> None:
        self._db.close()

    # ------------------------------------------------------------------ shipping

    def streams(self) -> dict[StreamId, StreamCursor]:
        rows = self._db.execute("SELECT spool, stream, segment, offset, through, admitted, finished FROM stream")
        return {
            StreamId(spool, stream): StreamCursor(Position(segment, offset), through, admitted, bool(finished))
            for spool, stream, segment, offset, through, admitted, finished in rows
        }

    def save_stream(self, stream: StreamId, cursor: StreamCursor) -> None:
        position = cursor.position
        self._db.execute(
            "INSERT OR REPLACE INTO stream VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                stream.spool,
                stream.stream,
                position.segment,
                position.offset,
                cursor.through,
                cursor.admitted,
                cursor.finished,
            ),
        )

    def last_step(self) -> FoldStep | None:
        row = self._db.execute("SELECT * FROM fold_step ORDER BY step DESC LIMIT 1").fetchone()
        return FoldStep(*row) if row else None

    def add_step(self, step: FoldStep) -> None:
        self._db.execute("INSERT INTO fold_step VALUES (?, ?, ?, ?)", step)

    def add_assignments(self, step: int, facts: Iterable[Assignment]) -> None:
        self._db.executemany(
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
                    json.dumps(fact.segments),
                    fact.revision,
                    fact.flags,
                    step,
                )
                for fact in facts
            ),
        )

    def add_completions(self, step: int, facts: Iterable[Completion]) -> None:
        self._db.executemany(
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

    def add_outcome(self, step: int, ordinal: int, fact: Outcome) -> float | None:
        inserted = self._db.execute(
            "INSERT OR IGNORE INTO outcome VALUES (?, ?, ?, ?, ?, ?, ?)",
            (fact.decision, fact.metric, fact.id, fact.at, fact.value, step, ordinal),
        )
        if inserted.rowcount:
            return None
        kept = self._db.execute(
            "SELECT value FROM outcome WHERE decision = ? AND metric = ? AND id = ?",
            (fact.decision, fact.metric, fact.id),
        )
        return float(kept.fetchone()[0])

    def variant_of(self, decision: int) -> str | None:
        row = self._db.execute("SELECT variant FROM request WHERE decision = ?", (decision,)).fetchone()
        return row[0] if row else None

    def assignments_after(self, decision: int, end: int) -> list[Assignment]:
        """Assignments with ids in (decision, end), ascending."""
        rows = self._db.execute(
            "SELECT decision, at, endpoint, experiment, stage, variant, pi, bucket, unit, segments, revision, flags"
            " FROM request WHERE decision > ? AND decision < ? ORDER BY decision",
            (decision, end),
        )
        return [
            Assignment(*row[:7], row[7] % (1 << 64), row[8], tuple(json.loads(row[9])), row[10], row[11])  # type: ignore[call-arg]
            for row in rows
        ]

    # ------------------------------------------------------------------ joining and folding

    def claim_unit(self, experiment: str, bucket: int, unit: bytes, decision: int) -> bool:
        """Whether this decision is the first exposure of the unit."""
        inserted = self._db.execute(
            "INSERT OR IGNORE INTO unit VALUES (?, ?, ?, ?)", (experiment, _signed(bucket), unit, decision)
        )
        return inserted.rowcount == 1

    def add_votes(self, votes: Iterable[Vote]) -> None:
        self._db.executemany("INSERT INTO vote VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", votes)

    def vote_count(self, experiment: str) -> int:
        row = self._db.execute("SELECT max(ordinal) FROM vote WHERE experiment = ?", (experiment,)).fetchone()
        return row[0] or 0

    def gateway_rows(self, experiment: str, after: int) -> Iterator[GatewayRow]:
        rows = self._db.execute(
            "SELECT v.ordinal, v.at, v.stage, v.challenger, v.pi, v.segments, c.ended, c.first_byte_us, c.error"
            " FROM vote v LEFT JOIN completion c ON c.decision = v.decision"
            " WHERE v.experiment = ? AND v.ordinal > ? ORDER BY v.ordinal",
            (experiment, after),
        )
        return map(GatewayRow._make, rows)

    def outcome_rows(self, experiment: str, metric: str, after: int) -> Iterator[OutcomeRow]:
        rows = self._db.execute(
            "SELECT v.ordinal, v.at, v.stage, v.challenger, v.pi, v.segments,"
            " (SELECT o.value FROM outcome o WHERE o.decision = v.decision AND o.metric = ?"
            "  ORDER BY o.step, o.ordinal LIMIT 1)"
            " FROM vote v WHERE v.experiment = ? AND v.ordinal > ? ORDER BY v.ordinal",
            (metric, experiment, after),
        )
        return map(OutcomeRow._make, rows)

    def cursors(self, experiment: str) -> dict[str, int]:
        rows = self._db.execute("SELECT metric, ordinal FROM cursor WHERE experiment = ?", (experiment,))
        return dict(rows.fetchall())

    def save_cursor(self, experiment: str, metric: str, ordinal: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO cursor VALUES (?, ?, ?)", (experiment, metric, ordinal))

    def evidence(self, experiment: str) -> dict[str, bytes]:
        rows = self._db.execute("SELECT key, state FROM evidence WHERE experiment = ?", (experiment,))
        return dict(rows.fetchall())

    def save_evidence(self, experiment: str, step: int, states: Mapping[str, bytes]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO evidence VALUES (?, ?, ?, ?)",
            ((experiment, key, state, step) for key, state in states.items()),
        )

    def count(self, experiment: str, variant: str, name: str, more: int = 1) -> None:
        self._db.execute(
            "INSERT INTO counter VALUES (?, ?, ?, ?)"
            " ON CONFLICT (experiment, variant, name) DO UPDATE SET value = value + excluded.value",
            (experiment, variant, name, more),
        )

    def counters(self, experiment: str) -> dict[tuple[str, str], int]:
        rows = self._db.execute("SELECT variant, name, value FROM counter WHERE experiment = ?", (experiment,))
        return {(variant, name): value for variant, name, value in rows}

    # ------------------------------------------------------------------ releasing

    def experiments(self) -> dict[str, tuple[str, str]]:
        rows = self._db.execute("SELECT id, endpoint, definition FROM experiment")
        return {id: (endpoint, definition) for id, endpoint, definition in rows}

    def add_experiment(self, id: str, endpoint: str, definition: str, at: int) -> None:
        self._db.execute("INSERT INTO experiment VALUES (?, ?, ?, ?)", (id, endpoint, definition, at))

    def releases(self) -> dict[str, tuple[int, str]]:
        rows = self._db.execute("SELECT endpoint, version, state FROM release")
        return {endpoint: (version, state) for endpoint, version, state in rows}

    def save_release(self, endpoint: str, expected: int, state: str) -> int:
        if expected == 0:
            changed = self._db.execute("INSERT OR IGNORE INTO release VALUES (?, 1, ?)", (endpoint, state))
        else:
            changed = self._db.execute(
                "UPDATE release SET version = version + 1, state = ? WHERE endpoint = ? AND version = ?",
                (state, endpoint, expected),
            )
        if changed.rowcount != 1:
            raise StoreError(f"the release state of {endpoint} was changed by somebody else")
        return expected + 1

    def append_ledger(
        self, at: int, step: int, endpoint: str, experiment: str, kind: str, body: Mapping[str, Any]
    ) -> LedgerRow:
        previous = self._db.execute("SELECT id, hash FROM ledger ORDER BY id DESC LIMIT 1").fetchone()
        number, before = previous or (0, "")
        text = json.dumps(body, sort_keys=True)
        row = (number + 1, at, step, endpoint, experiment, kind, text)
        digest = hashlib.sha256(json.dumps([before, *row]).encode()).hexdigest()
        self._db.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, digest))
        return _ledger_row((*row, digest))

    def ledger(self, limit: int = 100) -> list[LedgerRow]:
        """The newest rows, oldest of them first."""
        rows = self._db.execute("SELECT * FROM ledger ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
        return [_ledger_row(row) for row in reversed(rows)]

    def decisions_by_kind(self, experiment: str) -> dict[str, int]:
        rows = self._db.execute("SELECT kind, count(*) FROM ledger WHERE experiment = ? GROUP BY kind", (experiment,))
        return dict(rows.fetchall())

    def last_plan(self) -> PlanRow | None:
        row = self._db.execute("SELECT * FROM plan ORDER BY revision DESC LIMIT 1").fetchone()
        return PlanRow(*row) if row else None

    def add_plan(self, plan: PlanRow) -> None:
        self._db.execute("INSERT INTO plan VALUES (?, ?, ?, ?, ?)", plan)

    def quarantine(self, endpoint: str, artifact: str, experiment: str, at: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?)", (endpoint, artifact, experiment, at))

    def quarantined(self, endpoint: str, artifact: str) -> str | None:
        """The experiment that rolled the artifact back, or None."""
        row = self._db.execute(
            "SELECT experiment FROM quarantine WHERE endpoint = ? AND artifact = ?", (endpoint, artifact)
        ).fetchone()
        return row[0] if row else None

    def release_from_quarantine(self, endpoint: str, artifact: str) -> None:
        self._db.execute("DELETE FROM quarantine WHERE endpoint = ? AND artifact = ?", (endpoint, artifact))

    def _migrate(self, path: Path | str) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreError(f"{path}: schema {version} is newer than this program's {SCHEMA_VERSION}")
        folder = resources.files("gateway.store") / "migrations"
        for number in range(version + 1, SCHEMA_VERSION + 1):
            script = (folder / f"{number:04d}.sql").read_text()
            self._db.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")


def _refuse_foreign(path: Path | str) -> None:
    """A file that is no database is never overwritten, and never ignored in favour of a new one."""
    if isinstance(path, Path) and path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise StoreError(f"{path}: not a SQLite file; move it away or name another store")


def _ledger_row(row: tuple[Any, ...]) -> LedgerRow:
    id, at, step, endpoint, experiment, kind, body, digest = row
    return LedgerRow(id, at, step, endpoint, experiment, kind, json.loads(body), digest)


def _signed(bucket: int) -> int:
    """A 64-bit hash as SQLite's signed integer."""
    return bucket - (1 << 64) if bucket >= _SIGN else bucket
