"""Votes made once more from their assignments, in the written order, and compared with those that the store has.

An assignment was admitted at the first step whose watermark lies beyond its time, or which shipped it. Where the oldest
days have expired, what was known of a unit then is read off what is known of it in the end, for that only grows. So it
can no longer be told that a unit lacks the first vote that it should have here; but what votes there are must follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import Any, NamedTuple

from msgspec.structs import replace

from gateway.audit.finding import Finding
from gateway.audit.scratch import Scratch
from gateway.audit.seeds import seed
from gateway.audit.steps import Steps
from gateway.audit.stored import Stored
from gateway.events import FORCED, Assignment, decision_id
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import Definition
from gateway.evidence.join import Admission
from gateway.evidence.splits import Splits
from gateway.store.base import KnownUnit, UnitKey, Vote
from gateway.store.keeping import Keeping
from gateway.store.places import votes_before

AT_ONCE = 20_000  # assignments admitted together, where no late one is among them
_ROWS = 2_000  # read from one spool at a time


class Again(NamedTuple):
    """What became of one experiment."""

    votes: int  # that are the same
    start: int  # the step from which on they were made again; 0 if no assignment is left
    unsure: int  # that were not, because nobody wrote their coins down, or not in time
    finding: Finding | None  # the first that differs


class _Due(NamedTuple):
    """An assignment, with the step that admitted it."""

    step: int
    at: int
    decision: int
    fact: Assignment
    late: bool


def readmit(
    store: Keeping,
    steps: Steps,
    definitions: Mapping[str, Definition],
    done: Callable[[int], None] = lambda _: None,
    at_once: int = AT_ONCE,
) -> dict[str, Again]:
    """All experiments at once, for they share spools and steps; inside a transaction of the store.

    `done` hears how many votes were compared.
    """
    scratch = Scratch()
    try:
        with scratch.transaction():
            return _Walk(store, scratch, steps, definitions, done, at_once).walk()
    finally:
        scratch.close()


class _Walk:
    """One way through all assignments."""

    def __init__(
        self,
        store: Keeping,
        scratch: Scratch,
        steps: Steps,
        definitions: Mapping[str, Definition],
        done: Callable[[int], None],
        at_once: int,
    ) -> None:
        self._store, self._scratch, self._steps = store, scratch, steps
        self._definitions = definitions
        self._done = done
        self._at_once = at_once
        self._late = store.late_assignments()
        expired = store.expired_through()
        self._start = steps.first_beyond(expired - 1) + 1 if expired else 1
        begin = steps.watermark(self._start - 1)
        self._splits = Splits(store)
        self._admission = Admission(self._splits)
        self._evidence = {id: Evidence(definition) for id, definition in definitions.items()}
        self._stored = {
            id: Stored(store, id, votes_before(store, id, begin) if self._partial else 0) for id in definitions
        }
        # Until then a window of an expired vote may have been open, or one that depends on that.
        self._settled = {
            id: begin + 2 * definition.longest_us if self._partial else 0 for id, definition in definitions.items()
        }
        self._unsure_units: set[UnitKey] = set()
        self._unsure: set[int] = set()  # decisions
        self._met: set[str] = set()  # experiments with an assignment
        self._differs: dict[str, Finding] = {}  # by experiment the first one: what follows differs, too
        self._same = dict.fromkeys(definitions, 0)
        self._skipped = dict.fromkeys(definitions, 0)

    @property
    def _partial(self) -> bool:
        """Whether the oldest days have expired."""
        return self._start > 1

    def walk(self) -> dict[str, Again]:
        batch: list[_Due] = []
        for _, group in groupby(merge(*self._spools()), key=itemgetter(0)):
            step = list(group)
            late = step[0].late  # the oldest comes first
            if batch and (late or batch[0].late or len(batch) >= self._at_once):
                self._admit(batch)
                batch = []
            batch += step
        if batch:
            self._admit(batch)
        self._compare([], self._windows(self._steps.watermark(len(self._steps))))
        return {id: self._again(id) for id in self._definitions}

    def _again(self, id: str) -> Again:
        start = self._start if id in self._met else 0
        return Again(self._same[id], start, self._skipped[id], self._differs.get(id))

    # ------------------------------------------------------------------ in what order

    def _spools(self) -> list[Iterator[_Due]]:
        spools = sorted({stream.spool for stream in self._store.streams() if stream.stream == "requests"})
        return [self._of_spool(spool) for spool in spools]

    def _of_spool(self, spool: int) -> Iterator[_Due]:
        """The assignments of one spool with the steps that admitted them: both ascend."""
        after, end, limit = decision_id(spool, 0), decision_id(spool + 1, 0), 1  # many spools are long over
        while facts := self._store.assignments_after(after, end, limit=limit):
            shipped = dict(self._store.shipping_steps(after, end, limit))
            for fact in facts:
                step = max(shipped[fact.decision], self._steps.first_beyond(fact.at))
                if step > len(self._steps):
                    return
                if step >= self._start:
                    late = fact.at < self._steps.watermark(step - 1)
                    if fact.decision in self._late and not shipped[fact.decision]:
                        self._forgo(fact)
                    else:
                        yield _Due(step, fact.at, fact.decision, fact, late)
            after, limit = facts[-1].decision, _ROWS

    # ------------------------------------------------------------------ one batch

    def _admit(self, batch: Sequence[_Due]) -> None:
        first, last = batch[0].step, batch[-1].step
        watermark = self._steps.watermark(last)
        facts = [due.fact for due in batch if self._is_sure(due)]
        stored = self._windows(watermark)
        if self._partial:
            facts = list(self._seeded(facts, stored))
        self._admission.admit(self._scratch, facts, self._steps.watermark(first - 1), watermark, self._evidence)
        self._compare(self._scratch.take_votes(), stored)

    def _is_sure(self, due: _Due) -> bool:
        """Whether it is known what became of it; else nothing more is known of its unit."""
        fact = due.fact
        if fact.experiment not in self._definitions or fact.flags & FORCED:
            return False
        self._met.add(fact.experiment)
        if self._steps.known_plans.get(fact.revision, due.step + 1) > due.step or not self._splits.name(fact):
            self._forgo(fact)
        if _key(fact) in self._unsure_units:
            self._unsure.add(fact.decision)
            return False
        return True

    def _forgo(self, fact: Assignment) -> None:
        self._unsure.add(fact.decision)
        self._unsure_units.add(_key(fact))

    def _seeded(self, facts: list[Assignment], stored: Mapping[str, list[Vote]]) -> Iterator[Assignment]:
        """With what was known of units before the first of their assignments that is left."""
        votes = {vote.decision: vote for of in stored.values() for vote in of}
        keys = [_key(fact) for fact in facts]
        met = {key for key, unit in zip(keys, self._scratch.known_units(keys), strict=True) if unit is not None}
        strangers = list(dict.fromkeys(key for key in keys if key not in met))
        in_the_end = dict(zip(strangers, self._store.known_units(strangers), strict=True))
        seeds: dict[UnitKey, KnownUnit] = {}
        for key, fact in sorted(zip(keys, facts, strict=True), key=lambda pair: (pair[1].at, pair[1].decision)):
            known = in_the_end.get(key)
            if known is not None and known.known is None:
                self._forgo(fact)
            elif known is None or key in seeds:
                yield fact
            elif found := seed(known, self._splits.name(fact), fact, votes.get(fact.decision)):
                seeds[key] = found
                yield fact
        self._scratch.save_units(seeds)

    # ------------------------------------------------------------------ comparing

    def _windows(self, watermark: int) -> dict[str, list[Vote]]:
        return {id: stored.until(watermark) for id, stored in self._stored.items()}

    def _compare(self, made: Iterable[Vote], stored: Mapping[str, list[Vote]]) -> None:
        by_experiment: dict[str, list[Vote]] = {}
        for vote in made:
            by_experiment.setdefault(vote.experiment, []).append(vote)
        for id, found in stored.items():
            unsure = [vote for vote in found if vote.decision in self._unsure]
            known = [vote for vote in found if vote.decision and vote.decision not in self._unsure]
            self._skipped[id] += len(unsure)
            self._done(len(found))
            if id not in self._differs:
                self._compare_votes(id, by_experiment.get(id, []), known)

    def _compare_votes(self, id: str, expected: list[Vote], found: list[Vote]) -> None:
        """In their order, up to the first that differs."""
        for one, other in zip_longest(expected, found):
            if one and other and one.decision != other.decision:
                # Which of them should, or should not, be there?
                if other.decision in {vote.decision for vote in expected}:
                    other = None
                else:
                    one = None
            finding = self._difference(id, one, other)
            if finding is not None:
                self._differs[id] = finding
                return
            self._same[id] += 1

    def _difference(self, id: str, expected: Vote | None, found: Vote | None) -> Finding | None:
        vote = found or expected
        assert vote is not None
        here = Finding(what="vote", text="", experiment=id, step=self._steps.first_beyond(vote.at))
        if expected is None:
            return replace(here, text=f"no assignment makes vote {vote.ordinal}")
        if found is None:
            return replace(here, text=f"decision {expected.decision} has none")
        for name in _COMPARED:
            if name == "complete" and found.at < self._settled[id]:
                continue
            values = getattr(expected, name), getattr(found, name)
            if values[0] != values[1]:
                text = f"the {name} of vote {found.ordinal}"
                return replace(here, text=text, expected=_text(values[0]), found=_text(values[1]))
        return None


_COMPARED = tuple(name for name in Vote._fields if name not in ("experiment", "ordinal"))


def _key(fact: Assignment) -> UnitKey:
    return UnitKey(fact.experiment, fact.bucket, fact.unit)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
