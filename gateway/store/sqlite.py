"""The store of one machine: one SQLite file with exactly one writing connection.

One writer is not only enough but required: SQLite before 3.51.3 can corrupt a WAL that two connections
checkpoint at once. Readers (notebooks, `sqlite3 gateway.db`) open the file read-only whenever they like.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.clock import Clock, SystemClock
from gateway.events import Assignment, Completion, Outcome, Shadow
from gateway.store.connection import Connection
from gateway.store.draws import Draws
from gateway.store.facts import FactTables, json_text, signed
from gateway.store.folding import FoldTables
from gateway.store.releases import ReleaseTables
from gateway.store.sqlite_keeping import SqliteKeeping
from gateway.store.tables import FINITE


class SqliteStore(Connection, FactTables, FoldTables, ReleaseTables, SqliteKeeping):
    """Implements `store.base.Store`. Use from one thread at a time."""

    def __init__(self, path: Path | str, *, read_only: bool = False, clock: Clock | None = None) -> None:
        """Raises StoreError if the file cannot be had, is no store, newer, or damaged."""
        super().__init__(path, clock or SystemClock(), read_only=read_only)
        self._draws = Draws(self)

    def _forget(self) -> None:
        super()._forget()
        self._draws = Draws(self)

    @contextmanager
    def transaction(self, *, durable: bool = False, leading: bool = False) -> Iterator[None]:
        try:
            with super().transaction(durable=durable):
                yield
        except BaseException:
            self._draws.rolled_back()
            raise
        self._draws.committed()

    def among(self, column: str, values: Sequence[Any]) -> tuple[str, Any]:
        return f"{column} IN (SELECT value FROM json_each(?))", json.dumps(values)

    def object_of(self, name: str, value: str) -> str:
        # SQLite itself would write 15 digits.
        exact = f"CASE WHEN {value} {FINITE} THEN json(printf('%!.19g', {value})) END"
        return f"json_group_object({name}, {exact})"

    def sum_of(self, value: str, order: str) -> str:
        return f"sum({value})"  # outcomes are read in the order of their primary key

    def add_assignments(self, step: int, facts: Iterable[Assignment]) -> None:
        number = self._draws.number
        self.write_all(
            "INSERT INTO assignment VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    fact.decision,
                    fact.at,
                    number(fact),
                    signed(fact.bucket),
                    fact.unit,
                    json_text(fact.covariates),
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

    def add_outcomes(
        self, step: int, facts: Sequence[Outcome], *, attributed: bool = False
    ) -> list[tuple[Outcome, float]]:
        # A step may bring two batches: posted ones count up, attributed ones down.
        ordinals = range(-1, -len(facts) - 1, -1) if attributed else range(1, len(facts) + 1)
        inserted = self.write_all(
            "INSERT OR IGNORE INTO outcome VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (fact.decision, fact.metric, fact.id, fact.at, fact.value, step, ordinal, fact.happened_at)
                for ordinal, fact in zip(ordinals, facts, strict=True)
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
        for ordinal, fact in zip(ordinals, facts, strict=True):
            value, origin = kept[fact.decision, fact.metric, fact.id]
            if origin != [step, ordinal]:
                repeated.append((fact, value))
        return repeated
