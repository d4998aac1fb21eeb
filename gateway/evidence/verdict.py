"""What the evidence says: numbers and words for people, thresholds met or not for the policy. Pure."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from gateway.evidence.cells import ASSIGNED, OVERALL, WORST, Evidence
from gateway.evidence.definition import FUTILITY, HARM, NON_INFERIOR, PROMOTE, MetricDefinition
from gateway.stats import ScoreCell

Word = Literal["better", "worse", "undecided", "invalid"]
CONFIDENCE_ALPHA = 0.05  # of the intervals, two-sided


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """The error rates that a config allows."""

    alpha: float
    alpha_rollback: float
    alpha_errors: float
    alpha_guardrail: float
    alpha_srm: float
    futility: float = 0.05


class Test(msgspec.Struct, frozen=True, kw_only=True):
    """One hypothesis: its evidence and the level that it must reach, as natural logarithms.

    `log_e` is what decides: for harm the highest value so far (it latches, rule R16), else the present one.
    """

    metric: str
    segment: str
    name: str
    log_e: float
    needed: float
    now: float  # the present value: a suspicion may pass

    @property
    def met(self) -> bool:
        return self.log_e >= self.needed

    @property
    def progress(self) -> float:
        """0 to 1 on the way to the threshold."""
        return min(1.0, max(0.0, self.log_e / self.needed))


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """An effect, challenger minus champion, in the metric's unit, with its anytime-valid interval."""

    metric: str
    segment: str
    increase: bool
    units: tuple[int, int]
    lower: float
    estimate: float
    upper: float
    better: bool  # the whole interval lies on the better side


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known about one experiment at one fold step."""

    experiment: str
    units: int
    folded: int
    assigned: tuple[int, int]  # units by arm, champion first
    matured: dict[str, tuple[int, int]]  # objective units by stage: champion, challenger
    tests: tuple[Test, ...]
    estimates: tuple[Estimate, ...]
    sample_ratio_alarm: bool
    missing: tuple[float, float]  # of the objective, shares by arm
    worst_fill_needed: bool
    verdict: Word

    def test(self, metric: str, name: str, segment: str = OVERALL) -> Test | None:
        for test in self.tests:
            if (test.metric, test.name, test.segment) == (metric, name, segment):
                return test
        return None

    def estimate(self, metric: str, segment: str = OVERALL) -> Estimate | None:
        for estimate in self.estimates:
            if (estimate.metric, estimate.segment) == (metric, segment):
                return estimate
        return None


def judge(evidence: Evidence, thresholds: Thresholds, units: int, folded: int) -> Report:
    """Read the folded evidence against the thresholds."""
    definition = evidence.definition
    objective = definition.metric(definition.objective)
    missing = _missing(evidence, objective)
    tests = (*_tests(evidence, thresholds), *_segment_tests(evidence, objective, thresholds))
    # Where a missing outcome means zero, who has one is the result itself, and no sign of a broken split.
    ratios = [
        _threshold(name, OVERALL, "sample_ratio", ratio.log_e(), thresholds.alpha_srm)
        for name, ratio in sorted(evidence.ratios.items())
        if name == ASSIGNED or definition.metric(name).missing == "exclude"
    ]
    alarm = any(test.met for test in ratios)
    estimates = tuple(
        _estimate(evidence, metric, segment)
        for metric in definition.metrics
        for segment in (OVERALL, *evidence.segments_of(metric))
        if (metric.name, segment) in evidence.cells
    )
    matured = {
        stage: (evidence.matured[stage, 0], evidence.matured[stage, 1])
        for stage in sorted({stage for stage, _ in evidence.matured})
    }
    return Report(
        experiment=definition.id,
        units=units,
        folded=folded,
        assigned=_assigned(evidence),
        matured=matured,
        tests=(*tests, *ratios),
        estimates=estimates,
        sample_ratio_alarm=alarm,
        missing=missing,
        worst_fill_needed=objective.missing == "exclude" and max(missing) > 0.01,
        verdict=_word(tests, definition.objective, alarm),
    )


def _tests(evidence: Evidence, thresholds: Thresholds) -> list[Test]:
    """Evidence on whole metrics: those with a role that can decide."""
    tests: list[Test] = []
    for metric in evidence.definition.metrics:
        if metric.name != evidence.definition.objective and metric.margin is None:
            continue
        cell = evidence.cells.get((metric.name, OVERALL))
        tests += [
            _test(metric, OVERALL, name, cell, _alpha(metric, name, thresholds))
            for name in evidence.definition.bets(metric)
        ]
    objective = evidence.definition.metric(evidence.definition.objective)
    worst = evidence.cells.get((objective.name, WORST))
    if worst is not None:
        tests.append(_test(objective, WORST, PROMOTE, worst, thresholds.alpha))
    return tests


def _segment_tests(evidence: Evidence, objective: MetricDefinition, thresholds: Thresholds) -> list[Test]:
    """Harm in a segment, by e-Bonferroni over all declared segments: a harmed segment vetoes promotion."""
    # Every declared value and "other" count, seen or not: the family is fixed before the data.
    family = sum(len(values) + 1 for values in evidence.definition.segment_values)
    return [
        _test(objective, segment, HARM, evidence.cells[objective.name, segment], thresholds.alpha_rollback / family)
        for segment in evidence.segments_of(objective)
    ]


def _test(metric: MetricDefinition, segment: str, name: str, cell: ScoreCell | None, alpha: float) -> Test:
    if cell is None:
        return _threshold(metric.name, segment, name, 0.0, alpha)
    now = cell.log_e(name)
    return _threshold(metric.name, segment, name, cell.peak_log_e(name) if name == HARM else now, alpha, now)


def _threshold(metric: str, segment: str, name: str, log_e: float, alpha: float, now: float | None = None) -> Test:
    present = log_e if now is None else now
    return Test(metric=metric, segment=segment, name=name, log_e=log_e, needed=-math.log(alpha), now=present)


def _alpha(metric: MetricDefinition, name: str, thresholds: Thresholds) -> float:
    errors = metric.type == "binary" and metric.source == "gateway"
    return {
        PROMOTE: thresholds.alpha,
        HARM: thresholds.alpha_errors if errors else thresholds.alpha_rollback,
        NON_INFERIOR: thresholds.alpha_guardrail,
        FUTILITY: thresholds.futility,
    }[name]


def _estimate(evidence: Evidence, metric: MetricDefinition, segment: str) -> Estimate:
    cell = evidence.cells[metric.name, segment]
    interval = cell.interval(CONFIDENCE_ALPHA, v_opt=evidence.definition.v_opt(metric))
    ends = sorted((metric.effect(interval.lower), metric.effect(interval.upper)))
    return Estimate(
        metric=metric.name,
        segment=segment,
        increase=metric.increase,
        units=cell.counts,
        lower=ends[0],
        estimate=metric.effect(interval.estimate),
        upper=ends[1],
        better=interval.lower > 0,
    )


def _assigned(evidence: Evidence) -> tuple[int, int]:
    ratio = evidence.ratios.get(ASSIGNED)
    return (ratio.n - ratio.observed, ratio.observed) if ratio else (0, 0)


def _missing(evidence: Evidence, objective: MetricDefinition) -> tuple[float, float]:
    shares = []
    for arm in (0, 1):
        total = sum(n for (_, which), n in evidence.matured.items() if which == arm)
        shares.append(evidence.missing[objective.name, arm] / total if total else 0.0)
    return shares[0], shares[1]


def _word(tests: tuple[Test, ...], objective: str, alarm: bool) -> Word:
    if alarm:
        return "invalid"
    if any(test.name == HARM and test.segment == OVERALL and test.met for test in tests):
        return "worse"
    promote = next((t for t in tests if (t.metric, t.name, t.segment) == (objective, PROMOTE, OVERALL)), None)
    return "better" if promote is not None and promote.met else "undecided"
