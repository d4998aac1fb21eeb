"""What still stands between a challenger and its next stage, or promotion: in words, empty when nothing does. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

from gateway.evidence.definition import HARM, NON_INFERIOR, PROMOTE
from gateway.evidence.report import LAST_CYCLE, NOT_SEGMENTS, OVERALL, WORST, Test
from gateway.plan import KeptPlan
from gateway.release.view import View
from gateway.release.words import of


def blockers(view: View, challenger: str) -> list[str]:
    """What stands between one challenger and promotion (section 1.3 and R11-R16 of the statistics)."""
    return [
        *stage_needs(view, (challenger,)),
        *_later_stage(view),
        *_evidence(view, challenger),
        *_guards(view, challenger),
        *_whole_log(view, challenger),
        *_cycles(view, challenger),
        *_segments(view, challenger),
    ]


def stage_needs(view: View, challengers: Sequence[str]) -> list[str]:
    """What the present stage still demands of these challengers before the next."""
    stage, definition = view.stage, view.definition
    matured = view.report.matured.get(stage.name, (0,) * len(definition.arms))
    needs = ["its models in every worker"] if view.loading else []
    if view.disagreement:
        needs.append(f"one config on all nodes: {view.disagreement}")
    if sum(matured) < stage.min_units:
        needs.append(f"{sum(matured)} of {stage.min_units} units in {stage.name}")
    for name in challengers:
        units = matured[definition.arm(name)]
        if units < stage.min_challenger_units:
            needs.append(f"{units} of {stage.min_challenger_units} units of {name} in {stage.name}")
    left = stage.min_duration_us - (view.now_us - view.state.stage_since_us)
    if left > 0:
        needs.append(f"{left / 1e6:.0f} s more in {stage.name}")
    return needs


def missing(view: View) -> str:
    """What is being waited for, of everybody in the running."""
    contenders = view.state.contenders
    if view.next_stage is not None:
        return "before the next stage: " + ", ".join(stage_needs(view, contenders))
    each = (view.named(name, ", ".join(blockers(view, name))) for name in contenders)
    return "before promotion: " + "; ".join(each)


def suspicion(view: View, challengers: Sequence[str]) -> Test | None:
    """The strongest present sign of harm, if it is strong enough to hold; unlike proof, a suspicion may pass."""
    level = math.log(view.rules.hold_at)
    tests = [test for name in challengers for test in view.tests(HARM, name)]
    signs = [test for test in tests if test.segment == OVERALL and test.now >= level]
    return max(signs, key=lambda test: test.now, default=None)


def alarmed_signals(view: View, challenger: str) -> list[Test]:
    """Signals that are proved to be worse: they hold, no more."""
    signals = (metric.name for metric in view.definition.metrics if metric.signal)
    tests = (view.test(metric, HARM, challenger) for metric in signals)
    return [test for test in tests if test is not None and test.met]


def harmed(view: View, challenger: str) -> list[Test]:
    """The first met test of each segment that is proved to be harmed in a metric that decides."""
    first: dict[str, Test] = {}
    for test in view.tests(HARM, challenger):
        if test.segment not in NOT_SEGMENTS and test.met:
            first.setdefault(test.segment, test)
    return list(first.values())


def kept(view: View, challenger: str) -> tuple[KeptPlan, ...]:
    """Harmed segments stay with the champion, where the config restricts a promotion instead of refusing it."""
    if view.rules.segment_harm != "restrict":
        return ()
    pairs = (test.segment.split("=", 1) for test in harmed(view, challenger))
    return tuple(KeptPlan(segment=name, value=value, variant=view.state.champion) for name, value in pairs)


def _later_stage(view: View) -> Iterator[str]:
    if (following := view.next_stage) is not None:
        yield f"the stage {following.name}"


def _evidence(view: View, challenger: str) -> Iterator[str]:
    report, objective = view.report, view.definition.objective
    promote = view.test(objective, PROMOTE, challenger)
    if promote is None or not promote.met:
        yield f"evidence for {objective} {of(promote)}"
    worst = view.test(objective, PROMOTE, challenger, WORST)
    if report.worst_fill_needed and (worst is None or not worst.met):
        yield f"evidence for {objective} with the worst value for missing outcomes {of(worst)}"
    estimate = report.estimate(objective, OVERALL, challenger)
    if estimate is None or not estimate.better:
        least = f"effects below {view.definition.min_effect}" if view.definition.require_min_effect else "no effect"
        yield f"the interval of {objective} includes {least}"


def _guards(view: View, challenger: str) -> Iterator[str]:
    for guardrail in view.definition.guardrails:
        test = view.test(guardrail.name, NON_INFERIOR, challenger)
        if test is None or not test.met:
            yield f"guardrail {guardrail.name} {of(test)}"
    for signal in alarmed_signals(view, challenger):
        yield f"signal {signal.metric} is worse"


def _whole_log(view: View, challenger: str) -> Iterator[str]:
    report, objective = view.report, view.definition.metric(view.definition.objective)
    if report.sample_ratio_alarm:
        yield "sample ratio mismatch"
    share = max(report.missing[0], report.missing[view.definition.arm(challenger)])
    if share > objective.max_missing:
        yield f"{share:.1%} of the outcomes of {objective.name} are missing"
    if view.facts_lost:
        yield "assignments were lost"


def _cycles(view: View, challenger: str) -> Iterator[str]:
    if not view.definition.cycle_us:
        return
    if view.report.cycles < 1:
        yield "a whole business cycle"
    last = view.test(view.definition.objective, HARM, challenger, LAST_CYCLE)
    if last is not None and last.met:
        yield "the last cycle was worse"


def _segments(view: View, challenger: str) -> Iterator[str]:
    found = [test.segment for test in harmed(view, challenger)]
    if view.rules.segment_harm != "restrict":
        yield from (f"segment {segment} is harmed" for segment in found)
        return
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for test in view.tests(HARM, challenger):
        if test.segment not in NOT_SEGMENTS:
            seen[test.segment.split("=", 1)[0]].add(test.segment)
    for name, segments in seen.items():
        if segments <= set(found):
            yield f"every segment of {name} is harmed"
