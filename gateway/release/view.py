"""Everything that a decision may depend on: the rules of the config, the state, the report, the time."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import msgspec

from gateway.evidence.definition import Definition
from gateway.evidence.report import OVERALL, Report, Test
from gateway.release.state import ReleaseState, StageRule

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
    segment_harm: Literal["veto", "restrict", "rollback"] = "veto"
    holdback: Decimal = Decimal(0)  # share that stays with the old champion after a promotion
    watch_us: int = 0  # how long the holdback stays


class View(msgspec.Struct, frozen=True, kw_only=True):
    """One look at one release."""

    definition: Definition
    rules: Rules
    state: ReleaseState
    report: Report
    now_us: int
    kills: dict[str, str] = {}  # by challenger: why the kill rule fired
    crashes: dict[str, str] = {}  # by variant: why its model is stopped
    facts_lost: bool = False  # assignments could not be kept: the log is not whole
    disagreement: str = ""  # which nodes serve from another config, in words
    loading: bool = False  # models are being loaded: traffic does not yet reach what the state says

    @property
    def terms(self) -> dict[str, Any]:
        """What a decision depends on beside definition and report, as plain data: enough to decide again."""
        given = {"definition", "report"}
        return {name: msgspec.to_builtins(getattr(self, name)) for name in self.__struct_fields__ if name not in given}

    @property
    def stage(self) -> StageRule:
        return next(stage for stage in self.rules.stages if stage.name == self.state.stage)

    @property
    def next_stage(self) -> StageRule | None:
        names = [stage.name for stage in self.rules.stages]
        following = names.index(self.state.stage) + 1
        return self.rules.stages[following] if following < len(names) else None

    @property
    def deciding(self) -> frozenset[str]:
        """Objective and guardrails: metrics whose harm rolls back."""
        return frozenset((self.definition.objective, *(metric.name for metric in self.definition.guardrails)))

    def test(self, metric: str, name: str, challenger: str, segment: str = OVERALL) -> Test | None:
        return self.report.test(metric, name, segment, challenger)

    def tests(self, name: str, challenger: str) -> list[Test]:
        """All tests of that name about one challenger in metrics that decide, overall and in segments."""
        return [
            test
            for test in self.report.tests
            if (test.name, test.challenger) == (name, challenger) and test.metric in self.deciding
        ]

    def named(self, challenger: str, text: str) -> str:
        """With several challengers a text must say which one it is about."""
        return text if len(self.definition.challengers) == 1 else f"{challenger}: {text}"
