"""A machine of random evidence, people and time over policy and stages: what can never happen."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from gateway.assignment.ranges import owner, width
from gateway.plan import HASH_SPACE, KeptPlan, shares
from gateway.release.policy import decide
from gateway.release.stages import MOVES, IllegalMove, move
from gateway.release.state import Decision, Kind, ReleaseState, decode, encode
from gateway.release.view import View
from tests.unit.release.views import DEFINITION, HOUR, NOW, RULES, SEVERAL, SHARED, STAGES, WATCHED, report, state

E_VALUES = st.sampled_from([0.1, 1.0, 6.0, 25.0, 150.0, 2000.0])
KINDS: tuple[Kind, ...] = (
    "start",
    "continue",
    "hold",
    "resume",
    "advance",
    "drop",
    "promote",
    "complete",
    "rollback",
    "inconclusive",
)


@dataclass
class Evidence:
    """What is known of one challenger."""

    harm: float
    promote: float
    guard: float
    futility: float
    watch: float

    @property
    def e(self) -> dict[str, Any]:
        return {
            "harm": self.harm,
            "promote": self.promote,
            "errors_pass": self.guard,
            "futility": self.futility,
            "better": self.promote > 100,
            "watch_errors": self.watch,
        }


EVIDENCE = st.builds(Evidence, E_VALUES, E_VALUES, E_VALUES, E_VALUES, st.sampled_from([0.1, 1e5, 1e6]))


class Release(RuleBasedStateMachine):
    @initialize(several=st.booleans(), watch=st.booleans(), restrict=st.booleans())
    def begin(self, several: bool, watch: bool, restrict: bool) -> None:
        self.definition = SEVERAL if several else DEFINITION
        self.config = replace(
            SHARED if several else RULES,
            holdback=WATCHED.holdback if watch else Decimal(0),
            watch_us=WATCHED.watch_us,
            segment_harm="restrict" if restrict else "veto",
        )
        self.state = state("s1", challengers=self.definition.challengers)
        self.now = NOW
        self.path = ["running"]

    def apply(self, decision: Decision) -> None:
        before = self.state
        try:
            self.state = move(before, decision, self.config, "a", self.now)
        except IllegalMove:
            assert self.state is before
            return
        step = MOVES[before.status, decision.kind]
        assert self.state.status == step.to
        assert decode(encode(self.state)) == self.state
        if self.state.status != self.path[-1]:
            self.path.append(self.state.status)
        if decision.kind == "promote":
            assert self.state.champion in before.contenders
        if decision.kind == "drop":
            assert len(self.state.contenders) == len(before.contenders) - 1
            assert (self.state.stage, self.state.stage_since_us) == (before.stage, before.stage_since_us)
        if decision.kind == "complete":
            assert before.watching
        if decision.kind == "rollback":
            assert shares(self.state.slots) == {"a": HASH_SPACE}

    @rule(
        b=EVIDENCE,
        c=EVIDENCE,
        alarm=st.booleans(),
        killed=st.sampled_from(["", "", "b", "c"]),
        lost=st.booleans(),
        matured=st.sampled_from([0, 10, 60, 600, 60_000]),
        hours=st.sampled_from([0, 1, 3, 30]),
        segment=E_VALUES,
    )
    def evidence(
        self,
        b: Evidence,
        c: Evidence,
        alarm: bool,
        killed: str,
        lost: bool,
        matured: int,
        hours: int,
        segment: float,
    ) -> None:
        self.now += hours * HOUR
        if not self.state.open:
            return
        arms = len(self.definition.arms)
        rivals = {"b": b, "c": c} if arms == 3 else {"b": b}
        known = report(
            sample_ratio_alarm=alarm,
            matured={stage.name: (matured,) * arms for stage in STAGES},
            segment_harm=segment,
            **b.e,
            **({"c": c.e} if arms == 3 else {}),
        )
        view = View(
            definition=self.definition,
            rules=self.config,
            state=self.state,
            report=known,
            now_us=self.now,
            kills={killed: "plain failures"} if killed else {},
            facts_lost=lost,
        )
        decision = decide(view)
        self.check(view, decision, rivals)
        if decision.kind not in ("continue", "hold"):
            self.apply(decision)

    def check(self, view: View, decision: Decision, rivals: dict[str, Evidence]) -> None:
        """What a decision must respect, whatever led to it."""
        if self.state.watching:
            alarmed = rivals[self.state.champion].watch >= 1e6
            assert (decision.kind == "rollback") == alarmed
            assert decision.kind in ("rollback", "complete", "continue")
            return
        contenders = {name: rivals[name] for name in self.state.contenders}
        bad = {name for name, one in contenders.items() if one.harm >= 100 or name in view.kills}
        if bad:
            assert decision.variant in bad
            assert decision.kind == ("drop" if len(contenders) > 1 else "rollback")
        if decision.kind in ("advance", "promote"):
            assert not any((bad, view.report.sample_ratio_alarm, view.facts_lost, self.state.hold))
        if decision.kind == "promote":
            winner = contenders[decision.variant]
            assert self.state.stage == "s50"
            assert winner.promote >= 100
            assert winner.guard >= 20
            assert bool(decision.kept) <= (self.config.segment_harm == "restrict")

    @rule(
        kind=st.sampled_from(KINDS),
        stage=st.sampled_from(["", "s1", "s10", "s50", "gone"]),
        variant=st.sampled_from(["", "", "b", "c", "stranger"]),
    )
    def person(self, kind: Kind, stage: str, variant: str) -> None:
        self.apply(Decision(kind=kind, reason="manual", text="asked for", stage=stage, variant=variant))

    @invariant()
    def the_split_is_that_of_the_stage_or_none_or_all(self) -> None:
        held = shares(self.state.slots)
        assert sum(held.values()) == HASH_SPACE
        if self.state.status == "running":
            assert self.state.stage_share == {s.name: s.share for s in self.config.stages}[self.state.stage]
            challengers = dict.fromkeys(self.state.contenders, width(self.state.stage_share))
        elif self.state.watching:
            challengers = {"a": width(self.config.holdback)}
        else:
            challengers = {}
        assert {name: wide for name, wide in held.items() if name != self.state.champion} == challengers

    @invariant()
    def a_champion_is_the_old_one_or_was_promoted(self) -> None:
        assert (self.state.champion == "a") == (self.state.status != "promoted")
        assert self.state.former in ("", "a")
        if self.state.kept:
            assert self.state.status == "promoted"

    @invariant()
    def an_end_is_an_end(self) -> None:
        assert self.path in (
            ["running"],
            ["running", "promoted"],
            ["running", "promoted", "rolled_back"],
            ["running", "rolled_back"],
            ["running", "inconclusive"],
        )


Release.TestCase.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
TestRelease = Release.TestCase

POINTS = range(0, HASH_SPACE, HASH_SPACE // 997)


def advance(stage: str) -> Decision:
    return Decision(kind="advance", reason="", text="", stage=stage)


def did(kind: Kind, **more: Any) -> Decision:
    return Decision(kind=kind, reason="", text="", **more)


def test_ramping_up_moves_nobody_back() -> None:
    """Who met the challenger at 1 % still meets it at 10 % and at 50 %."""
    grown = state("s1")
    for stage in STAGES[1:]:
        before = grown.slots
        grown = move(grown, advance(stage.name), RULES, "a", NOW)
        assert all(owner(grown.slots, point) == "b" for point in POINTS if owner(before, point) == "b")


def test_a_drop_gives_its_share_to_the_champion_and_moves_nobody_else() -> None:
    before = state("s10", challengers=("b", "c"), hold="wait")
    after = move(before, did("drop", variant="b"), SHARED, "a", NOW)
    assert after == replace(before, slots=after.slots, challengers=("c",), challenger="c")
    for point in POINTS:
        was = owner(before.slots, point)
        assert owner(after.slots, point) == ("a" if was == "b" else was)
    with pytest.raises(IllegalMove, match="c is the last challenger of rank: roll back instead"):
        move(after, did("drop", variant="c"), SHARED, "a", NOW)


def test_who_is_meant_must_be_said_where_there_are_several() -> None:
    both = state("s10", challengers=("b", "c"))
    kinds: tuple[Kind, ...] = ("promote", "drop")
    for kind in kinds:
        with pytest.raises(IllegalMove, match=f"{kind} which challenger of rank: b or c"):
            move(both, did(kind), SHARED, "a", NOW)
        for stranger in ("a", "d"):
            with pytest.raises(IllegalMove, match=f"{stranger} is not in the running at rank"):
                move(both, did(kind, variant=stranger), SHARED, "a", NOW)
    assert move(both, did("promote", variant="c"), SHARED, "a", NOW).champion == "c"
    assert move(both.without("c"), did("promote"), SHARED, "a", NOW).champion == "b"
    ended = move(both, did("rollback"), SHARED, "a", NOW)
    assert (ended.status, ended.challengers, shares(ended.slots)) == ("rolled_back", (), {"a": HASH_SPACE})


def test_a_promotion_with_a_holdback_starts_a_watch_over_part_of_who_had_the_old_champion() -> None:
    before = state("s50", challengers=("b", "c"))
    after = move(before, did("promote", variant="c"), replace(SHARED, holdback=Decimal("0.02")), "a", NOW)
    assert (after.champion, after.challenger, after.challengers) == ("c", "c", ())
    assert (after.stage, after.stage_share, after.stage_since_us) == ("watch", Decimal("0.02"), NOW)
    assert (after.former, after.watch_since_us, after.watching, after.open) == ("a", NOW, True, True)
    assert shares(after.slots) == {"c": HASH_SPACE - width(Decimal("0.02")), "a": width(Decimal("0.02"))}
    assert all(owner(before.slots, point) == "a" for point in POINTS if owner(after.slots, point) == "a")


def test_a_watch_ends_well_or_goes_back() -> None:
    kept = (KeptPlan(segment="origin", value="EWR", variant="a"),)
    watched = move(state("s50"), did("promote", kept=kept), WATCHED, "a", NOW)
    done = move(watched, did("complete"), WATCHED, "a", NOW + HOUR)
    assert (done.status, done.former, done.watching, done.open) == ("promoted", "", False, False)
    assert (done.kept, shares(done.slots)) == (kept, {"b": HASH_SPACE})
    with pytest.raises(IllegalMove, match="no watch is running"):
        move(done, did("complete"), WATCHED, "a", NOW)
    for late in (watched, done):
        back = move(late, did("rollback"), WATCHED, "a", NOW)
        assert (back.status, back.champion, back.challenger, back.kept) == ("rolled_back", "a", "b", ())
        assert (back.former, shares(back.slots)) == ("", {"a": HASH_SPACE})


def test_a_state_that_an_earlier_version_stored_goes_on() -> None:
    older = '{"endpoint": "rank", "champion": "a", "slots": [{"start": 0, "variant": "a"}], "status": "running",'
    older += ' "experiment": "exp", "challenger": "b", "stage": "s1", "stage_share": "0.01"}'
    before = decode(older)
    assert isinstance(before, ReleaseState)
    assert before.contenders == ("b",)
    assert shares(move(before, advance("s10"), RULES, "a", NOW).slots)["b"] == width(Decimal("0.1"))
    assert move(before, did("promote"), RULES, "a", NOW).champion == "b"


def test_resume_needs_a_hold_and_takes_a_stage_that_exists() -> None:
    resume = Decision(kind="resume", reason="manual", text="go on")
    with pytest.raises(IllegalMove, match="not held"):
        move(state("s10"), resume, RULES, "a", NOW)
    held = state("s10", hold="wait")
    assert move(held, resume, RULES, "a", NOW) == replace(held, hold="", stage_since_us=NOW)
    without = replace(RULES, stages=(STAGES[0], STAGES[2]))
    assert move(held, resume, without, "a", NOW).stage == "s1", "never to a higher share than before"
    wider = replace(RULES, stages=(replace(STAGES[1], share=Decimal("0.2")), STAGES[2]))
    assert move(held, resume, wider, "a", NOW).stage_share == Decimal("0.2")
    assert move(held, resume, replace(RULES, stages=STAGES[2:]), "a", NOW).stage == "s50"


def test_what_is_not_in_the_table_cannot_be_done() -> None:
    for status in ("fixed", "promoted", "rolled_back", "inconclusive"):
        for kind in KINDS:
            if (status, kind) not in MOVES:
                with pytest.raises(IllegalMove, match=f"{status}: {kind} is not possible"):
                    move(replace(state("s1"), status=status), did(kind), RULES, "a", NOW)
    with pytest.raises(IllegalMove, match="no stage 'gone'"):
        move(state("s1"), advance("gone"), RULES, "a", NOW)
