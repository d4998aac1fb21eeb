"""What the evidence says: numbers and words for people, thresholds met or not for the policy. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain

from gateway.evidence.cells import Evidence
from gateway.evidence.challenger import Challenger
from gateway.evidence.definition import FUTILITY, HARM, NOT_WORSE, PROMOTE, Definition, MetricDefinition
from gateway.evidence.report import (
    ASSIGNED,
    OVERALL,
    Report,
    Test,
    Thresholds,
    Word,
)


def judge(evidence: Evidence, thresholds: Thresholds, units: int, folded: int) -> Report:
    """Read the folded evidence against the thresholds."""
    definition = evidence.definition
    objective = definition.metric(definition.objective)
    judged = {name: Challenger(evidence, thresholds, arm) for arm, name in enumerate(definition.arms) if arm}
    tests = {name: list(one.tests()) for name, one in judged.items()}
    ratios = list(_ratios(evidence, thresholds))
    alarm = any(test.met for test in ratios)
    words = {name: _words(tests[name], one.segments, definition, alarm) for name, one in judged.items()}
    verdicts = {name: by_segment.pop(OVERALL) for name, by_segment in words.items()}
    missing = _missing(evidence, objective)
    return Report(
        experiment=definition.id,
        units=units,
        folded=folded,
        assigned=_assigned(evidence),
        matured=_matured(evidence),
        tests=(*chain.from_iterable(tests.values()), *ratios),
        estimates=tuple(estimate for one in judged.values() for estimate in one.estimates()),
        sample_ratio_alarm=alarm,
        missing=missing,
        # However few are missing: where failures are rare, they may be all of them (rule R14 without its 1 %).
        worst_fill_needed=objective.labelled and not definition.paired and max(missing) > 0.0,
        verdict=_overall(list(verdicts.values())),
        verdicts=verdicts,
        segment_verdicts=words,
        cycles=min(evidence.cycles[arm] for arm in range(1, len(definition.arms))),
        thresholds=thresholds,
    )


def _ratios(evidence: Evidence, thresholds: Thresholds) -> Iterator[Test]:
    """Do units, and units with an outcome, arrive as the coins promise? e-Bonferroni over the arms."""
    definition, arms = evidence.definition, evidence.counted_arms
    needed = math.log(len(arms) / thresholds.alpha_srm)
    # Where a missing outcome means zero, who has one is the result itself, and no sign of a broken split.
    labelled = [one.name for one in definition.metrics if one.labelled]
    for name in (ASSIGNED, *labelled):
        for arm in arms:
            ratio = evidence.find("coins", str(arm)) if name == ASSIGNED else evidence.find("ratio", str(arm), name)
            if ratio is not None:
                log_e = ratio.log_e()
                yield Test(
                    challenger=definition.arms[arm] if len(arms) > 1 else "",
                    metric=name,
                    segment=OVERALL,
                    name="sample_ratio",
                    log_e=log_e,
                    needed=needed,
                    now=log_e,
                )


def _assigned(evidence: Evidence) -> tuple[int, ...]:
    """Votes by arm. An arm that no coin could give yet has none."""
    ratios = {arm: evidence.find("coins", str(arm)) for arm in evidence.counted_arms}
    counted = {arm: ratio.observed for arm, ratio in ratios.items() if ratio is not None}
    if 0 not in ratios and counted:
        counted[0] = ratios[1].n - counted[1]
    return tuple(counted.get(arm, 0) for arm in range(len(evidence.definition.arms)))


def _matured(evidence: Evidence) -> dict[str, tuple[int, ...]]:
    arms = range(len(evidence.definition.arms))
    stages = sorted({stage for stage, _ in evidence.matured})
    return {stage: tuple(evidence.matured[stage, arm] for arm in arms) for stage in stages}


def _missing(evidence: Evidence, objective: MetricDefinition) -> tuple[float, ...]:
    shares = []
    for arm in range(len(evidence.definition.arms)):
        total = sum(n for (_, which), n in evidence.matured.items() if which == arm)
        shares.append(evidence.missing[objective.name, arm] / total if total else 0.0)
    return tuple(shares)


def _words(tests: list[Test], segments: list[str], definition: Definition, alarm: bool) -> dict[str, Word]:
    """One word for one challenger overall, and one in each segment."""
    met: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for test in tests:
        if test.met:
            met[test.segment].add((test.metric, test.name))
    return {segment: "invalid" if alarm else _word(met[segment], definition) for segment in (OVERALL, *segments)}


def _word(met: set[tuple[str, str]], definition: Definition) -> Word:
    objective = definition.objective
    if any((metric.name, HARM) in met for metric in definition.metrics if not metric.signal):
        return "worse"
    if (objective, PROMOTE) in met:
        return "better"
    return "equivalent" if {(objective, FUTILITY), (objective, NOT_WORSE)} <= met else "undecided"


def _overall(words: list[Word]) -> Word:
    """The experiment's word: the best that is said of any challenger, as the best may be promoted."""
    order: tuple[Word, ...] = ("invalid", "better", "undecided", "equivalent", "worse")
    return min(words, key=order.index)
