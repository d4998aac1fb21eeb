"""Folding: what each vote counts in each metric, and the evidence that grows from it. Statements that engines share."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gateway.store.base import Lag, Measured, Scored, Settled
from gateway.store.tables import Tables


class FoldTables(Tables):
    """Votes with their values, cursors, evidence, and what nothing is folded from."""

    def request_errors(self, experiment: str, metric: str, after: int, within_us: int) -> Iterator[Measured]:
        failed = "CASE WHEN c.error <> '' THEN 1.0 WHEN c.error = '' THEN 0.0 END"
        return self._requests(metric, failed, experiment, after, within_us)

    def request_latencies(self, experiment: str, metric: str, after: int, within_us: int) -> Iterator[Measured]:
        # What never sent a first byte was waited for until it ended; a failure is slow whatever it took.
        first_byte = "coalesce(nullif(c.first_byte_us, 0), c.total_us)"
        value = f"CASE WHEN c.error <> '' THEN :infinite ELSE {first_byte} END"
        return self._requests(metric, value, experiment, after, within_us)

    def outcome_values(
        self, experiment: str, metric: str, parts: Sequence[tuple[str, str]], after: int, within_us: int
    ) -> Iterator[Measured]:
        again = self.row("SELECT 1 FROM revisit WHERE experiment = ? LIMIT 1", (experiment,)) is not None
        values = [self._aggregated(f":part{n}", aggregate, again) for n, (_, aggregate) in enumerate(parts)]
        named = {f"part{n}": part for n, (part, _) in enumerate(parts)}
        value, denominator = (*values, "NULL")[:2]
        return self._measured(value, denominator, "", experiment, metric, after, within_us, named)

    def scored_values(self, experiment: str, metric: str, after: int, within_us: int) -> Iterator[Scored]:
        predictions = self.object_of("s.variant", "s.prediction")
        rows = self.stream(
            f"SELECT {_VOTE}, CASE WHEN x.ordinal IS NULL THEN {self._aggregated(':metric', 'first', again=False)}"
            " ELSE x.value END, c.served, c.prediction, CASE WHEN c.error <> '' THEN 1 ELSE 0 END,"
            # What counts is decided by the times of the facts: later ones may or may not have been shipped by now.
            f" coalesce((SELECT {predictions} FROM shadow s WHERE s.decision = v.decision"
            f" AND s.at < v.at + :within{self.same_day('s', 'v.at')}), '{{}}'), x.predictions"
            f" FROM vote v {self._completion()} {_SETTLED}"
            " WHERE v.experiment = :experiment AND v.ordinal > :after ORDER BY v.ordinal",
            {"experiment": experiment, "metric": metric, "after": after, "within": within_us},
        )
        return map(_scored, rows)

    def _requests(self, metric: str, value: str, experiment: str, after: int, within_us: int) -> Iterator[Measured]:
        return self._measured(
            value, "NULL", self._completion(), experiment, metric, after, within_us, {"infinite": math.inf}
        )

    def _measured(
        self,
        value: str,
        denominator: str,
        joined: str,
        experiment: str,
        metric: str,
        after: int,
        within_us: int,
        named: Mapping[str, Any],
    ) -> Iterator[Measured]:
        """Votes with a value each: what was settled, or else what the facts say."""
        value, denominator = (
            f"CAST(CASE WHEN x.ordinal IS NULL THEN {fresh} ELSE x.{kept} END AS DOUBLE PRECISION)"
            for fresh, kept in ((value, "value"), (denominator, "denominator"))
        )
        rows = self.stream(
            f"SELECT {_VOTE}, {value}, {denominator} FROM vote v {joined} {_SETTLED}"
            " WHERE v.experiment = :experiment AND v.ordinal > :after ORDER BY v.ordinal",
            {"experiment": experiment, "metric": metric, "after": after, "within": within_us, **named},
        )
        return map(Measured._make, rows)

    def _completion(self) -> str:
        same_day = self.same_day("c", "v.at")
        return f"LEFT JOIN completion c ON c.decision = v.decision AND c.at < v.at + :within{same_day}"

    def _aggregated(self, metric: str, aggregate: str, again: bool) -> str:
        """A subselect of one metric's value; `again` where some unit of the experiment came more than once."""
        total = self.sum_of("o.value", "o.decision, o.id")
        what = {"first": "o.value", "sum": total, "count": "nullif(count(*), 0)", "max": "max(o.value)"}
        later = " UNION ALL SELECT r.decision FROM revisit r WHERE r.experiment = v.experiment AND r.vote = v.decision"
        decisions = f"IN (SELECT v.decision{later})" if again else f"= v.decision{self.same_day('o', 'v.at')}"
        first = " ORDER BY o.at, o.decision, o.id LIMIT 1" if aggregate == "first" else ""
        return (
            f"(SELECT {what[aggregate]} FROM outcome o WHERE o.decision {decisions} AND o.metric = {metric}"
            f" AND o.at < v.at + :within{first})"
        )

    def settle(self, experiment: str, metric: str, rows: Iterable[Settled]) -> None:
        self.write_all(
            "INSERT INTO settled (experiment, ordinal, metric, value, denominator, predictions)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(experiment, row.ordinal, metric, row.value, row.denominator, row.predictions) for row in rows],
        )

    def cursors(self, experiment: str) -> dict[str, int]:
        return dict(self.rows("SELECT metric, ordinal FROM cursor WHERE experiment = ?", (experiment,)))

    def save_cursor(self, experiment: str, metric: str, ordinal: int) -> None:
        self.write(
            "INSERT INTO cursor (experiment, metric, ordinal) VALUES (?, ?, ?)"
            " ON CONFLICT (experiment, metric) DO UPDATE SET ordinal = excluded.ordinal",
            (experiment, metric, ordinal),
        )

    def evidence(self, experiment: str) -> dict[str, bytes]:
        return dict(self.rows("SELECT key, state FROM evidence WHERE experiment = ?", (experiment,)))

    def save_evidence(self, experiment: str, step: int, states: Mapping[str, bytes]) -> None:
        self.write_all(
            "INSERT INTO evidence (experiment, key, state, step) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (experiment, key) DO UPDATE SET state = excluded.state, step = excluded.step",
            [(experiment, key, state, step) for key, state in sorted(states.items())],
        )

    # ------------------------------------------------------------------ what nothing is folded from

    def count(self, experiment: str, variant: str, name: str, more: int = 1) -> None:
        self.write(
            "INSERT INTO counter (experiment, variant, name, node, value) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (experiment, variant, name, node) DO UPDATE SET value = counter.value + excluded.value",
            (experiment, variant, name, self.node, more),
        )

    def counters(self, experiment: str) -> dict[tuple[str, str], int]:
        rows = self.rows(
            "SELECT variant, name, CAST(sum(value) AS BIGINT) FROM counter WHERE experiment = ? GROUP BY variant, name",
            (experiment,),
        )
        return {(variant, name): value for variant, name, value in rows}

    def count_lags(self, lags: Mapping[Lag, int]) -> None:
        self.write_all(
            "INSERT INTO lag (experiment, variant, metric, bucket, node, outcomes) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (experiment, variant, metric, bucket, node)"
            " DO UPDATE SET outcomes = lag.outcomes + excluded.outcomes",
            [(*lag, self.node, number) for lag, number in sorted(lags.items())],
        )

    def lags(self, experiment: str) -> dict[Lag, int]:
        rows = self.rows(
            "SELECT variant, metric, bucket, CAST(sum(outcomes) AS BIGINT) FROM lag WHERE experiment = ?"
            " GROUP BY variant, metric, bucket ORDER BY variant, metric, bucket",
            (experiment,),
        )
        return {Lag(experiment, variant, metric, bucket): number for variant, metric, bucket, number in rows}


_VOTE = "v.ordinal, v.at, v.stage, v.arm, v.odds, v.segments, v.covariates, v.complete"
_SETTLED = "LEFT JOIN settled x ON x.experiment = v.experiment AND x.ordinal = v.ordinal AND x.metric = :metric"


def _scored(row: tuple[Any, ...]) -> Scored:
    *known, served, prediction, failed, shadows, settled = row
    if settled is not None:
        served, prediction, failed, shadows = json.loads(settled)
    return Scored._make((*known, served, prediction, failed, shadows))
