"""What the fold steps have written down: in what order everything was folded, and how far each step came."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from gateway.audit.finding import Finding
from gateway.audit.refolding import ADMITTED, Cursors
from gateway.spool.format import Position
from gateway.store.base import FoldStep
from gateway.store.keeping import Keeping

_written = msgspec.json.Decoder(dict[str, dict[str, int]])
_moved = msgspec.json.Decoder(dict[str, Position])


@dataclass(slots=True)
class Course:
    """How one experiment was folded."""

    first: int = 0  # the first step that names it; 0 for none
    before: int = 0  # the watermark of the step before that one
    last: dict[str, int] = field(default_factory=dict)  # cursors in the end
    at: dict[int, Cursors] = field(default_factory=dict)  # cursors at the steps that were asked for


@dataclass(slots=True)
class Steps:
    """Every step, in order. Steps count from 1."""

    watermarks: array[int] = field(default_factory=lambda: array("q"))
    courses: dict[str, Course] = field(default_factory=dict)
    known_plans: dict[int, int] = field(default_factory=dict)  # by revision: the first step that could know the plan
    positions: dict[str, tuple[int, Position]] = field(
        default_factory=dict
    )  # of streams, with the last step to name it
    findings: list[Finding] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.watermarks)

    def watermark(self, step: int) -> int:
        """0 before the first step."""
        return self.watermarks[step - 1] if step else 0

    def first_beyond(self, at: int) -> int:
        """The first step whose watermark lies beyond a time; one more than there are if none does."""
        return bisect_left(self.watermarks, at + 1) + 1

    def course(self, experiment: str) -> Course:
        return self.courses.setdefault(experiment, Course())


def read_steps(store: Keeping, wanted: Mapping[str, set[int]]) -> Steps:
    """All steps, with the cursors that each experiment had at the wanted ones. Inside a transaction."""
    steps = Steps()
    waiting = sorted(store.plans(), key=lambda plan: plan.at)
    asked: dict[int, list[str]] = {}
    for experiment, numbers in wanted.items():
        for number in numbers:
            asked.setdefault(number, []).append(experiment)
    for experiment in asked.get(0, ()):
        steps.course(experiment).at[0] = {}
    for step in _in_order(store, steps):
        while waiting and waiting[0].at <= step.at:
            steps.known_plans[waiting.pop(0).revision] = step.step
        _note_positions(steps, step)
        for experiment, cursors in _cursors(step, steps).items():
            _take(steps, step, experiment, cursors)
        for experiment in asked.get(step.step, ()):
            course = steps.course(experiment)
            course.at[step.step] = dict(course.last)
    return steps


def _in_order(store: Keeping, steps: Steps) -> Iterator[FoldStep]:
    for step in store.steps():
        number, before = len(steps) + 1, steps.watermark(len(steps))
        if step.step != number:
            gap = Finding(what="step", text="the next one is missing", step=number - 1)
            steps.findings.append(msgspec.structs.replace(gap, expected=str(number), found=str(step.step)))
            return
        if step.watermark < before:
            falls = Finding(what="step", text="the watermark falls", step=number)
            steps.findings.append(msgspec.structs.replace(falls, expected=f">= {before}", found=str(step.watermark)))
        steps.watermarks.append(max(before, step.watermark))
        yield step


def _note_positions(steps: Steps, step: FoldStep) -> None:
    if step.positions == "{}":
        return
    try:
        moved = _moved.decode(step.positions)
    except msgspec.DecodeError as error:
        steps.findings.append(Finding(what="step", text=f"its positions cannot be read: {error}", step=step.step))
        return
    for stream, position in moved.items():
        before, known = steps.positions.get(stream, (0, position))
        if position < known:
            text = f"stream {stream} is read back from where step {before} had come"
            steps.findings.append(Finding(what="step", text=text, step=step.step))
        steps.positions[stream] = step.step, position


def _cursors(step: FoldStep, steps: Steps) -> dict[str, dict[str, int]]:
    if step.cursors == "{}":
        return {}
    try:
        return _written.decode(step.cursors)
    except msgspec.DecodeError as error:
        steps.findings.append(Finding(what="step", text=f"its cursors cannot be read: {error}", step=step.step))
        return {}


def _take(steps: Steps, step: FoldStep, experiment: str, cursors: Cursors) -> None:
    course = steps.course(experiment)
    if not course.first:
        course.first, course.before = step.step, steps.watermark(step.step - 1)
    for metric, after in cursors.items():
        before = course.last.get(metric, 0)
        if after < before:
            what = f"the cursor of {metric} falls" if metric != ADMITTED else "the number of votes falls"
            steps.findings.append(
                Finding(
                    what="cursor",
                    text=what,
                    step=step.step,
                    experiment=experiment,
                    metric=metric,
                    expected=f">= {before}",
                    found=str(after),
                )
            )
        course.last[metric] = max(before, after)
