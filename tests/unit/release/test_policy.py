"""The policy as a decision table: each rule alone, and which of two rules wins."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from gateway.plan import KeptPlan
from gateway.release.policy import decide, permitted, would_be
from gateway.release.stages import move
from gateway.release.state import Decision, Kind
from tests.unit.release.views import (
    DEFINITION,
    HOUR,
    NOW,
    RULES,
    SEVERAL,
    STAGES,
    WATCHED,
    WINNING,
    report,
    state,
    view,
)

HARM = {"harm": 100.0}
EXPELLING = replace(RULES, segment_harm="rollback")
RESTRICTING = replace(RULES, segment_harm="restrict")
CYCLIC = replace(DEFINITION, cycle_us=24 * HOUR)
TRIAL = replace(DEFINITION, aa=True)
KEPT_EWR = (KeptPlan(segment="origin", value="EWR", variant="a"),)


@pytest.mark.parametrize(
    ("stage", "evidence", "kind", "reason"),
    [
        # nothing to say
        ("s1", {"matured": {}}, "continue", "collecting"),
        ("s50", {}, "continue", "collecting"),
        # rollback
        ("s1", HARM, "rollback", "harm_brier"),
        ("s50", {"errors_harm": 1000.0}, "rollback", "harm_errors"),
        ("s50", {"errors_harm": 999.0}, "hold", "suspicion_errors"),
        ("s50", {"harm": 100.0, "harm_now": 0.1}, "rollback", "harm_brier"),
        ("s1", {"kills": {"b": "5 of 6 failed"}}, "rollback", "kill_rule"),
        ("s50", HARM | WINNING, "rollback", "harm_brier"),
        ("s50", HARM | {"futility": 50.0}, "rollback", "harm_brier"),
        ("s50", HARM | {"sample_ratio_alarm": True}, "rollback", "harm_brier"),
        ("s50", HARM | {"facts_lost": True}, "rollback", "harm_brier"),
        ("s50", {"kills": {"b": "x"}, "sample_ratio_alarm": True}, "rollback", "kill_rule"),
        # a signal holds, and that is all
        ("s50", {"clicks_harm": 1e9}, "hold", "signal_clicks"),
        ("s50", {"clicks_harm": 99.0}, "continue", "collecting"),
        ("s10", {"clicks_harm": 100.0}, "hold", "signal_clicks"),
        ("s50", {"clicks_harm": 100.0} | WINNING, "hold", "signal_clicks"),
        ("s50", {"clicks_harm": 100.0, "harm": 6.0}, "hold", "suspicion_brier"),
        ("s50", {"clicks_harm": 100.0, "futility": 20.0}, "inconclusive", "futility"),
        # a segment vetoes, it does not roll back
        ("s50", {"segment_harm": 1000.0}, "continue", "collecting"),
        ("s50", {"segment_harm": 1000.0} | WINNING, "continue", "collecting"),
        ("s50", {"segment_errors": 2000.0} | WINNING, "continue", "collecting"),
        # where the config says so, it does roll back
        ("s1", {"segment_harm": 200.0, "rules": EXPELLING}, "rollback", "segment_harm_brier"),
        ("s1", {"segment_errors": 2000.0, "rules": EXPELLING}, "rollback", "segment_harm_errors"),
        ("s1", {"segment_harm": 199.0, "rules": EXPELLING}, "advance", "stage_passed"),
        # or the segment stays with the champion
        ("s50", {"segment_harm": 1000.0, "rules": RESTRICTING} | WINNING, "promote", "better"),
        (
            "s50",
            {"segment_harm": 1000.0, "other_harm": 1000.0, "rules": RESTRICTING} | WINNING,
            "continue",
            "collecting",
        ),
        # futility: in the last stage, not under suspicion
        ("s50", {"futility": 20.0}, "inconclusive", "futility"),
        ("s50", {"futility": 19.0}, "continue", "collecting"),
        ("s10", {"futility": 20.0}, "advance", "stage_passed"),
        ("s50", {"futility": 20.0, "harm": 5.0}, "hold", "suspicion_brier"),
        ("s50", {"futility": 20.0, "harm": 50.0, "harm_now": 4.9}, "inconclusive", "futility"),
        ("s50", {"futility": 20.0} | WINNING, "inconclusive", "futility"),
        ("s50", {"futility": 20.0, "not_worse": 20.0}, "inconclusive", "equivalent"),
        ("s50", {"futility": 20.0, "not_worse": 19.0}, "inconclusive", "futility"),
        ("s50", {"futility": 19.0, "not_worse": 20.0}, "continue", "collecting"),
        ("s50", {"futility": 20.0, "not_worse": 20.0, "harm": 5.0}, "hold", "suspicion_brier"),
        # promotion
        ("s50", WINNING, "promote", "better"),
        ("s50", WINNING | {"promote": 99.0}, "continue", "collecting"),
        ("s50", WINNING | {"better": False}, "continue", "collecting"),
        ("s50", WINNING | {"errors_pass": 19.0}, "continue", "collecting"),
        ("s10", WINNING, "advance", "stage_passed"),
        ("s50", WINNING | {"matured": {"s50": (1, 499)}}, "continue", "collecting"),
        # a business cycle
        ("s50", WINNING | {"definition": CYCLIC}, "continue", "collecting"),
        ("s50", WINNING | {"definition": CYCLIC, "cycles": 1}, "promote", "better"),
        ("s50", WINNING | {"definition": CYCLIC, "cycles": 2, "last_cycle": 20.0}, "continue", "collecting"),
        ("s50", WINNING | {"definition": CYCLIC, "cycles": 2, "last_cycle": 19.0}, "promote", "better"),
        ("s1", {"definition": CYCLIC, "last_cycle": 1e9}, "advance", "stage_passed"),
        # missing outcomes
        ("s50", WINNING | {"missing": (0.02, 0.0), "worst_fill_needed": True}, "continue", "collecting"),
        (
            "s50",
            WINNING | {"missing": (0.02, 0.0), "worst_fill_needed": True, "worst_fill": 100.0},
            "promote",
            "better",
        ),
        (
            "s50",
            WINNING | {"missing": (0.0, 0.06), "worst_fill_needed": True, "worst_fill": 100.0},
            "continue",
            "collecting",
        ),
        # a wrong split or a log with holes freezes what goes up
        ("s50", WINNING | {"sample_ratio_alarm": True}, "hold", "sample_ratio"),
        ("s10", {"sample_ratio_alarm": True}, "hold", "sample_ratio"),
        ("s50", WINNING | {"facts_lost": True}, "hold", "facts_lost"),
        ("s10", {"facts_lost": True}, "hold", "facts_lost"),
        # suspicion
        ("s10", {"harm": 5.0}, "hold", "suspicion_brier"),
        ("s10", {"harm": 4.99}, "advance", "stage_passed"),
        ("s10", {"harm": 50.0, "harm_now": 4.99}, "advance", "stage_passed"),
        ("s50", WINNING | {"harm": 6.0}, "promote", "better"),
        # advance
        ("s1", {}, "advance", "stage_passed"),
        ("s1", {"matured": {"s1": (495, 4)}}, "continue", "collecting"),
        ("s1", {"matured": {"s1": (494, 5)}}, "continue", "collecting"),
        ("s1", {"matured": {"s10": (9999, 9999)}}, "continue", "collecting"),
        ("s1", {"state": state("s1", since=HOUR - 1)}, "continue", "collecting"),
        ("s1", {"state": state("s1", since=HOUR)}, "advance", "stage_passed"),
        # the end
        ("s1", {"folded": 1_000_000}, "inconclusive", "max_units"),
        ("s1", {"folded": 999_999}, "advance", "stage_passed"),
        ("s50", {"folded": 1_000_000} | WINNING, "promote", "better"),
        ("s1", {"folded": 1_000_000, "sample_ratio_alarm": True}, "inconclusive", "max_units"),
        ("s1", {"rules": replace(RULES, max_duration_us=10 * HOUR)}, "inconclusive", "max_duration"),
        ("s1", {"rules": replace(RULES, max_duration_us=10 * HOUR + 1)}, "advance", "stage_passed"),
        ("s1", {"folded": 10**9, "rules": replace(RULES, max_units=None)}, "advance", "stage_passed"),
        # a person's hold
        ("s1", {"state": state("s1", hold="wait for me")}, "hold", "held"),
        ("s50", {"state": state("s50", hold="wait for me")} | WINNING, "hold", "held"),
        ("s1", {"state": state("s1", hold="wait for me")} | HARM, "rollback", "harm_brier"),
        ("s1", {"state": state("s1", hold="wait for me"), "folded": 10**9}, "hold", "held"),
        # the config has lost the stage
        ("s1", {"rules": replace(RULES, stages=STAGES[1:])}, "hold", "held"),
        ("s1", {"rules": replace(RULES, stages=STAGES[1:])} | HARM, "rollback", "harm_brier"),
        # switched off
        ("s50", {"futility": 50.0, "rules": replace(RULES, futility=False)}, "continue", "collecting"),
        ("s10", {"harm": 50.0, "rules": replace(RULES, hold_at=60.0)}, "advance", "stage_passed"),
    ],
)
def test_decision(stage: str, evidence: dict[str, Any], kind: str, reason: str) -> None:
    decision = decide(view(stage, **evidence))
    assert (decision.kind, decision.reason) == (kind, reason)
    assert decision.text


def test_an_advance_names_the_next_stage() -> None:
    assert decide(view("s1")).stage == "s10"
    assert decide(view("s10")).stage == "s50"


def test_the_words_say_what_is_missing() -> None:
    text = decide(view("s10", matured={"s10": (10, 2)}, state=state("s10", since=HOUR // 2))).text
    assert text == "before the next stage: 12 of 5000 units in s10, 2 of 50 units of b in s10, 1800 s more in s10"
    text = decide(view("s50", promote=12.0, segment_harm=500.0, definition=CYCLIC, last_cycle=50.0)).text
    assert text == (
        "before promotion: evidence for brier E = 12 of 100, the interval of brier includes no effect,"
        " guardrail errors E = 1 of 20, a whole business cycle, the last cycle was worse, segment origin=EWR is harmed"
    )
    demanding = replace(DEFINITION, require_min_effect=True)
    assert "the interval of brier includes effects below 0.01" in decide(view("s50", definition=demanding)).text
    text = decide(view("s50", segment_harm=500.0, other_harm=500.0, rules=RESTRICTING, **WINNING)).text
    assert text == "before promotion: every segment of origin is harmed"


def test_a_promotion_leads_with_the_interval_and_owns_up_to_its_bias() -> None:
    text = decide(view("s50", **WINNING)).text
    assert text == (
        "brier is better by [0.0100, 0.0300] (E = 150, needed 100) and every guardrail passed;"
        " the estimate at the moment of stopping, 0.0200, tends to be too large"
    )


def test_harmed_segments_stay_with_the_champion_where_the_config_restricts() -> None:
    decision = decide(view("s50", segment_harm=500.0, rules=RESTRICTING, **WINNING))
    assert decision.kept == KEPT_EWR
    assert decision.text.endswith("; origin=EWR stays with a")
    assert decide(view("s50", rules=RESTRICTING, **WINNING)).kept == ()


def test_equivalence_says_within_what() -> None:
    text = decide(view("s50", futility=21.0, not_worse=30.0)).text
    assert text == "brier is proved to be within ± 0.01 of the champion's (E = 21, needed 20)"


def test_no_data_is_never_a_win() -> None:
    empty = report(tests=(), estimates=(), matured={})
    decision = decide(replace(view("s50"), report=empty))
    assert decision.kind == "continue"
    assert "has no data" in decision.text
    without_guardrails = replace(DEFINITION, metrics=DEFINITION.metrics[:1])
    assert decide(replace(view("s50"), report=empty, definition=without_guardrails)).kind == "continue"


@pytest.mark.parametrize(
    ("stage", "b", "c", "expected"),
    [
        # harm of one: it leaves, the other goes on
        ("s1", HARM, {}, ("drop", "harm_brier", "b")),
        ("s50", {}, {"errors_harm": 1000.0}, ("drop", "harm_errors", "c")),
        ("s50", WINNING, HARM, ("drop", "harm_brier", "c")),
        ("s50", {"kills": {"c": "5 of 6 failed"}} | HARM, {}, ("drop", "kill_rule", "c")),
        # futility of one
        ("s50", {"futility": 20.0}, {}, ("drop", "futility", "b")),
        ("s50", WINNING, {"futility": 20.0, "not_worse": 20.0}, ("drop", "equivalent", "c")),
        ("s50", {"futility": 20.0, "harm": 5.0}, {}, ("hold", "suspicion_brier", "b")),
        ("s50", {"futility": 20.0, "harm": 5.0}, {"futility": 20.0}, ("drop", "futility", "c")),
        ("s10", {"futility": 20.0}, {}, ("advance", "stage_passed", "")),
        # the best of those that pass
        ("s50", WINNING, {}, ("promote", "better", "b")),
        ("s50", {}, WINNING, ("promote", "better", "c")),
        ("s50", WINNING, WINNING | {"promote": 151.0}, ("promote", "better", "c")),
        ("s50", WINNING, WINNING | {"promote": 151.0, "better": False}, ("promote", "better", "b")),
        ("s50", WINNING, WINNING | {"promote": 151.0, "errors_pass": 1.0}, ("promote", "better", "b")),
        ("s50", WINNING, WINNING | {"promote": 151.0, "segment_harm": 200.0}, ("promote", "better", "b")),
        ("s50", WINNING, {"harm": 6.0}, ("promote", "better", "b")),
        ("s50", WINNING | {"matured": {"s50": (50_000, 500, 0)}}, WINNING, ("promote", "better", "b")),
        ("s50", WINNING | {"missing": (0.0, 0.01, 0.06)}, WINNING, ("promote", "better", "b")),
        # everybody waits for a doubt about one, and for the units of each
        ("s10", {}, {"harm": 5.0}, ("hold", "suspicion_brier", "c")),
        ("s10", {"harm": 5.0}, {"harm": 6.0}, ("hold", "suspicion_brier", "c")),
        ("s10", {}, {"clicks_harm": 100.0}, ("hold", "signal_clicks", "c")),
        ("s1", {}, {}, ("advance", "stage_passed", "")),
        ("s1", {"matured": {"s1": (1000, 5, 4)}}, {}, ("continue", "collecting", "")),
        ("s50", {"folded": 1_000_000}, {}, ("inconclusive", "max_units", "")),
    ],
)
def test_several_challengers(stage: str, b: dict[str, Any], c: dict[str, Any], expected: tuple[str, str, str]) -> None:
    decision = decide(view(stage, c=c, **b))
    assert (decision.kind, decision.reason, decision.variant) == expected
    assert decision.text


def test_with_several_challengers_every_text_says_about_whom() -> None:
    assert decide(view("s50", c=HARM)).text == "c: brier is worse on the units so far (E = 100, needed 100)"
    assert decide(view("s50", c=WINNING)).text.startswith("c: brier is better by [0.0100, 0.0300]")
    assert decide(view("s10", c={"harm": 5.0})).text == "c: brier may be worse (E = 5, hold at 5)"
    text = decide(view("s1", c={}, matured={"s1": (1000, 4, 3)})).text
    assert text == "before the next stage: 4 of 5 units of b in s1, 3 of 5 units of c in s1"
    text = decide(view("s50", c={"errors_pass": 20.0, "better": True})).text
    assert text.startswith("before promotion: b: evidence for brier")
    assert text.endswith("; c: evidence for brier E = 1 of 100")


def test_the_last_one_in_the_running_is_treated_like_the_only_one() -> None:
    alone = state("s50", challengers=("b", "c")).without("b")
    for evidence, kind in ((HARM, "rollback"), ({"futility": 20.0}, "inconclusive"), (WINNING, "promote")):
        decision = decide(view("s50", state=alone, c=evidence, **HARM))
        assert (decision.kind, decision.variant) == (kind, "c")


@pytest.mark.parametrize(
    ("stage", "evidence", "kind", "reason"),
    [
        ("s1", {}, "advance", "stage_passed"),
        ("s1", HARM, "advance", "stage_passed"),
        ("s10", {"harm": 6.0, "clicks_harm": 100.0}, "advance", "stage_passed"),
        ("s1", HARM | {"matured": {}}, "continue", "aa_rollback"),
        ("s50", HARM, "continue", "aa_rollback"),
        ("s50", WINNING, "continue", "aa_promote"),
        ("s50", {"futility": 20.0}, "continue", "aa_inconclusive"),
        ("s50", {}, "continue", "collecting"),
        # what is no statistic acts as ever
        ("s50", {"kills": {"b": "5 of 6 failed"}} | WINNING, "rollback", "kill_rule"),
        ("s50", {"folded": 1_000_000} | WINNING, "inconclusive", "max_units"),
        ("s10", {"sample_ratio_alarm": True}, "hold", "sample_ratio"),
        ("s10", {"facts_lost": True}, "hold", "facts_lost"),
        ("s10", {"state": state("s10", hold="wait")} | HARM, "hold", "held"),
    ],
)
def test_a_trial_of_equals_only_says_what_it_would_do(
    stage: str, evidence: dict[str, Any], kind: str, reason: str
) -> None:
    decision = decide(view(stage, definition=TRIAL, **evidence))
    assert (decision.kind, decision.reason) == (kind, reason)


def test_what_a_trial_would_have_done_is_complete() -> None:
    several = replace(SEVERAL, aa=True)
    told = would_be(view("s50", definition=several, c=WINNING, kills={"b": "x"}, **HARM))
    assert [(decision.kind, decision.reason, decision.variant) for decision in told] == [
        ("continue", "aa_drop", "b"),
        ("continue", "aa_promote", "c"),
    ]
    assert told[0].text == "would drop b: brier is worse on the units so far (E = 100, needed 100)"
    assert [d.reason for d in would_be(view("s1", definition=several, c=HARM, **HARM))] == ["aa_drop", "aa_rollback"]
    assert would_be(view("s1", definition=TRIAL, folded=1_000_000)) == [], "a limit is no false alarm"
    assert would_be(view("s1", definition=TRIAL, facts_lost=True)) == []


@pytest.mark.parametrize(
    ("hours", "evidence", "kind", "reason"),
    [
        (0, {}, "continue", "watching"),
        (23, {"watch_harm": 999_999.0}, "continue", "watching"),
        (1, {"watch_harm": 1e6}, "rollback", "watch_brier"),
        (1, {"watch_errors": 1e6}, "rollback", "watch_errors"),
        (1, {"watch_clicks": 1e9}, "continue", "watching"),
        (24, {}, "complete", "watched"),
        (24, {"watch_harm": 1e6}, "rollback", "watch_brier"),
        # what was known before the promotion is no news
        (1, {"harm": 1e9, "segment_harm": 1e9, "kills": {"b": "x"}}, "continue", "watching"),
    ],
)
def test_the_watch_after_a_promotion(hours: int, evidence: dict[str, Any], kind: str, reason: str) -> None:
    promote = Decision(kind="promote", reason="", text="")
    watched = move(state("s50"), promote, WATCHED, "a", NOW - hours * HOUR)
    decision = decide(view(state=watched, rules=WATCHED, **evidence))
    assert (decision.kind, decision.reason) == (kind, reason)
    assert decision.text


@pytest.mark.parametrize(
    ("kind", "reason", "rollback_only", "full"),
    [
        ("advance", "stage_passed", False, True),
        ("promote", "better", False, True),
        ("complete", "watched", False, True),
        ("inconclusive", "futility", False, True),
        ("drop", "futility", False, True),
        ("drop", "equivalent", False, True),
        ("drop", "harm_brier", True, True),
        ("drop", "kill_rule", True, True),
        ("rollback", "watch_brier", True, True),
        ("continue", "aa_rollback", False, False),
        ("hold", "sample_ratio", False, False),
    ],
)
def test_what_automation_permits(kind: Kind, reason: str, rollback_only: bool, full: bool) -> None:
    decision = Decision(kind=kind, reason=reason, text="")
    assert permitted("rollback_only", decision) == rollback_only
    assert permitted("full", decision) == full
    assert not permitted("recommend", decision)
    assert not permitted("off", decision)
