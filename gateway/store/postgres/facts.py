"""Facts in bulk: by COPY where a fact can come only once, else as arrays in one INSERT."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from operator import itemgetter
from typing import Any, Final

from gateway.events import Assignment, Completion, Outcome, Shadow
from gateway.store.draws import Draws
from gateway.store.facts import FactTables, json_text, signed
from gateway.store.postgres.days import Days, day_of
from gateway.store.postgres.dialect import array

_ASSIGNMENT: Final = ("decision", "at", "draw", "bucket", "unit", "covariates", "step", "day")
_COMPLETION: Final = (
    *("decision", "at", "served", "ended", "status", "first_byte_us", "total_us", "error", "step", "prediction"),
    *("tries", "day"),
)
_SHADOW: Final = "INSERT INTO shadow (decision, variant, at, total_us, error, prediction, step, day)"
_OUTCOME: Final = {
    "decision": "bigint",
    "metric": "text",
    "id": "text",
    "at": "bigint",
    "value": "double precision",
    "step": "bigint",
    "ordinal": "bigint",
    "happened_at": "bigint",
    "day": "bigint",
}


class PostgresFacts(Days, FactTables):
    """How facts are written."""

    def _forget(self) -> None:
        super()._forget()
        self._draws = Draws(self)

    def _committed(self) -> None:
        super()._committed()
        self._draws.committed()

    def _rolled_back(self) -> None:
        super()._rolled_back()
        self._draws.rolled_back()

    def add_assignments(self, step: int, facts: Iterable[Assignment]) -> None:
        number = self._draws.number
        with self.together():
            self._copy(
                "assignment",
                _ASSIGNMENT,
                [
                    (
                        fact.decision,
                        fact.at,
                        number(fact),
                        signed(fact.bucket),
                        fact.unit,
                        json_text(fact.covariates),
                        step,
                        day_of(fact.at),
                    )
                    for fact in facts
                ],
            )

    def add_completions(self, step: int, facts: Iterable[Completion]) -> None:
        with self.together():
            self._copy(
                "completion",
                _COMPLETION,
                [
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
                        day_of(fact.assigned_at or fact.at),
                    )
                    for fact in facts
                ],
            )

    def add_shadows(self, step: int, facts: Iterable[Shadow]) -> None:
        rows = [
            (
                fact.decision,
                fact.variant,
                fact.at,
                fact.total_us,
                fact.error,
                fact.prediction,
                step,
                day_of(fact.assigned_at or fact.at),
            )
            for fact in facts
        ]
        with self.together():
            self._ensure("shadow", {row[-1] for row in rows})
            # A worker offers each copy once, but a plan that names a variant twice over must not stop the shipping.
            self.write_all(f"{_SHADOW} VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def add_outcomes(
        self, step: int, facts: Sequence[Outcome], *, attributed: bool = False
    ) -> list[tuple[Outcome, float]]:
        if not facts:
            return []
        ordinals = range(-1, -len(facts) - 1, -1) if attributed else range(1, len(facts) + 1)
        rows = [
            (
                fact.decision,
                fact.metric,
                fact.id,
                fact.at,
                fact.value,
                step,
                ordinal,
                fact.happened_at,
                day_of(fact.assigned_at or fact.at),
            )
            for ordinal, fact in zip(ordinals, facts, strict=True)
        ]
        rows.sort(key=itemgetter(0, 1, 2))  # nodes that write the same ones wait for each other in the same order
        with self.together():
            days = {row[-1] for row in rows}
            self._ensure("outcome", days)
            fresh = self._insert_outcomes(rows)
            if len(fresh) == len(facts):
                return []
            kept = self._kept_outcomes({fact.decision for fact in facts}, days)
        return [
            (fact, kept[fact.decision, _text(fact.metric), _text(fact.id)])
            for ordinal, fact in zip(ordinals, facts, strict=True)
            if ordinal not in fresh
        ]

    def _insert_outcomes(self, rows: Sequence[tuple[Any, ...]]) -> set[int]:
        """The ordinals of those that were new. Who comes second waits until the first has committed, or has not."""
        arrays = [array(values, kind) for values, kind in zip(zip(*rows, strict=True), _OUTCOME.values(), strict=True)]
        given = ", ".join(f"CAST(? AS {kind}[])" for kind in _OUTCOME.values())
        inserted = self.rows(
            f"INSERT INTO outcome ({', '.join(_OUTCOME)}) SELECT * FROM unnest({given})"
            " ON CONFLICT DO NOTHING RETURNING ordinal",
            arrays,
        )
        return {ordinal for (ordinal,) in inserted}

    def _kept_outcomes(self, decisions: Collection[int], days: Collection[int]) -> dict[tuple[int, str, str], float]:
        condition, among = self.among("decision", list(decisions))
        of_days, wanted = self.among("day", list(days))
        rows = self.rows(
            f"SELECT decision, metric, id, value FROM outcome WHERE {condition} AND {of_days}", (among, wanted)
        )
        return {(decision, metric, id): value for decision, metric, id, value in rows}

    def _copy(self, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows of which the last column is the day. Raises StoreError if one of them is there already."""
        if not rows:
            return
        self._ensure(table, {row[-1] for row in rows})
        self.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN", rows)


def _text(value: str) -> str:
    """As it is kept (`dialect.array`)."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
