"""Could the policy say anything but "collecting"? If not, a look need not be judged.

Every condition here is necessary for a decision and never goes back: peaks do not fall, counts and clocks do not
return. So "no" at the end of a stretch of looks holds for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from gateway.evidence.cells import Evidence
from gateway.evidence.definition import FUTILITY, HARM, NON_INFERIOR, PROMOTE, MetricDefinition
from gateway.evidence.report import OVERALL, Report
from gateway.forecast.subject import Subject
from gateway.release.state import ReleaseState, StageRule


class Watch:
    """Knows what each test needs from the last report, and looks at the evidence itself."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._definition = subject.definition
        self._levels: dict[tuple[str, ...], float] = {}

    @property
    def informed(self) -> bool:
        return bool(self._levels)

    def learn(self, report: Report) -> None:
        self._levels = {(one.challenger, one.metric, one.segment, one.name): one.needed for one in report.tests}

    def quiet(self, evidence: Evidence, state: ReleaseState, now_us: int, folded: int) -> bool:
        rules = self._subject.rules
        if rules.max_units is not None and folded >= rules.max_units:
            return False
        if now_us - state.started_at_us >= rules.max_duration_us:
            return False
        stage = next(rule for rule in rules.stages if rule.name == state.stage)
        last = stage is rules.stages[-1]
        passed = self._passed(evidence, state, stage, now_us)
        if passed and not last:
            return False
        return not any(self._decided(evidence, name, last, passed) for name in state.contenders)

    def crossed(self, evidence: Evidence) -> bool:
        """Whether the objective's evidence for some challenger ever reached its level."""
        return any(self._peak(evidence, arm, self._subject.objective, PROMOTE) for arm in self._definition.challengers)

    def _passed(self, evidence: Evidence, state: ReleaseState, stage: StageRule, now_us: int) -> bool:
        if now_us - state.stage_since_us < stage.min_duration_us:
            return False
        matured = [evidence.matured[stage.name, arm] for arm in range(len(self._definition.arms))]
        return sum(matured) >= stage.min_units and max(matured[1:]) >= stage.min_challenger_units

    def _decided(self, evidence: Evidence, challenger: str, last: bool, passed: bool) -> bool:
        """Harm at any time, futility in the last stage, promotion at its end."""
        objective = self._subject.objective
        if any(self._harmed(evidence, challenger)):
            return True
        gives_up = last and self._subject.rules.futility and self._definition.min_effect > 0.0
        if gives_up and self._peak(evidence, challenger, objective, FUTILITY):
            return True
        return (
            passed
            and self._peak(evidence, challenger, objective, PROMOTE)
            and all(self._peak(evidence, challenger, one, NON_INFERIOR) for one in self._definition.guardrails)
            and (not self._definition.cycle_us or max(evidence.cycles.values(), default=0) >= 1)
        )

    def _harmed(self, evidence: Evidence, challenger: str) -> Iterator[bool]:
        arm = self._definition.arm(challenger)
        for metric in self._subject.judged:
            if metric.signal:
                continue  # it holds, and goes on collecting
            for segment in (OVERALL, *evidence.segments_of(arm, metric)):
                yield self._peak(evidence, challenger, metric, HARM, segment)

    def _peak(
        self, evidence: Evidence, challenger: str, metric: MetricDefinition, name: str, segment: str = OVERALL
    ) -> bool:
        """Whether a test has ever reached its level; one that was never judged might have."""
        arm = str(self._definition.arm(challenger))
        if metric.by_quantiles and segment == OVERALL:
            guard = evidence.find("quantiles", arm, metric.name)
            if guard is None:
                return False
            # Of a pass only the present value is kept: it does not count here.
            return name != HARM or guard.peak_log_e(HARM) >= self._level(challenger, metric.name, OVERALL, HARM)
        cell = evidence.find("cell", arm, metric.name, segment)
        return cell is not None and cell.peak_log_e(name) >= self._level(challenger, metric.name, segment, name)

    def _level(self, *key: str) -> float:
        return self._levels.get(key, -math.inf)
