"""Closing and folding: votes whose outcome is settled move, in order, into the cells (rules R2, R4, R14).

A gateway metric closes when the request's completion is known, or when it is overdue: then it has failed. An outcome
metric closes when the watermark passes exposure + window + grace. The first vote that is still open
stops its metric's cursor, so the order of the fold is always the order of the coins.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from gateway.evidence.cells import OVERALL, WORST, Evidence
from gateway.evidence.definition import MetricDefinition
from gateway.store.base import GatewayRow, OutcomeRow, Store

MOST = 20_000  # votes folded for one metric in one step: bounds the length of a transaction

_Closed = tuple[int, str, bool, float, str, float | None]  # ordinal, stage, arm, pi, segments, value


def fold_metric(store: Store, evidence: Evidence, metric: MetricDefinition, cursor: int, watermark: int) -> int:
    """Fold every vote of one metric that is closed at the watermark; returns the new cursor."""
    definition = evidence.definition
    if metric.source == "gateway":
        rows = store.gateway_rows(definition.id, cursor)
        closed = _closed_requests(rows, metric, watermark - definition.answer_within_us)
    else:
        outcomes = store.outcome_rows(definition.id, metric.name, cursor)
        closed = _closed_windows(outcomes, watermark - metric.window_us - metric.grace_us)
    batch = list(islice(closed, MOST))
    if not batch:
        return cursor
    _fold_batch(evidence, metric, batch)
    return batch[-1][0]


def _closed_requests(rows: Iterator[GatewayRow], metric: MetricDefinition, overdue: int) -> Iterator[_Closed]:
    for row in rows:
        if row.ended is None and row.at > overdue:
            return
        failed = row.ended is None or bool(row.error)
        slow = metric.type == "latency" and (row.first_byte_us or 0) > metric.limit_us
        yield row.ordinal, row.stage, row.challenger, row.pi, row.segments, float(failed or slow)


def _closed_windows(rows: Iterator[OutcomeRow], until: int) -> Iterator[_Closed]:
    for row in rows:
        if row.at > until:
            return
        yield row.ordinal, row.stage, row.challenger, row.pi, row.segments, row.value


def _fold_batch(evidence: Evidence, metric: MetricDefinition, batch: list[_Closed]) -> None:
    _, stages, arms, pis, segments, values = zip(*batch, strict=True)
    z, pi = np.array(arms, dtype=np.bool_), np.array(pis)
    present = np.array([_usable(metric, value) for value in values])
    if metric.source == "outcome":
        if present.any():
            evidence.fold_ratio(metric.name, pi[present], z[present])
        absent = ~present
        evidence.count_missing(metric.name, int((absent & ~z).sum()), int((absent & z).sum()))
    is_objective = metric.name == evidence.definition.objective
    worst_g = np.array([_score(metric, v) if ok else 0.0 for v, ok in zip(values, present, strict=True)])
    if metric.source == "outcome" and metric.missing == "zero":
        filled = metric.score(0.0)
        g, taken = np.where(present, worst_g, filled), np.ones(len(z), dtype=np.bool_)
    else:
        g, taken = worst_g, present
    if taken.any():
        evidence.fold(metric, OVERALL, z[taken], pi[taken], g[taken])
        _fold_segments(evidence, metric, [s for s, ok in zip(segments, taken, strict=True) if ok], z, pi, g, taken)
    if is_objective:
        evidence.fold(metric, WORST, z, pi, worst_g)
        evidence.tally(list(stages), z)


def _fold_segments(
    evidence: Evidence,
    metric: MetricDefinition,
    segments: list[str],
    z: NDArray[np.bool_],
    pi: NDArray[np.float64],
    g: NDArray[np.float64],
    taken: NDArray[np.bool_],
) -> None:
    """The same units again, cut by each segment."""
    rows: dict[str, list[int]] = defaultdict(list)
    names = evidence.definition.segments
    parsed: dict[str, list[str]] = {text: json.loads(text) for text in set(segments)}
    for index, text in enumerate(segments):
        for name, value in zip(names, parsed[text], strict=False):
            rows[f"{name}={value}"].append(index)
    z, pi, g = z[taken], pi[taken], g[taken]
    for segment in sorted(rows):
        chosen = np.array(rows[segment])
        evidence.fold(metric, segment, z[chosen], pi[chosen], g[chosen])


def _usable(metric: MetricDefinition, value: float | None) -> bool:
    """A value outside the bounds can only come from a worker that no longer had the metric: never folded."""
    return value is not None and metric.low <= value <= metric.high


def _score(metric: MetricDefinition, value: float | None) -> float:
    assert value is not None
    return metric.score(value)
