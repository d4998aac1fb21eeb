"""What the evidence says about one challenger: each hypothesis with its level, each effect with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gateway.evidence.cells import Evidence
from gateway.evidence.definition import FUTILITY, HARM, NON_INFERIOR, NOT_WORSE, PROMOTE, MetricDefinition
from gateway.evidence.parts import Cell
from gateway.evidence.report import CYCLE, LAST_CYCLE, OVERALL, WATCH, WORST, Estimate, Test, Thresholds
from gateway.stats import PairedCell

CONFIDENCE_ALPHA = 0.05  # of the intervals, two-sided
CYCLE_ALPHA = 0.05  # at which a business cycle of its own is called worse


class Challenger:
    """Everything that is said about one challenger."""

    def __init__(self, evidence: Evidence, thresholds: Thresholds, arm: int) -> None:
        self._evidence = evidence
        self._definition = evidence.definition
        self._thresholds = thresholds
        self._arm = arm
        self._name = evidence.definition.arms[arm]
        self._objective = evidence.definition.metric(evidence.definition.objective)
        self.segments = evidence.segments_of(arm, self._objective)

    def tests(self) -> Iterator[Test]:
        """By role: what can decide comes first; metrics without a role are only estimated."""
        for metric in self._definition.metrics:
            if metric.name == self._objective.name or metric.guards or metric.signal:
                yield from self._overall(metric)
                yield from self._in_segments(metric)
        if self._cell(self._objective, WORST) is not None:
            yield self._test(self._objective, PROMOTE, WORST)
        if self._cell(self._objective, LAST_CYCLE) is not None:
            yield self._test(self._objective, HARM, LAST_CYCLE)
        yield from self._watch()

    def estimates(self) -> Iterator[Estimate]:
        for metric in self._definition.metrics:
            segments = self._evidence.segments_of(self._arm, metric)
            for segment in (OVERALL, *segments, CYCLE, LAST_CYCLE, WATCH):
                cell = self._cell(metric, segment)
                if cell is not None:
                    yield self._estimate(metric, segment, cell)
            mean = self._evidence.find("mean", str(self._arm), metric.name)
            if mean is not None and mean.n0 and mean.n1:
                scorer = self._evidence.scorer(metric)
                low, estimate, high = (scorer.mean_effect(end) for end in mean.interval(CONFIDENCE_ALPHA))
                yield self._mean(metric, (mean.n0, mean.n1), low, estimate, high)

    def _overall(self, metric: MetricDefinition) -> Iterator[Test]:
        if metric.by_quantiles:
            for name in self._definition.latency_bets():
                yield self._quantile_test(metric, name)
            return
        for name in self._definition.bets(metric):
            yield self._test(metric, name, OVERALL)

    def _in_segments(self, metric: MetricDefinition) -> Iterator[Test]:
        for segment in self._evidence.segments_of(self._arm, metric):
            yield self._test(metric, HARM, segment)
            if metric.name == self._objective.name:
                yield self._test(metric, PROMOTE, segment)

    def _watch(self) -> Iterator[Test]:
        """After a promotion: alarms of the detectors, which come once in `run_length` units if nothing changed."""
        for metric in self._definition.metrics:
            held = self._evidence.find("watch", str(self._arm), metric.name)
            if held is not None and held.detector.n:
                peak, now = held.detector.peak_log_sr, held.detector.log_sr
                yield self._threshold(metric, HARM, WATCH, peak, math.log(self._thresholds.run_length), now)

    def _test(self, metric: MetricDefinition, name: str, segment: str) -> Test:
        needed = -math.log(self._alpha(metric, name, segment))
        cell = self._cell(metric, segment)
        if cell is None:
            return self._threshold(metric, name, segment, 0.0, needed, 0.0)
        now = cell.log_e(name)
        return self._threshold(metric, name, segment, cell.peak_log_e(name) if name == HARM else now, needed, now)

    def _quantile_test(self, metric: MetricDefinition, name: str) -> Test:
        needed = -math.log(self._alpha(metric, name, OVERALL))
        guard = self._evidence.find("quantiles", str(self._arm), metric.name)
        if guard is None:
            return self._threshold(metric, name, OVERALL, 0.0, needed, 0.0)
        # Harm at any quantile, but a pass only at all of them.
        if name == HARM:
            return self._threshold(metric, name, OVERALL, guard.peak_log_e(name), needed, guard.log_e(name))
        weakest = guard.weakest_log_e(name)
        return self._threshold(metric, name, OVERALL, weakest, needed, weakest)

    def _threshold(
        self, metric: MetricDefinition, name: str, segment: str, log_e: float, needed: float, now: float
    ) -> Test:
        return Test(
            challenger=self._name,
            metric=metric.name,
            segment=segment,
            name=name,
            log_e=log_e,
            needed=needed,
            now=now,
        )

    def _alpha(self, metric: MetricDefinition, name: str, segment: str) -> float:
        thresholds, rivals = self._thresholds, len(self._definition.challengers)
        if segment == LAST_CYCLE:
            return CYCLE_ALPHA
        if name == PROMOTE:
            # The best of several: e-Bonferroni over the challengers (M1), in segments also over those.
            return thresholds.alpha / rivals / (1 if segment in (OVERALL, WORST) else self._family)
        if name == HARM:
            errors = metric.type == "binary" and metric.source == "gateway"
            alpha = thresholds.alpha_errors if errors else thresholds.alpha_rollback
            return alpha if segment == OVERALL else alpha / self._family
        return {
            NON_INFERIOR: thresholds.alpha_guardrail,
            FUTILITY: thresholds.futility,
            NOT_WORSE: thresholds.futility,
        }[name]

    @property
    def _family(self) -> int:
        """Segment tests of one metric: every declared value and "other", seen or not, fixed before the data."""
        return sum(len(values) + 1 for values in self._definition.segment_values)

    def _cell(self, metric: MetricDefinition, segment: str) -> Cell | None:
        found: Cell | None = self._evidence.find("cell", str(self._arm), metric.name, segment)
        return found

    def _estimate(self, metric: MetricDefinition, segment: str, cell: Cell) -> Estimate:
        interval = self._evidence.interval(self._arm, metric, segment, CONFIDENCE_ALPHA)
        units = (cell.n, cell.n) if isinstance(cell, PairedCell) else cell.counts
        ends = sorted((metric.effect(interval.lower), metric.effect(interval.upper)))
        least = 0.0
        if metric.name == self._objective.name and self._definition.require_min_effect:
            least = self._definition.min_effect / metric.span
        return Estimate(
            challenger=self._name,
            metric=metric.name,
            segment=segment,
            increase=metric.increase,
            units=units,
            lower=ends[0],
            estimate=metric.effect(interval.estimate),
            upper=ends[1],
            better=interval.lower > least,
            worse=interval.upper < 0.0,
        )

    def _mean(
        self, metric: MetricDefinition, units: tuple[int, int], low: float, estimate: float, high: float
    ) -> Estimate:
        """The mean of an unbounded metric: information, so it is neither better nor worse."""
        return Estimate(
            challenger=self._name,
            metric=metric.name,
            segment=OVERALL,
            increase=metric.increase,
            units=units,
            lower=low,
            estimate=estimate,
            upper=high,
            better=False,
            method="asymptotic",
        )
