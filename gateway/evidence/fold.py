"""From settled values to cells: scored, compared with the coins, cut by segment and by business cycle.

`fold_values` and `fold_pairs` are the whole way from numbers to evidence, also for simulations: whatever is said about
error rates is said about them. How a stream is cut into batches changes no bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gateway.evidence.batch import Batch, Floats, Mask, Units, coins
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import MetricDefinition
from gateway.evidence.report import CYCLE, OVERALL, WATCH, WORST
from gateway.evidence.scoring import SCALED, score


def fold_values(evidence: Evidence, metric: MetricDefinition, batch: Batch, values: Floats) -> None:
    """Fold one metric of a batch of votes, in the order of their coins.

    ``values`` has shape (n,), NaN where nothing is known: outcomes in the metric's own unit, of gateway metrics 0 or 1
    for `errors` and microseconds for a latency (inf for a failure). A ratio's have shape (n, 2).
    """
    # The scale of a metric grows with every vote in turn, so this comes before the stages part.
    scores = _scores(evidence, metric, batch, values)
    watching = batch.stages == WATCH
    for mask, fold in ((~watching, _fold_running), (watching, _fold_watch)):
        if mask.all():
            fold(evidence, metric, batch, scores)
        elif mask.any():
            fold(evidence, metric, batch.where(mask), scores.where(mask))


def fold_pairs(evidence: Evidence, metric: MetricDefinition, batch: Batch, losses: Floats) -> None:
    """Fold the pairs of a scored objective: ``losses`` of every arm's prediction, shape (n, arms), NaN for none."""
    running = batch.stages != WATCH
    batch, losses = batch.where(running), losses[running]
    g, cuts = score(metric, np.minimum(losses, metric.high)), _cuts(evidence, metric, batch)
    for arm in _challengers(evidence):
        difference = g[:, arm] - g[:, 0]
        _fold_cuts(evidence, arm, metric, Units(difference), ~np.isnan(difference), cuts)


@dataclass(frozen=True, slots=True, eq=False)
class _Scores:
    """What n units count in one metric."""

    g: Floats  # bigger better, NaN where nothing is known
    present: Mask  # has an outcome at all
    ready: Mask  # there was a scale before the coin
    raw: Floats  # of a latency, for its quantiles
    linear: Floats | None = None  # of what has a scale of its own, for its mean; NaN where there is none

    def where(self, mask: Mask) -> _Scores:
        linear = None if self.linear is None else self.linear[mask]
        return _Scores(self.g[mask], self.present[mask], self.ready[mask], self.raw[mask], linear)


def _scores(evidence: Evidence, metric: MetricDefinition, batch: Batch, values: Floats) -> _Scores:
    everyone = np.ones(len(batch), dtype=np.bool_)
    if metric.source == "gateway":
        values = np.where(np.isnan(values), np.inf, np.maximum(values, 0.0))  # overdue: it has failed
        failed = values > metric.limit_us if metric.type == "latency" else values > 0.0
        return _Scores(score(metric, failed.astype(np.float64)), everyone, everyone, values)
    if metric.type in SCALED:
        return _scaled(evidence, metric, batch, values)
    if metric.type == "score":
        values = np.minimum(values, metric.high)  # a prediction may be as wrong as it likes
    # A value outside the bounds can only come from a worker that no longer had the metric: never folded.
    top = np.inf if metric.type == "count" else metric.high
    present = (values >= metric.low) & (values <= top)
    if metric.missing == "zero":
        return _Scores(score(metric, np.where(present, values, 0.0)), everyone, everyone, values)
    return _Scores(score(metric, np.where(present, values, np.nan)), present, everyone, values)


