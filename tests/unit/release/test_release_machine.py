"""A machine of random evidence, people and time over policy and stages: what can never happen."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from gateway.assignment.ranges import width
from gateway.plan import HASH_SPACE, shares
from gateway.release.policy import View, decide
from gateway.release.stages import MOVES, IllegalMove, move
from gateway.release.state import Decision, Kind
from tests.unit.release.views import DEFINITION, NOW, RULES, STAGES, report, state

E_VALUES = st.sampled_from([0.1, 1.0, 6.0, 25.0, 150.0, 2000.0])
KINDS: tuple[Kind, ...] = ("start", "continue", "hold", "resume", "advance", "promote", "rollback", "inconclusive")


class Release(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.state = state("s1")
        self.now = NOW
        self.path = ["running"]

    def apply(self, decision: Decision) -> None:
        before = self.state
        try:
            self.state = move(before, decision, STAGES, DEFINITION.champion, self.now)
        except IllegalMove:
            assert self.state is before
            return
        step = MOVES[before.status, decision.kind]
        assert self.state.status == step.to
        if self.state.status != self.path[-1]:
            self.path.append(self.state.status)
        if decision.kind == "promote":
            assert before.status == "running"
        if decision.kind == "rollback":
            assert self.state.champion == "a"
            assert shares(self.state.slots) == {"a": HASH_SPACE}

    @rule(
        harm=E_VALUES,
        promote=E_VALUES,
        guard=E_VALUES,
        futility=E_VALUES,
        alarm=st.booleans(),
        kill=st.booleans(),
        lost=st.booleans(),
        matured=st.sampled_from([0, 10, 60, 600, 60_000]),
        hours=st.integers(0, 3),
    )
    def evidence(
        self,
        harm: float,
        promote: float,
        guard: float,
        futility: float,
        alarm: bool,
        kill: bool,
        lost: bool,
        matured: int,
        hours: int,
    ) -> None:
        self.now += hours * 3_600_000_000
        if self.state.status != "running":
            return
        known = report(
            harm=harm,
            promote=promote,
            errors_pass=guard,
            futility=futility,
            better=promote > 100,
            sample_ratio_alarm=alarm,
            matured={stage.name: (matured, matured) for stage in STAGES},
        )
        view = View(
            definition=DEFINITION,
            rules=RULES,
            state=self.state,
            report=known,
            now_us=self.now,
            kill="plain failures" if kill else "",
            facts_lost=lost,
        )
        decision = decide(view)
        if kill or harm >= 100:
            assert decision.kind == "rollback"
        if decision.kind in ("advance", "promote"):
            assert not any((alarm, lost, self.state.hold))
        if decision.kind == "promote":
            assert self.state.stage == "s50"
            assert promote >= 100
            assert guard >= 20
        if decision.kind not in ("continue", "hold"):
            self.apply(decision)

    @rule(kind=st.sampled_from(KINDS), stage=st.sampled_from(["", "s1", "s10", "s50", "gone"]))
    def person(self, kind: Kind, stage: str) -> None:
        self.apply(Decision(kind=kind, reason="manual", text="asked for", stage=stage))

    @invariant()
    def the_split_is_that_of_the_stage_or_none_or_all(self) -> None:
        held = shares(self.state.slots).get("b", 0)
        assert sum(shares(self.state.slots).values()) == HASH_SPACE
        if self.state.status == "running":
            assert held == width(self.state.stage_share)
            assert self.state.stage_share == {s.name: s.share for s in STAGES}[self.state.stage]
        else:
            assert held == (HASH_SPACE if self.state.status == "promoted" else 0)

    @invariant()
    def the_champion_is_who_has_the_rest(self) -> None:
        assert self.state.champion == ("b" if self.state.status == "promoted" else "a")

    @invariant()
    def an_end_is_an_end(self) -> None:
        assert self.path in (
            ["running"],
            ["running", "promoted"],
            ["running", "promoted", "rolled_back"],
            ["running", "rolled_back"],
            ["running", "inconclusive"],
        )


Release.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestRelease = Release.TestCase


def test_ramping_up_moves_nobody_back() -> None:
    """Who met the challenger at 1 % still meets it at 10 % and at 50 %."""
    from gateway.assignment.ranges import owner

    states = [state(stage.name) for stage in STAGES]
    grown = states[0]
    for stage in STAGES[1:]:
        before = grown.slots
        grown = move(grown, Decision(kind="advance", reason="", text="", stage=stage.name), STAGES, "a", NOW)
        for point in range(0, HASH_SPACE, HASH_SPACE // 997):
            if owner(before, point) == "b":
                assert owner(grown.slots, point) == "b"


def test_resume_needs_a_hold_and_takes_a_stage_that_exists() -> None:
    resume = Decision(kind="resume", reason="manual", text="go on")
    with pytest.raises(IllegalMove, match="not held"):
        move(state("s10"), resume, STAGES, "a", NOW)
    held = state("s10", hold="wait")
    assert move(held, resume, STAGES, "a", NOW) == replace(held, hold="", stage_since_us=NOW)
    without = (STAGES[0], STAGES[2])
    assert move(held, resume, without, "a", NOW).stage == "s1", "never to a higher share than before"
    wider = (replace(STAGES[1], share=Decimal("0.2")), STAGES[2])
    assert move(held, resume, wider, "a", NOW).stage_share == Decimal("0.2")
    assert move(held, resume, STAGES[2:], "a", NOW).stage == "s50"


def test_what_is_not_in_the_table_cannot_be_done() -> None:
    for status in ("fixed", "promoted", "rolled_back", "inconclusive"):
        for kind in KINDS:
            if (status, kind) not in MOVES:
                with pytest.raises(IllegalMove, match=f"{status}: {kind} is not possible"):
                    move(replace(state("s1"), status=status), Decision(kind=kind, reason="", text=""), STAGES, "a", NOW)
    with pytest.raises(IllegalMove, match="no stage 'gone'"):
        move(state("s1"), Decision(kind="advance", reason="", text="", stage="gone"), STAGES, "a", NOW)
