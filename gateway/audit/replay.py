"""Everything once more: votes from assignments, evidence from votes, reports from evidence, decisions from reports.

Each is compared with what the store has. What differs first, in the written order, is where to look; what follows from
it differs, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from gateway.audit.decisions import as_decided
from gateway.audit.finding import Finding, first_difference
from gateway.audit.naming import decoded, in_report, named, plain, short, thresholds_of
from gateway.audit.readmission import Again, readmit
from gateway.audit.refolding import ADMITTED, Cursors, Refolding
from gateway.audit.steps import Steps, read_steps
from gateway.evidence.closing import MOST
from gateway.evidence.definition import Definition, decode
from gateway.store.base import NO_LIMIT, LedgerRow
from gateway.store.keeping import Keeping

Done = Callable[[int], None]


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment. Numbers say how much there was to compare."""

    experiment: str
    endpoint: str
    votes: int
    steps: int  # that are written down, of all experiments
    reports: int  # in the ledger, made again
    unexplained: int  # rows with evidence that say too little to make it again: of an earlier version
    decisions: int  # of the gateway, made again
    readmitted: int  # votes, made again from their assignments
    readmitted_from: int  # the step: before it requests have expired, or 0 if no assignment is left
    unsure: int  # votes whose coins nobody has written down, or not in time
    findings: tuple[Finding, ...]  # in the written order

    @property
    def same(self) -> bool:
        return not self.findings


def amount(store: Keeping, experiment: str | None = None) -> int:
    """How much there is to do, in units of what `replay` calls done."""
    total = 0
    for id, (_, definition) in store.experiments().items():
        if experiment in (None, id):
            total += (2 + len(decode(definition).metrics)) * store.vote_count(id)
    return total


def replay(
    store: Keeping, experiment: str | None = None, done: Done = lambda _: None, most: int = MOST
) -> Iterator[Replayed]:
    """Replay all experiments, or one, in the order of their starts. Inside a transaction of the store."""
    known = {id: decode(text) for id, (_, text) in store.experiments().items() if experiment in (None, id)}
    rows = {id: [row for row in store.ledger(NO_LIMIT, id) if row.body.get("evidence")] for id in known}
    steps = read_steps(store, {id: {row.step for row in of} for id, of in rows.items()})
    again = readmit(store, steps, known, done, most)
    for id, definition in known.items():
        yield _Experiment(store, steps, definition, rows[id], done, most).replayed(again[id])


class _Experiment:
    """One experiment on its way through the steps."""

    def __init__(
        self,
        store: Keeping,
        steps: Steps,
        definition: Definition,
        rows: list[LedgerRow],
        done: Done,
        most: int,
    ) -> None:
        self._store = store
        self._steps = steps
        self._course = steps.course(definition.id)
        self._definition = definition
        self._rows = rows
        self._refolding = Refolding(store, definition, done, most)
        self._votes = store.vote_count(definition.id)
        self._findings: list[Finding] = []
        self._reports = self._unexplained = self._decisions = 0

    def replayed(self, again: Again) -> Replayed:
        id = self._definition.id
        self._findings += [one for one in self._steps.findings if one.experiment in ("", id)]
        self._findings += [again.finding] if again.finding else []
        for row in sorted(self._rows, key=lambda one: (one.step, one.id)):
            self._look_at(row)
        self._look_at_the_end()
        return Replayed(
            experiment=id,
            endpoint=self._definition.endpoint,
            votes=self._votes,
            steps=len(self._steps),
            reports=self._reports,
            unexplained=self._unexplained,
            decisions=self._decisions,
            readmitted=again.votes,
            readmitted_from=again.start,
            unsure=again.unsure,
            findings=tuple(sorted(self._findings, key=lambda one: one.step)),
        )

    def _look_at(self, row: LedgerRow) -> None:
        """A row of the ledger: does its report follow from the votes, and what was decided from the report?"""
        cursors = self._course.at.get(row.step)
        if cursors is None:
            self._find("ledger", f"row {row.id} names a step that is not written down", row.step)
            return
        found, thresholds = row.body["evidence"], thresholds_of(row.body["evidence"])
        if thresholds is None or not self._written(cursors, row.step):
            self._unexplained += 1
            return
        self._refolding.advance(cursors)
        report = self._refolding.report(thresholds)
        self._reports += 1
        if difference := first_difference(plain(report), found):
            self._findings.append(in_report(report, found, *difference, row))
        if (decided := as_decided(row, self._definition, report)) is not None:
            self._decisions += 1
            if difference := first_difference(*decided):
                path, expected, found = difference
                self._find(f"decision in row {row.id}", f"its {path[0]} does not follow", row.step, expected, found)

    def _written(self, cursors: Cursors, step: int) -> bool:
        """Whether the cursors of that step are known: steps of an earlier version did not write theirs down."""
        if self._whole:
            return True
        known = {ADMITTED, *(metric.name for metric in self._definition.metrics)}
        return step >= self._course.first and cursors.keys() >= known

    @property
    def _whole(self) -> bool:
        """Whether every step that moved the experiment says so: no vote is older than the first of them."""
        votes = self._store.votes(self._definition.id, 0, 1)
        if not self._course.first:
            return not votes
        return all(vote.at >= self._course.before or vote.decision == 0 for vote in votes)

    def _look_at_the_end(self) -> None:
        id = self._definition.id
        stored: dict[str, int] = {ADMITTED: self._votes, **self._store.cursors(id)}
        for metric, last in self._course.last.items():
            if stored.get(metric, 0) != last:
                self._find("cursor", "not what the steps say", len(self._steps), last, stored.get(metric, 0), metric)
        self._refolding.advance(stored)
        self._compare_states(self._refolding.states(), self._store.evidence(id))

    def _compare_states(self, expected: dict[str, bytes], found: dict[str, bytes]) -> None:
        """Byte for byte; where they differ, the first number that does."""
        for key in sorted(expected.keys() | found.keys()):
            if expected.get(key) == found.get(key):
                continue
            states = [decoded(side.get(key)) for side in (expected, found)]
            path, *values = first_difference(*states) or ((), *states)
            kind, arm, metric, segment = named(key, self._definition)
            self._findings.append(
                Finding(
                    what="evidence",
                    text=".".join((kind, *path)),
                    step=len(self._steps),
                    experiment=self._definition.id,
                    challenger=arm,
                    metric=metric,
                    segment=segment,
                    expected=short(values[0]),
                    found=short(values[1]),
                )
            )

    def _find(
        self, what: str, text: str, step: int, expected: object = None, found: object = None, metric: str = ""
    ) -> None:
        finding = Finding(what=what, text=text, step=step, experiment=self._definition.id, metric=metric)
        if not (expected is found is None):
            finding = msgspec.structs.replace(finding, expected=short(expected), found=short(found))
        self._findings.append(finding)
