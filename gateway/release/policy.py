"""From evidence to decision: a pure function, read top to bottom.

Rollback beats everything, a person's hold beats the rest, futility beats promotion, no data is never a win
(rules R7, R11-R13, R16). Promotion comes out of the last stage only: whoever writes stages wants every one of them.
Each rule looks at every challenger in the running; one of several that must go is dropped, the last one ends it all.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from gateway.evidence.definition import FUTILITY, HARM, NOT_WORSE, PROMOTE
from gateway.evidence.report import OVERALL, WATCH, Test
from gateway.release import words
from gateway.release.needs import alarmed_signals, blockers, harmed, kept, missing, stage_needs, suspicion
from gateway.release.state import Decision, Kind
from gateway.release.view import Automation, View

_ACTS = frozenset[Kind]({"advance", "drop", "promote", "complete", "rollback", "inconclusive"})
_LIMITS = frozenset({"max_units", "max_duration"})
_LOST = "assignments were lost, so the log is not whole; once that is mended (`gateway status`), `gateway resume`"
_AS_IF: dict[Kind, str] = {
    "promote": "would promote {}",
    "rollback": "would roll {} back",
    "drop": "would drop {}",
    "inconclusive": "would give up {}",
}


def decide(view: View) -> Decision:
    """The first rule that has something to say."""
    if view.state.watching:
        return _first(_WATCH, view) or Decision(kind="continue", reason="watching", text="no sign of harm so far")
    if view.definition.aa:
        collecting = next(iter(would_be(view)), None) or _collecting(view)
        return _first(_TRIAL, view) or collecting
    return _first(_RULES, view) or _collecting(view)


def would_be(view: View) -> list[Decision]:
    """What statistics would have led to in a trial of equals: whatever is in here is a false alarm, or no verdict."""
    found: list[Decision] = []
    view = replace(view, kills={}, crashes={})  # what is no statistic acts
    while (decision := _first(_RULES, view)) and decision.kind in _AS_IF and decision.reason not in _LIMITS:
        why = decision.text.removeprefix(f"{decision.variant}: ")
        text = f"{_AS_IF[decision.kind].format(decision.variant)}: {why}"
        found.append(Decision(kind="continue", reason=f"aa_{decision.kind}", text=text, variant=decision.variant))
        if decision.kind != "drop":
            break
        view = replace(view, state=view.state.without(decision.variant))
    return found


def permitted(automation: Automation, decision: Decision) -> bool:
    """Whether the gateway does by itself what the evidence says."""
    if automation == "rollback_only":
        return decision.expels
    return automation == "full" and decision.kind in _ACTS


def _crashing(view: View) -> Decision | None:
    for name in view.state.contenders:
        if why := view.crashes.get(name):
            return _leaves(view, name, "crashes", why)
    return None


def _killed(view: View) -> Decision | None:
    for name in view.state.contenders:
        if why := view.kills.get(name):
            return _leaves(view, name, "kill_rule", why)
    return None


def _harmed(view: View) -> Decision | None:
    for name in view.state.contenders:
        for test in view.tests(HARM, name):
            if test.segment == OVERALL and test.met:
                return _leaves(view, name, f"harm_{test.metric}", words.worse(test))
        if view.rules.segment_harm == "rollback" and (segments := harmed(view, name)):
            test = segments[0]
            return _leaves(view, name, f"segment_harm_{test.metric}", words.worse(test, f" in {test.segment}"))
    return None


def _held(view: View) -> Decision | None:
    """A person must resume first; also where the config no longer has the stage (then the split is kept)."""
    if view.state.hold:
        return Decision(kind="hold", reason="held", text=view.state.hold)
    if view.state.stage not in (stage.name for stage in view.rules.stages):
        text = f"the config has no stage {view.state.stage}: once all nodes have this file, the release is held"
        return Decision(kind="hold", reason="held", text=text)
    return None


def _futility(view: View) -> Decision | None:
    """Only in the last stage, and never ahead of a growing suspicion of harm."""
    if not view.rules.futility or view.next_stage is not None:
        return None
    objective, least = view.definition.objective, view.definition.min_effect
    for name in view.state.contenders:
        futile = view.test(objective, FUTILITY, name)
        if futile is None or not futile.met or suspicion(view, (name,)):
            continue
        same = view.test(objective, NOT_WORSE, name)
        if same is not None and same.met:
            return _leaves(view, name, "equivalent", words.equivalent(_weaker(futile, same), least), "inconclusive")
        return _leaves(view, name, "futility", words.futile(futile, least), "inconclusive")
    return None


def _promote(view: View) -> Decision | None:
    """Of several that pass, the one with the most evidence."""
    objective = view.definition.objective
    passed = [name for name in view.state.contenders if not blockers(view, name)]
    tests = [test for name in passed if (test := view.test(objective, PROMOTE, name)) is not None]
    if not tests:
        return None
    best = max(tests, key=lambda test: test.log_e)
    estimate = view.report.estimate(objective, OVERALL, best.challenger)
    assert estimate is not None  # its interval passed
    stay = kept(view, best.challenger)
    text = view.named(best.challenger, words.better(estimate, best, stay))
    return Decision(kind="promote", reason="better", text=text, variant=best.challenger, kept=stay)


def _exhausted(view: View) -> Decision | None:
    limit = view.rules.max_units
    if limit is not None and view.report.folded >= limit:
        return Decision(kind="inconclusive", reason="max_units", text=f"no verdict after {view.report.folded} units")
    if view.now_us - view.state.started_at_us >= view.rules.max_duration_us:
        hours = view.rules.max_duration_us / 3.6e9
        return Decision(kind="inconclusive", reason="max_duration", text=f"no verdict within {hours:.3g} h")
    return None


def _not_whole(view: View) -> Decision | None:
    """A wrong split or a log with holes freezes what goes up, never what goes back (rule R13)."""
    if view.report.sample_ratio_alarm:
        text = "the split that arrived is not the split that was configured"
        return Decision(kind="hold", reason="sample_ratio", text=text)
    if view.facts_lost:
        return Decision(kind="hold", reason="facts_lost", text=_LOST)
    return None


def _doubt(view: View) -> Decision | None:
    test = suspicion(view, view.state.contenders)
    if test is not None:
        level = f"E = {words.number(test.now)}, hold at {view.rules.hold_at:g}"
        text = view.named(test.challenger, f"{test.metric} may be worse ({level})")
        return Decision(kind="hold", reason=f"suspicion_{test.metric}", text=text, variant=test.challenger)
    for name in view.state.contenders:
        for signal in alarmed_signals(view, name):
            text = view.named(name, words.worse(signal))
            return Decision(kind="hold", reason=f"signal_{signal.metric}", text=text, variant=name)
    return None


def _advance(view: View) -> Decision | None:
    following = view.next_stage
    if following is None or stage_needs(view, view.state.contenders):
        return None
    seen = "" if view.definition.aa else " without a sign of harm"
    return Decision(
        kind="advance",
        reason="stage_passed",
        text=f"{view.state.stage} passed{seen}",
        stage=following.name,
    )


def _alarm(view: View) -> Decision | None:
    """The watch after a promotion: the new champion against the holdback of the old one."""
    champion = view.state.champion
    for test in view.tests(HARM, champion):
        if test.segment == WATCH and test.met:
            text = words.worse(test, " since the promotion")
            return Decision(kind="rollback", reason=f"watch_{test.metric}", text=text, variant=champion)
    return None


def _winner_crashes(view: View) -> Decision | None:
    """The old champion still serves its holdback, so there is somebody to go back to."""
    champion = view.state.champion
    if why := view.crashes.get(champion):
        return Decision(kind="rollback", reason="crashes", text=why, variant=champion)
    return None


def _complete(view: View) -> Decision | None:
    if view.loading or view.now_us - view.state.watch_since_us < view.rules.watch_us:
        return None
    text = f"no sign of harm against {view.state.former} within {view.rules.watch_us / 3.6e9:.3g} h"
    return Decision(kind="complete", reason="watched", text=text, variant=view.state.champion)


_Rule = Callable[[View], Decision | None]
_RULES: tuple[_Rule, ...] = (
    _crashing,
    _killed,
    _harmed,
    _held,
    _futility,
    _promote,
    _exhausted,
    _not_whole,
    _doubt,
    _advance,
)
_TRIAL: tuple[_Rule, ...] = (_crashing, _killed, _held, _exhausted, _not_whole, _advance)
_WATCH: tuple[_Rule, ...] = (_winner_crashes, _alarm, _complete)


def _first(rules: tuple[_Rule, ...], view: View) -> Decision | None:
    return next((decision for rule in rules if (decision := rule(view)) is not None), None)


def _collecting(view: View) -> Decision:
    return Decision(kind="continue", reason="collecting", text=missing(view))


def _leaves(view: View, name: str, reason: str, text: str, at_last: Kind = "rollback") -> Decision:
    """One of several is dropped; with the last one the experiment ends."""
    kind: Kind = "drop" if len(view.state.contenders) > 1 else at_last
    return Decision(kind=kind, reason=reason, text=view.named(name, text), variant=name)


def _weaker(one: Test, other: Test) -> Test:
    return min(one, other, key=lambda test: test.log_e)
