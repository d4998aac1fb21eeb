"""What is known about one experiment at one fold step: numbers and words, ready for the policy, people and JSON."""

from __future__ import annotations

from typing import Literal

import msgspec

OVERALL = ""  # the segment that is everybody
WORST = "worst"  # everybody, with the worst value where an outcome is missing
CYCLE, LAST_CYCLE = "cycle", "last-cycle"  # everybody in the present and in the last whole business cycle
WATCH = "watch"  # after a promotion: the new champion against the holdback; also the name of that stage
ASSIGNED = "assigned"  # in the place of a metric: the sample ratio at the coin
NOT_SEGMENTS = frozenset((OVERALL, WORST, CYCLE, LAST_CYCLE, WATCH))

Word = Literal["better", "worse", "equivalent", "undecided", "invalid"]


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """The error rates that a config allows."""

    alpha: float
    alpha_rollback: float
    alpha_errors: float
    alpha_guardrail: float
    alpha_srm: float
    futility: float = 0.05
    run_length: float = 1e6  # of the watch after a promotion, in units


class Test(msgspec.Struct, frozen=True, kw_only=True):
    """One hypothesis: its evidence and the level that it must reach, as natural logarithms.

    `log_e` is what decides: for harm the highest value so far (it latches, rule R16), else the present one.
    """

    challenger: str  # "" where the hypothesis is about the whole experiment
    metric: str
    segment: str
    name: str
    log_e: float
    needed: float
    now: float  # the present value: a suspicion may pass

    @property
    def met(self) -> bool:
        return self.log_e >= self.needed

    @property
    def progress(self) -> float:
        """0 to 1 on the way to the threshold."""
        return min(1.0, max(0.0, self.log_e / self.needed))


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """An effect, challenger minus champion, with its anytime-valid 95 % interval.

    In the metric's own unit; of an unbounded or ratio metric in units of its score (`method` exact), and beside it the
    mean in its own unit (asymptotic).
    """

    challenger: str
    metric: str
    segment: str
    increase: bool
    units: tuple[int, int]  # champion, challenger
    lower: float
    estimate: float
    upper: float
    better: bool  # the whole interval lies on the better side (beyond min_effect, where the config requires that)
    worse: bool = False  # the whole interval lies on the worse side
    method: Literal["exact", "asymptotic"] = "exact"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known about one experiment at one fold step. Tuples by arm begin with the champion."""

    experiment: str
    units: int  # votes admitted
    folded: int  # votes that every metric has folded
    assigned: tuple[int, ...]  # votes by arm
    matured: dict[str, tuple[int, ...]]  # objective units by stage and arm
    tests: tuple[Test, ...]
    estimates: tuple[Estimate, ...]
    sample_ratio_alarm: bool
    missing: tuple[float, ...]  # of the objective, shares by arm
    worst_fill_needed: bool
    verdict: Word  # of the experiment: of its one challenger, or of the best of several
    verdicts: dict[str, Word]  # by challenger
    segment_verdicts: dict[str, dict[str, Word]]  # by challenger, then by segment, of the objective
    cycles: int = 0  # whole business cycles that have matured
    thresholds: Thresholds | None = None  # that it was read against; None in a row of an earlier version

    def test(self, metric: str, name: str, segment: str = OVERALL, challenger: str = "") -> Test | None:
        """The test of that name; without `challenger`, of the first challenger that has one."""
        for test in self.tests:
            if (test.metric, test.name, test.segment) == (metric, name, segment) and challenger in (
                "",
                test.challenger,
            ):
                return test
        return None

    def estimate(self, metric: str, segment: str = OVERALL, challenger: str = "") -> Estimate | None:
        """The exact estimate; without `challenger`, of the first challenger that has one."""
        for one in self.estimates:
            if (one.metric, one.segment, one.method) == (metric, segment, "exact") and challenger in (
                "",
                one.challenger,
            ):
                return one
        return None
