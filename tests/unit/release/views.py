"""Views of an experiment for the policy, made by hand: everything passed unless told otherwise."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from gateway.assignment.ranges import whole
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.evidence.verdict import Estimate, Report, Test
from gateway.release.policy import Rules, View
from gateway.release.stages import enter
from gateway.release.state import ReleaseState, StageRule

HOUR = 3_600_000_000
NOW = 1_700_000_000_000_000
STAGES = tuple(
    StageRule(name=name, share=Decimal(share), min_duration_us=HOUR, min_units=100 * units, min_challenger_units=units)
    for name, share, units in (("s1", "0.01", 5), ("s10", "0.1", 50), ("s50", "0.5", 500))
)
RULES = Rules(
    stages=STAGES,
    automation="full",
    hold_at=5.0,
    futility=True,
    max_units=1_000_000,
    max_duration_us=1000 * HOUR,
    on_inconclusive="champion",
)
DEFINITION = Definition(
    id="exp",
    endpoint="rank",
    champion="a",
    challenger="b",
    metrics=(
        MetricDefinition(name="brier", type="bounded", source="outcome", increase=False),
        MetricDefinition(name="errors", type="binary", source="gateway", increase=False, margin=0.01),
    ),
    objective="brier",
    expected_effect=0.02,
    min_effect=0.01,
    segments=("origin",),
    segment_values=(("EWR",),),
    answer_within_us=1,
)
_NEEDED = {
    ("brier", "promote"): 100,
    ("brier", "harm"): 100,
    ("brier", "futility"): 20,
    ("errors", "non_inferior"): 20,
    ("errors", "harm"): 1000,
}


def a_test(metric: str, name: str, e: float, *, segment: str = "", now: float | None = None, needed: int = 0) -> Test:
    needed = needed or _NEEDED[metric, name]
    present = math.log(e if now is None else now)
    return Test(metric=metric, segment=segment, name=name, log_e=math.log(e), needed=math.log(needed), now=present)


def report(**e: Any) -> Report:
    """Named e-values, all undecided by default; other fields by name."""
    tests = [
        a_test("brier", "promote", e.pop("promote", 1.0)),
        a_test("brier", "harm", e.pop("harm", 0.5), now=e.pop("harm_now", None)),
        a_test("brier", "futility", e.pop("futility", 1.0)),
        a_test("brier", "promote", e.pop("worst_fill", 1.0), segment="worst"),
        a_test("errors", "non_inferior", e.pop("errors_pass", 1.0)),
        a_test("errors", "harm", e.pop("errors_harm", 0.5)),
        a_test("brier", "harm", e.pop("segment_harm", 0.5), segment="origin=EWR", needed=200),
    ]
    better = e.pop("better", False)
    base = Report(
        experiment="exp",
        units=3000,
        folded=3000,
        assigned=(2000, 1000),
        matured={"s1": (500, 5), "s10": (5000, 500), "s50": (50_000, 50_000)},
        tests=tuple(tests),
        estimates=(
            Estimate(
                metric="brier",
                segment="",
                increase=False,
                units=(2000, 1000),
                lower=-0.03,
                estimate=-0.02,
                upper=-0.01 if better else 0.01,
                better=better,
            ),
        ),
        sample_ratio_alarm=False,
        missing=(0.0, 0.0),
        worst_fill_needed=False,
        verdict="undecided",
    )
    return replace(base, **e)


WINNING = {"promote": 150.0, "errors_pass": 30.0, "better": True}


def state(stage: str = "s50", *, since: int = 2 * HOUR, **more: Any) -> ReleaseState:
    begun = ReleaseState(
        endpoint="rank",
        champion="a",
        slots=whole("a"),
        status="running",
        experiment="exp",
        challenger="b",
        started_at_us=NOW - 10 * HOUR,
    )
    rule = next(rule for rule in STAGES if rule.name == stage)
    return replace(enter(begun, rule, NOW - since), **more)


def view(stage: str = "s50", **e: Any) -> View:
    """`rules`, `state`, `kill` and `facts_lost` by name; the rest goes into the report."""
    parts = {name: e.pop(name) for name in ("kill", "facts_lost") if name in e}
    return View(
        definition=e.pop("definition", DEFINITION),
        rules=e.pop("rules", RULES),
        state=e.pop("state", None) or state(stage),
        report=report(**e),
        now_us=NOW,
        **parts,
    )