def _scaled(evidence: Evidence, metric: MetricDefinition, batch: Batch, values: Floats) -> _Scores:
    pairs = values if values.ndim == 2 else np.stack([values, np.zeros(len(values))], axis=1)
    finite = np.isfinite(pairs)
    if metric.missing == "zero":
        pairs, finite = np.where(finite, pairs, 0.0), np.ones_like(finite)
    present = np.asarray(finite.all(axis=1))
    scorer = evidence.scorer(metric)
    if scorer.collecting:
        evidence.scorer_changed(metric)
    scaled = scorer.score(pairs, batch.arms == 0, present)
    return _Scores(scaled.g, present, scaled.ready, values, scaled.linear)


def _fold_running(evidence: Evidence, metric: MetricDefinition, batch: Batch, scores: _Scores) -> None:
    """Votes of the experiment itself."""
    definition = evidence.definition
    objective = metric.name == definition.objective
    if metric.labelled:
        evidence.fold_presence(metric, batch.arms, batch.odds, scores.present)
    if objective:
        evidence.tally(batch.stages.tolist(), batch.arms.tolist())
    cuts = _cuts(evidence, metric, batch)
    for arm in _challengers(evidence):
        pair, pi = batch.pair(arm)
        if metric.by_quantiles:
            evidence.fold_part("quantiles", arm, metric, coins(arm, batch, scores.raw, pi).where(pair))
        if scores.linear is not None:
            known = pair & ~np.isnan(scores.linear)
            evidence.fold_part("mean", arm, metric, coins(arm, batch, scores.linear, pi).where(known))
        if objective and definition.paired:
            continue  # decided by pairs
        units = coins(arm, batch, scores.g, pi, batch.x if objective and definition.covariates else None)
        _fold_cuts(evidence, arm, metric, units, pair & scores.present & scores.ready, cuts)
        if objective and metric.labelled:
            worst = coins(arm, batch, np.where(scores.present, scores.g, _against(metric, batch)), pi)
            evidence.fold(arm, metric, WORST, worst.where(pair & scores.ready))


def _against(metric: MetricDefinition, batch: Batch) -> Floats:
    """What a missing outcome is taken to have been: the worst, and with `bounds` the best where the champion has it."""
    return np.where((batch.arms == 0) & (metric.missing == "bounds"), 1.0, 0.0)


def _fold_watch(evidence: Evidence, metric: MetricDefinition, batch: Batch, scores: _Scores) -> None:
    """Votes after the promotion of one challenger: it against the holdback of the old champion."""
    for arm in _challengers(evidence):
        pair, pi = batch.pair(arm)
        units = coins(arm, batch, scores.g, pi).where(pair & scores.present & scores.ready)
        evidence.fold(arm, metric, WATCH, units)
        if metric.guards or metric.name == evidence.definition.objective:
            evidence.fold_part("watch", arm, metric, units)


@dataclass(frozen=True, slots=True, eq=False)
class _Cuts:
    """Which units of a batch belong to each segment, and to each business cycle."""

    segments: dict[str, Mask]
    cycles: dict[int, Mask]


def _cuts(evidence: Evidence, metric: MetricDefinition, batch: Batch) -> _Cuts:
    definition = evidence.definition
    objective = metric.name == definition.objective
    segments = batch.holders(definition.segments) if objective or metric.guards else {}
    if not (objective and definition.cycle_us and len(batch)):
        return _Cuts(segments, {})
    evidence.first_at = evidence.first_at or int(batch.at[0])
    numbers = (batch.at - evidence.first_at) // definition.cycle_us
    return _Cuts(segments, {number: numbers == number for number in np.unique(numbers).tolist()})


def _fold_cuts(evidence: Evidence, arm: int, metric: MetricDefinition, units: Units, taken: Mask, cuts: _Cuts) -> None:
    evidence.fold(arm, metric, OVERALL, units.where(taken))
    plain = units.unadjusted()
    for segment, held in cuts.segments.items():
        evidence.fold(arm, metric, segment, plain.where(taken & held))
    for cycle, within in cuts.cycles.items():
        evidence.enter_cycle(arm, cycle)
        evidence.fold(arm, metric, CYCLE, plain.where(taken & within))


def _challengers(evidence: Evidence) -> range:
    return range(1, len(evidence.definition.arms))
