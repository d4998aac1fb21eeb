"""Closing: which votes are settled, and with which value; those are folded, in order (rules R2, R4, R14).

A gateway metric closes when the request's completion is known, or when it is overdue: then it has failed. An outcome
metric closes when the watermark reaches exposure + window + grace. The first vote that is still open stops its
metric's cursor, so the order of the fold is always the order of the coins. What counts is decided by the times of the
facts, never by when they were shipped: other step sizes give the same evidence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile

import numpy as np

from gateway.evidence.batch import Batch, Floats, column
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.evidence.fold import fold_pairs, fold_values
from gateway.evidence.scoring import loss
from gateway.store.base import Measured, Scored, Store

MOST = 20_000  # votes folded for one metric in one step: bounds the length of a transaction


def fold_metric(store: Store, evidence: Evidence, metric: MetricDefinition, cursor: int, watermark: int) -> int:
    """Fold every vote of one metric that is closed at the watermark; returns the new cursor."""
    if metric.type == "score":
        scored = list(islice(_labelled(store, evidence.definition, metric, cursor, watermark), MOST))
        if counted := [row for row in scored if row.complete]:
            _fold_scored(evidence, metric, counted)
        return scored[-1].ordinal if scored else cursor
    rows = list(islice(_closed(store, evidence.definition, metric, cursor, watermark), MOST))
    if counting := _counted(metric, rows):
        _fold_measured(evidence, metric, counting)
    return rows[-1].ordinal if rows else cursor


def fold_through(
    store: Store, evidence: Evidence, metric: MetricDefinition, cursor: int, last: int, most: int = MOST
) -> int:
    """Fold votes behind the cursor up to the last one, closed or not, for it is written down that they were folded.

    At most so many; returns the new cursor, which stays where it was if there are none.
    """
    if metric.type == "score":
        labelled = store.scored_values(evidence.definition.id, metric.name, cursor, metric.within_us)
        scored = list(islice(takewhile(lambda row: row.ordinal <= last, labelled), most))
        if counted := [row for row in scored if row.complete]:
            _fold_scored(evidence, metric, counted)
        return scored[-1].ordinal if scored else cursor
    values = measured(store, evidence.definition.id, evidence.definition, metric, cursor)
    rows = list(islice(takewhile(lambda row: row.ordinal <= last, values), most))
    if counting := _counted(metric, rows):
        _fold_measured(evidence, metric, counting)
    return rows[-1].ordinal if rows else cursor


def _closed(
    store: Store, definition: Definition, metric: MetricDefinition, cursor: int, watermark: int
) -> Iterator[Measured]:
    rows = measured(store, definition.id, definition, metric, cursor)
    if metric.source == "outcome":
        until = watermark - metric.within_us
        return takewhile(lambda row: row.at <= until, rows)
    overdue = watermark - definition.answer_within_us
    return takewhile(lambda row: row.value is not None or row.at <= overdue, rows)


def measured(
    store: Store, experiment: str, definition: Definition, metric: MetricDefinition, cursor: int = 0
) -> Iterator[Measured]:
    """Votes of an experiment behind the cursor, open ones too, with their values as this definition has the metric."""
    if metric.source == "outcome":
        return store.outcome_values(experiment, metric.name, _parts(definition, metric), cursor, metric.within_us)
    read = store.request_latencies if metric.type == "latency" else store.request_errors
    return read(experiment, metric.name, cursor, definition.answer_within_us)


def values_of(metric: MetricDefinition, rows: Sequence[Measured]) -> Floats:
    """In the form in which the fold takes them."""
    values = column(row.value for row in rows)
    if metric.type == "ratio":
        values = np.stack([values, column(row.denominator for row in rows)], axis=1)
    return values


def losses_of(metric: MetricDefinition, rows: Sequence[Scored]) -> Floats:
    """What was answered, scored by its label."""
    return loss(metric.loss, column(row.prediction for row in rows), column(row.label for row in rows))


def _labelled(
    store: Store, definition: Definition, metric: MetricDefinition, cursor: int, watermark: int
) -> Iterator[Scored]:
    until = watermark - metric.within_us
    rows = store.scored_values(definition.id, metric.name, cursor, metric.within_us)
    return takewhile(lambda row: row.at <= until, rows)


def _parts(definition: Definition, metric: MetricDefinition) -> list[tuple[str, str]]:
    """The outcomes that make up a metric's value, each with how several of one unit become one number."""
    if metric.type != "ratio":
        return [(metric.name, metric.aggregate)]
    return [(name, definition.metric(name).aggregate) for name in (metric.numerator, metric.denominator)]


def _counted(metric: MetricDefinition, rows: list[Measured]) -> list[Measured]:
    """While an earlier window of the unit is open, what it brings belongs to the earlier vote."""
    return [row for row in rows if row.complete] if metric.source == "outcome" else rows


def _fold_measured(evidence: Evidence, metric: MetricDefinition, rows: list[Measured]) -> None:
    fold_values(evidence, metric, Batch.of(rows, evidence.definition.covariates), values_of(metric, rows))


def _fold_scored(evidence: Evidence, metric: MetricDefinition, rows: list[Scored]) -> None:
    """Labels meet the predictions that were made for them: of the variant that answered, and of its shadows."""
    definition = evidence.definition
    batch = Batch.of(rows, definition.covariates)
    fold_values(evidence, metric, batch, losses_of(metric, rows))
    if definition.paired and metric.name == definition.objective:
        labels = column(row.label for row in rows)
        predicted = np.array([_predictions(row, definition.arms) for row in rows], dtype=np.float64)
        fold_pairs(evidence, metric, batch, loss(metric.loss, predicted, labels[:, None]))


def _predictions(row: Scored, arms: tuple[str, ...]) -> list[float | None]:
    """What each arm predicted for the request of one vote, None where it did not.

    A challenger that was asked and failed has lost by as much as can be, else it would do well to fail at what is hard.
    Without the champion's prediction there is no pair: its failures win nothing.
    """
    asked: dict[str, float | None] = json.loads(row.shadows)
    if row.failed:
        asked[arms[row.arm]] = None
    if row.served is not None and row.prediction is not None:
        asked[row.served] = row.prediction
    champion, *challengers = arms
    return [asked.get(champion), *(math.inf if asked.get(arm, 0.0) is None else asked.get(arm) for arm in challengers)]
