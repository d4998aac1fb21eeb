"""Closing and folding: votes whose value is settled move, in order, into the cells (rules R2, R4, R14).

A gateway metric closes when the request's completion is known, or when it is overdue: then it has failed. An outcome
metric closes when the watermark reaches exposure + window + grace. The first vote that is still open stops its
metric's cursor, so the order of the fold is always the order of the coins. What counts is decided by the times of the
facts, never by when they were shipped: other step sizes give the same evidence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile

import numpy as np
from numpy.typing import NDArray

from gateway.evidence.cells import OVERALL, WORST, Evidence
from gateway.evidence.definition import MetricDefinition
from gateway.store.base import Measured, Store

MOST = 20_000  # votes folded for one metric in one step: bounds the length of a transaction
_FAILED = 1.0

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def fold_metric(store: Store, evidence: Evidence, metric: MetricDefinition, cursor: int, watermark: int) -> int:
    """Fold every vote of one metric that is closed at the watermark; returns the new cursor."""
    closed = _requests if metric.source == "gateway" else _windows
    batch = list(islice(closed(store, evidence, metric, cursor, watermark), MOST))
    if not batch:
        return cursor
    _fold_batch(evidence, metric, batch)
    return batch[-1][0]


def _requests(
    store: Store, evidence: Evidence, metric: MetricDefinition, cursor: int, watermark: int
) -> Iterator[Measured]:
    within = evidence.definition.answer_within_us
    overdue = watermark - within
    limit = metric.limit_us if metric.type == "latency" else None
    rows = store.request_values(evidence.definition.id, cursor, within, limit)
    return takewhile(lambda row: row[6] is not None or row[1] <= overdue, rows)


def _windows(
    store: Store, evidence: Evidence, metric: MetricDefinition, cursor: int, watermark: int
) -> Iterator[Measured]:
    until = watermark - metric.within_us
    rows = store.outcome_values(evidence.definition.id, metric.name, cursor, metric.within_us)
    return takewhile(lambda row: row[1] <= until, rows)


def _fold_batch(evidence: Evidence, metric: MetricDefinition, batch: list[Measured]) -> None:
    _, _, stages, arms, pis, segments, found = zip(*batch, strict=True)
    z, pi = np.array(arms, dtype=np.bool_), np.array(pis)
    values = np.array(found, dtype=np.float64)  # None becomes NaN
    if metric.source == "gateway":
        values[np.isnan(values)] = _FAILED
    # A value outside the bounds can only come from a worker that no longer had the metric: never folded.
    present = (values >= metric.low) & (values <= metric.high)
    worst = np.where(present, metric.score(np.where(present, values, metric.low)), 0.0)
    if metric.source == "outcome":
        _count_presence(evidence, metric, z, pi, present)
    g, taken = worst, present
    if metric.source == "outcome" and metric.missing == "zero":
        g, taken = np.where(present, worst, metric.score(np.zeros(1))), np.ones_like(present)
    if taken.any():
        evidence.fold(metric, OVERALL, z[taken], pi[taken], g[taken])
        _fold_segments(evidence, metric, segments, z, pi, g, taken)
    if metric.name == evidence.definition.objective:
        evidence.fold(metric, WORST, z, pi, worst)
        evidence.tally(stages, arms)


def _count_presence(evidence: Evidence, metric: MetricDefinition, z: Mask, pi: Floats, present: Mask) -> None:
    if present.any():
        evidence.fold_ratio(metric.name, pi[present], z[present])
    evidence.count_missing(metric.name, int((~present & ~z).sum()), int((~present & z).sum()))


def _fold_segments(
    evidence: Evidence, metric: MetricDefinition, texts: Sequence[str], z: Mask, pi: Floats, g: Floats, taken: Mask
) -> None:
    """The same units again, cut by each segment."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    codes = np.array([numbers[text] for text in texts])
    holders: dict[str, list[int]] = {}  # which texts hold a segment
    for text, number in numbers.items():
        for name, value in zip(evidence.definition.segments, json.loads(text), strict=False):
            holders.setdefault(f"{name}={value}", []).append(number)
    for segment in sorted(holders):
        chosen = taken & np.isin(codes, holders[segment])
        if chosen.any():
            evidence.fold(metric, segment, z[chosen], pi[chosen], g[chosen])
