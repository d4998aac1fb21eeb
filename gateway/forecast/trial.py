"""One experiment from start to decision, by the code that decides in production: fold, judge, policy, stages.

Only the clock, the units and the network are made up; the kill rule, which is no statistic, has no part in it. A look
is a batch of units. Looks at which the policy could only go on collecting (`quiet`) are folded several at a time and
not judged; a stretch in which something happened is gone through again in halves, down to the one look. The outcome is
the same.
"""

from __future__ import annotations

import copy

import msgspec
import numpy as np

from gateway.evidence.cells import Evidence
from gateway.evidence.verdict import judge
from gateway.forecast.arrivals import Arrivals, Waiting, World
from gateway.forecast.quiet import Watch
from gateway.forecast.subject import Subject
from gateway.forecast.traffic import DAY_US
from gateway.release.policy import decide, permitted
from gateway.release.stages import begun, enter, move
from gateway.release.state import Decision, ReleaseState
from gateway.release.view import View

START_US = 1_700_000_000_000_000  # any time: nothing depends on the date
_STRETCH = 8  # looks drawn at once
_FEWEST = 100  # looks in a stage


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How one run ended."""

    kind: str  # promote, rollback, inconclusive; "" if the units came to an end
    reason: str
    stage: str
    variant: str
    expelled: tuple[str, ...]  # challengers that went because of harm, dropped or rolled back
    units: int
    challenger_units: int
    days: float
    crossed: bool  # the objective's evidence reached its level at some unit, whatever the rest demanded
    mismatch: bool  # the split was called wrong at the end


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Units between two looks, by stage. In a stage that takes longer than expected looks become rarer: one more for
    every hundredth of its units so far, so a decision is at most that much late."""

    every: dict[str, int]

    def units(self, stage: str, so_far: int) -> int:
        return max(self.every[stage], so_far // _FEWEST)


class Trial:
    """One run. Ends when the experiment has, or when the world has no more units."""

    def __init__(
        self, subject: Subject, world: World, pace: Pace, seed: np.random.SeedSequence, *, thorough: bool = False
    ) -> None:
        """``thorough``: judge every look, also those at which nothing can be decided."""
        self._subject = subject
        self._world = world
        self._pace = pace
        self._thorough = thorough
        self._rng = np.random.default_rng(seed)
        self._evidence = Evidence(subject.definition)
        self._waiting = Waiting(subject.judged)
        self._watch = Watch(subject)
        self._state = enter(begun(subject.definition, START_US), subject.rules.stages[0], START_US)
        self._now_us = START_US
        self._came = np.zeros(len(subject.definition.arms), dtype=np.int64)
        self._in_stage = 0
        self._calm = False
        self._last = Decision(kind="continue", reason="units_ended", text="")
        self._expelled: tuple[str, ...] = ()

    def run(self) -> Result:
        while self._state.status == "running" and self._stretch():
            pass
        if self._state.status == "running":
            self._close()
        report = judge(self._evidence, self._subject.thresholds, int(self._came.sum()), self._waiting.folded)
        self._watch.learn(report)
        return Result(
            kind="" if self._state.status == "running" else self._last.kind,
            reason=self._last.reason if self._state.status != "running" else "units_ended",
            stage=_stage_of(self._subject, self._state),
            variant=self._last.variant,
            expelled=self._expelled,
            units=int(self._came.sum()),
            challenger_units=int(self._came[1:].sum()),
            days=(self._now_us - START_US) / DAY_US,
            crossed=self._watch.crossed(self._evidence),
            mismatch=report.sample_ratio_alarm,
        )

    def _close(self) -> None:
        """No more units come: wait until every window has closed, and look for the last time."""
        self._now_us += max(metric.within_us for metric in self._subject.judged)
        self._waiting.fold(self._evidence, self._now_us)
        self._judge()

    def _stretch(self) -> bool:
        """The next looks. False when no more units come."""
        every = self._pace.units(self._state.stage, self._in_stage)
        units = self._world.arrive(self._rng, every * _STRETCH, self._state, self._now_us)
        if units is None:
            return False
        self._waiting.add(units)
        if not self._pass(units, 0, len(units), every):
            self._waiting.drop_after(self._now_us)  # whoever comes later comes under another split
        return True

    def _pass(self, units: Arrivals, begin: int, end: int, every: int) -> bool:
        """Looks at once if nothing happens in them, else in halves. False when the release has moved."""
        if end - begin <= every:
            return self._look(units, begin, end)
        if self._calm and self._folded_at_once(units, begin, end):
            return True
        looks = -((begin - end) // every)
        middle = begin + every * ((looks + 1) // 2)
        return self._pass(units, begin, middle, every) and self._pass(units, middle, end, every)

    def _folded_at_once(self, units: Arrivals, begin: int, end: int) -> bool:
        before = _copied(self._evidence), self._waiting.mark(), self._came, self._in_stage, self._now_us
        self._fold(units, begin, end)
        if self._quiet():
            return True
        self._evidence, mark, self._came, self._in_stage, self._now_us = before
        self._waiting.back_to(mark)
        return False

    def _look(self, units: Arrivals, begin: int, end: int) -> bool:
        self._fold(units, begin, end)
        before = self._state
        if not (self._watch.informed and self._quiet()):
            self._judge()
        self._calm = self._state.status == "running" and self._quiet()
        return self._state is before

    def _fold(self, units: Arrivals, begin: int, end: int) -> None:
        """The units of one look come, and whatever is settled by then is folded."""
        arms = units.batch.arms[begin:end]
        self._evidence.fold_coins(arms.tolist(), units.batch.odds[begin:end].tolist())
        self._came = self._came + np.bincount(arms, minlength=len(self._came))
        self._in_stage += end - begin
        self._now_us = int(units.batch.at[end - 1])
        self._waiting.fold(self._evidence, self._now_us)

    def _quiet(self) -> bool:
        return not self._thorough and self._watch.quiet(self._evidence, self._state, self._now_us, self._waiting.folded)

    def _judge(self) -> None:
        report = judge(self._evidence, self._subject.thresholds, int(self._came.sum()), self._waiting.folded)
        self._watch.learn(report)
        rules, definition = self._subject.rules, self._subject.definition
        view = View(definition=definition, rules=rules, state=self._state, report=report, now_us=self._now_us)
        decision = decide(view)
        if not permitted("full", decision):
            return
        self._last = decision
        if decision.expels:
            self._expelled = *self._expelled, decision.variant
        self._state = move(self._state, decision, rules, definition.champion, self._now_us)
        if decision.kind == "advance":
            self._in_stage = 0


def _copied(evidence: Evidence) -> Evidence:
    """The definition never changes and is shared."""
    return copy.deepcopy(evidence, {id(evidence.definition): evidence.definition})


def _stage_of(subject: Subject, state: ReleaseState) -> str:
    """The stage in which it was decided; a promotion with a holdback has gone on to its watch."""
    names = [stage.name for stage in subject.rules.stages]
    return state.stage if state.stage in names else names[-1]
