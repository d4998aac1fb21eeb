"""From evidence to decision: a pure function, read top to bottom.

Rollback beats everything, a person's hold beats the rest, futility beats promotion, no data is never a win
(rules R7, R11-R13, R16). Promotion comes out of the last stage only: whoever writes stages wants every one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import msgspec

from gateway.evidence.cells import WORST
from gateway.evidence.definition import FUTILITY, HARM, NON_INFERIOR, PROMOTE, Definition
from gateway.evidence.verdict import Report, Test
from gateway.release.state import Decision, ReleaseState, StageRule

Automation = Literal["off", "recommend", "rollback_only", "full"]


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a config that decides; it may be edited while the experiment runs."""

    stages: tuple[StageRule, ...]
    automation: Automation
    hold_at: float
    futility: bool
    max_units: int | None
    max_duration_us: int
    on_inconclusive: Literal["champion", "hold"]


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a decision may depend on."""

    definition: Definition
    rules: Rules
    state: ReleaseState
    report: Report
    now_us: int
    kill: str = ""  # why the kill rule fired, "" if it did not
    facts_lost: bool = False  # assignments could not be kept: the log is not whole


def decide(view: View) -> Decision:
    """The first rule that has something to say."""
    for rule in _RULES:
        decision = rule(view)
        if decision is not None:
            return decision
    return Decision(kind="continue", reason="collecting", text=_what_is_missing(view))


def _rollback(view: View) -> Decision | None:
    if view.kill:
        return Decision(kind="rollback", reason="kill_rule", text=view.kill)
    for test in view.report.tests:
        if test.name == HARM and test.segment == "" and test.met:
            return Decision(
                kind="rollback",
                reason=f"harm_{test.metric}",
                text=f"{test.metric} is worse on the units so far (E = {_e(test)}, needed {_needed(test)})",
            )
    return None


def _held(view: View) -> Decision | None:
    """A person must resume first; also where the config no longer has the stage (then the split is kept)."""
    if view.state.hold:
        return Decision(kind="hold", reason="held", text=view.state.hold)
    if view.state.stage not in (stage.name for stage in view.rules.stages):
        return Decision(kind="hold", reason="held", text=f"the config has no stage {view.state.stage}")
    return None


def _futility(view: View) -> Decision | None:
    """Only in the last stage, and never ahead of a growing suspicion of harm."""
    last = view.rules.stages[-1].name
    if not view.rules.futility or view.state.stage != last or _suspicion(view):
        return None
    test = view.report.test(view.definition.objective, FUTILITY)
    if test is None or not test.met:
        return None
    return Decision(
        kind="inconclusive",
        reason="futility",
        text=f"an improvement of {view.definition.min_effect} or more in {test.metric} has become implausible"
        f" (E = {_e(test)}, needed {_needed(test)})",
    )


def _promote(view: View) -> Decision | None:
    if _blockers(view):
        return None
    estimate = view.report.estimate(view.definition.objective)
    assert estimate is not None
    test = view.report.test(view.definition.objective, PROMOTE)
    assert test is not None
    low, high = sorted((abs(estimate.lower), abs(estimate.upper)))  # the interval lies on one side of zero
    return Decision(
        kind="promote",
        reason="better",
        text=f"{test.metric} is better by {abs(estimate.estimate):.4f}"
        f" [{low:.4f}, {high:.4f}] (E = {_e(test)}, needed {_needed(test)})"
        " and every guardrail passed",
    )


def _exhausted(view: View) -> Decision | None:
    limit = view.rules.max_units
    if limit is not None and view.report.folded >= limit:
        return Decision(kind="inconclusive", reason="max_units", text=f"no verdict after {view.report.folded} units")
    if view.now_us - view.state.started_at_us >= view.rules.max_duration_us:
        hours = view.rules.max_duration_us / 3.6e9
        return Decision(kind="inconclusive", reason="max_duration", text=f"no verdict within {hours:.3g} h")
    return None


def _hold(view: View) -> Decision | None:
    if view.report.sample_ratio_alarm:
        return Decision(
            kind="hold",
            reason="sample_ratio",
            text="the split that arrived is not the split that was configured",
        )
    if view.facts_lost:
        return Decision(kind="hold", reason="facts_lost", text="assignments were lost, so the log is not whole")
    suspicion = _suspicion(view)
    if suspicion is not None:
        return Decision(
            kind="hold",
            reason=f"suspicion_{suspicion.metric}",
            text=f"{suspicion.metric} may be worse (E = {_exp(suspicion.now)}, hold at {view.rules.hold_at:g})",
        )
    return None


def _advance(view: View) -> Decision | None:
    following = _next_stage(view)
    if following is None or _stage_needs(view):
        return None
    return Decision(
        kind="advance",
        reason="stage_passed",
        text=f"{view.state.stage} passed without a sign of harm",
        stage=following.name,
    )


_RULES: tuple[Callable[[View], Decision | None], ...] = (
    _rollback,
    _held,
    _futility,
    _promote,
    _exhausted,
    _hold,
    _advance,
)


def _blockers(view: View) -> list[str]:
    """What still stands between the challenger and promotion, in words."""
    report, objective = view.report, view.definition.objective
    blockers = _stage_needs(view)
    if (following := _next_stage(view)) is not None:
        blockers.append(f"the stage {following.name}")
    promote = report.test(objective, PROMOTE)
    if promote is None or not promote.met:
        blockers.append(f"evidence for {objective} {_of(promote)}")
    worst = report.test(objective, PROMOTE, WORST)
    if report.worst_fill_needed and (worst is None or not worst.met):
        blockers.append(f"evidence for {objective} with the worst value for missing outcomes {_of(worst)}")
    estimate = report.estimate(objective)
    if estimate is None or not estimate.better:
        blockers.append(f"the interval of {objective} includes no effect")
    for guardrail in view.definition.guardrails:
        test = report.test(guardrail.name, NON_INFERIOR)
        if test is None or not test.met:
            blockers.append(f"guardrail {guardrail.name} {_of(test)}")
    if report.sample_ratio_alarm:
        blockers.append("sample ratio mismatch")
    if max(report.missing) > view.definition.metric(objective).max_missing:
        blockers.append(f"{max(report.missing):.1%} of the outcomes of {objective} are missing")
    harmed = [test.segment for test in report.tests if test.name == HARM and test.segment and test.met]
    blockers += [f"segment {segment} is harmed" for segment in harmed]
    if view.facts_lost:
        blockers.append("assignments were lost")
    return blockers


def _stage_needs(view: View) -> list[str]:
    """What the present stage still demands before the next."""
    stage = _stage(view)
    champion, challenger = view.report.matured.get(stage.name, (0, 0))
    needs: list[str] = []
    if champion + challenger < stage.min_units:
        needs.append(f"{champion + challenger} of {stage.min_units} units in {stage.name}")
    if challenger < stage.min_challenger_units:
        needs.append(f"{challenger} of {stage.min_challenger_units} challenger units in {stage.name}")
    left = stage.min_duration_us - (view.now_us - view.state.stage_since_us)
    if left > 0:
        needs.append(f"{left / 1e6:.0f} s more in {stage.name}")
    return needs


def _what_is_missing(view: View) -> str:
    if _next_stage(view) is not None:
        return "before the next stage: " + ", ".join(_stage_needs(view))
    return "before promotion: " + ", ".join(_blockers(view))


def _suspicion(view: View) -> Test | None:
    """The strongest present sign of harm, if it is strong enough to hold; unlike proof, a suspicion may pass."""
    level = math.log(view.rules.hold_at)
    signs = [test for test in view.report.tests if test.name == HARM and not test.segment and test.now >= level]
    return max(signs, key=lambda test: test.now, default=None)


def _stage(view: View) -> StageRule:
    return next(stage for stage in view.rules.stages if stage.name == view.state.stage)


def _next_stage(view: View) -> StageRule | None:
    names = [stage.name for stage in view.rules.stages]
    following = names.index(view.state.stage) + 1
    return view.rules.stages[following] if following < len(names) else None


def _of(test: Test | None) -> str:
    return "has no data" if test is None else f"E = {_e(test)} of {_needed(test)}"


def _e(test: Test) -> str:
    return _exp(test.log_e)


def _needed(test: Test) -> str:
    return _exp(test.needed)


def _exp(log: float) -> str:
    return f"{math.exp(min(log, 50.0)):.3g}"
