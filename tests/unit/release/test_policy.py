"""The policy as a decision table: each rule alone, and which of two rules wins."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from gateway.release.policy import decide
from tests.unit.release.views import DEFINITION, HOUR, RULES, STAGES, WINNING, report, state, view

HARM = {"harm": 100.0}


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
        ("s1", {"kill": "5 of 6 failed"}, "rollback", "kill_rule"),
        ("s50", HARM | WINNING, "rollback", "harm_brier"),
        ("s50", HARM | {"futility": 50.0}, "rollback", "harm_brier"),
        ("s50", HARM | {"sample_ratio_alarm": True}, "rollback", "harm_brier"),
        ("s50", HARM | {"facts_lost": True}, "rollback", "harm_brier"),
        ("s50", {"kill": "x", "sample_ratio_alarm": True}, "rollback", "kill_rule"),
        # a segment vetoes, it does not roll back
        ("s50", {"segment_harm": 1000.0}, "continue", "collecting"),
        ("s50", {"segment_harm": 1000.0} | WINNING, "continue", "collecting"),
        # futility: in the last stage, not under suspicion
        ("s50", {"futility": 20.0}, "inconclusive", "futility"),
        ("s50", {"futility": 19.0}, "continue", "collecting"),
        ("s10", {"futility": 20.0}, "advance", "stage_passed"),
        ("s50", {"futility": 20.0, "harm": 5.0}, "hold", "suspicion_brier"),
        ("s50", {"futility": 20.0, "harm": 50.0, "harm_now": 4.9}, "inconclusive", "futility"),
        ("s50", {"futility": 20.0} | WINNING, "inconclusive", "futility"),
        # promotion
        ("s50", WINNING, "promote", "better"),
        ("s50", WINNING | {"promote": 99.0}, "continue", "collecting"),
        ("s50", WINNING | {"better": False}, "continue", "collecting"),
        ("s50", WINNING | {"errors_pass": 19.0}, "continue", "collecting"),
        ("s10", WINNING, "advance", "stage_passed"),
        ("s50", WINNING | {"matured": {"s50": (1, 499)}}, "continue", "collecting"),
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
    assert text == "before the next stage: 12 of 5000 units in s10, 2 of 50 challenger units in s10, 1800 s more in s10"
    text = decide(view("s50", promote=12.0, segment_harm=500.0)).text
    assert text == (
        "before promotion: evidence for brier E = 12 of 100, the interval of brier includes no effect,"
        " guardrail errors E = 1 of 20, segment origin=EWR is harmed"
    )


def test_a_promotion_says_how_much_better() -> None:
    text = decide(view("s50", **WINNING)).text
    assert text == "brier is better by 0.0200 [0.0100, 0.0300] (E = 150, needed 100) and every guardrail passed"


def test_no_data_is_never_a_win() -> None:
    empty = report(tests=(), estimates=(), matured={})
    decision = decide(replace(view("s50"), report=empty))
    assert decision.kind == "continue"
    assert "has no data" in decision.text
    without_guardrails = replace(DEFINITION, metrics=DEFINITION.metrics[:1])
    assert decide(replace(view("s50"), report=empty, definition=without_guardrails)).kind == "continue"
