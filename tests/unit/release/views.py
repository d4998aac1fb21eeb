"""Views of an experiment for the policy, made by hand: everything passed unless told otherwise."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from gateway.assignment.ranges import whole
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.evidence.report import LAST_CYCLE, WATCH, WORST, Estimate, Report, Test
from gateway.release.stages import enter
from gateway.release.state import ReleaseState, StageRule
from gateway.release.view import Rules, View

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
WATCHED = replace(RULES, holdback=Decimal("0.02"), watch_us=24 * HOUR)
# Each of several challengers has its share beside the others.
SHARED = replace(RULES, stages=(*STAGES[:2], replace(STAGES[2], share=Decimal("0.3"))))
DEFINITION = Definition(
    id="exp",
    endpoint="rank",
    champion="a",
    challengers=("b",),
    metrics=(
        MetricDefinition(name="brier", type="bounded", source="outcome", increase=False),
        MetricDefinition(name="errors", type="binary", source="gateway", increase=False, margin=0.01),
        MetricDefinition(name="clicks", type="binary", source="outcome", increase=True, signal=True),
    ),
    objective="brier",
    expected_effect=0.02,
    min_effect=0.01,
    segments=("origin",),
    segment_values=(("EWR", "JFK"),),
    answer_within_us=1,
    digests=("", ""),
)
SEVERAL = replace(DEFINITION, challengers=("b", "c"), digests=("", "", ""))
_NEEDED = {
    ("brier", "promote"): 100,
    ("brier", "harm"): 100,
    ("brier", "futility"): 20,
    ("brier", "not_worse"): 20,
    ("errors", "non_inferior"): 20,
    ("errors", "harm"): 1000,
    ("clicks", "harm"): 100,
}


def a_test(
    metric: str,
    name: str,
    e: float,
    *,
    segment: str = "",
    now: float | None = None,
    needed: int = 0,
    challenger: str = "b",
) -> Test:
    needed = needed or _NEEDED[metric, name]
    return Test(
        challenger=challenger,
        metric=metric,
        segment=segment,
        name=name,
        log_e=math.log(e),
        needed=math.log(needed),
        now=math.log(e if now is None else now),
    )


def tests_of(challenger: str, e: dict[str, Any]) -> list[Test]:
    """Named e-values, all undecided by default; takes what it knows out of `e`."""
    tests = [
        a_test("brier", "promote", e.pop("promote", 1.0)),
        a_test("brier", "harm", e.pop("harm", 0.5), now=e.pop("harm_now", None)),
        a_test("brier", "futility", e.pop("futility", 1.0)),
        a_test("brier", "not_worse", e.pop("not_worse", 1.0)),
        a_test("brier", "promote", e.pop("worst_fill", 1.0), segment=WORST),
        a_test("brier", "harm", e.pop("last_cycle", 0.5), segment=LAST_CYCLE, needed=20),
        a_test("errors", "non_inferior", e.pop("errors_pass", 1.0)),
        a_test("errors", "harm", e.pop("errors_harm", 0.5)),
        a_test("clicks", "harm", e.pop("clicks_harm", 0.5)),
        a_test("brier", "harm", e.pop("segment_harm", 0.5), segment="origin=EWR", needed=200),
        a_test("errors", "harm", e.pop("segment_errors", 0.5), segment="origin=EWR", needed=2000),
        a_test("brier", "harm", e.pop("other_harm", 0.5), segment="origin=other", needed=200),
        a_test("brier", "harm", e.pop("watch_harm", 0.5), segment=WATCH, needed=10**6),
        a_test("errors", "harm", e.pop("watch_errors", 0.5), segment=WATCH, needed=10**6),
        a_test("clicks", "harm", e.pop("watch_clicks", 0.5), segment=WATCH, needed=10**6),
    ]
    return [replace(test, challenger=challenger) for test in tests]


def _estimate(challenger: str, better: bool) -> Estimate:
    return Estimate(
        challenger=challenger,
        metric="brier",
        segment="",
        increase=False,
        units=(2000, 1000),
        lower=-0.03,
        estimate=-0.02,
        upper=-0.01 if better else 0.01,
        better=better,
    )


def report(**e: Any) -> Report:
    """Of challenger b, and of c what is in `c`; other fields by name."""
    rival = e.pop("c", None)
    tests, estimates = tests_of("b", e), [_estimate("b", e.pop("better", False))]
    if rival is not None:
        rival = dict(rival)
        tests, estimates = tests + tests_of("c", rival), [*estimates, _estimate("c", rival.pop("better", False))]
        assert not rival
    arms = 3 if rival is not None else 2
    base = Report(
        experiment="exp",
        units=3000,
        folded=3000,
        assigned=(2000, 1000, 1000)[:arms],
        matured={"s1": (500, 5, 5)[:arms], "s10": (5000, 500, 500)[:arms], "s50": (50_000, 50_000, 50_000)[:arms]},
        tests=tuple(tests),
        estimates=tuple(estimates),
        sample_ratio_alarm=False,
        missing=(0.0, 0.0, 0.0)[:arms],
        worst_fill_needed=False,
        verdict="undecided",
        verdicts=dict.fromkeys(("b", "c")[: arms - 1], "undecided"),
        segment_verdicts={},
    )
    return replace(base, **e)


WINNING: dict[str, Any] = {"promote": 150.0, "errors_pass": 30.0, "better": True}


def state(
    stage: str = "s50", *, since: int = 2 * HOUR, challengers: tuple[str, ...] = ("b",), **more: Any
) -> ReleaseState:
    begun = ReleaseState(
        endpoint="rank",
        champion="a",
        slots=whole("a"),
        status="running",
        experiment="exp",
        challenger="b",
        challengers=challengers,
        started_at_us=NOW - 10 * HOUR,
    )
    stages = SHARED.stages if len(challengers) > 1 else STAGES
    rule = next(rule for rule in stages if rule.name == stage)
    return replace(enter(begun, rule, NOW - since), **more)


def view(stage: str = "s50", **e: Any) -> View:
    """`definition`, `rules`, `state`, `kills` and `facts_lost` by name; the rest goes into the report."""
    parts = {name: e.pop(name) for name in ("kills", "facts_lost") if name in e}
    several = "c" in e
    return View(
        definition=e.pop("definition", SEVERAL if several else DEFINITION),
        rules=e.pop("rules", SHARED if several else RULES),
        state=e.pop("state", None) or state(stage, challengers=("b", "c") if several else ("b",)),
        report=report(**e),
        now_us=NOW,
        **parts,
    )
