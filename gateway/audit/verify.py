"""Does the store agree with itself? Rows with rows, aggregates with rows, the ledger with its own hashes.

Nothing is folded here: that the numbers follow from the facts is what replay is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from gateway.audit.finding import Finding
from gateway.audit.refolding import ADMITTED
from gateway.audit.steps import Steps, read_steps
from gateway.errors import GatewayError, StoreError
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import Definition, decode
from gateway.evidence.report import WATCH
from gateway.release.state import decode as decode_state
from gateway.spool.format import Position
from gateway.stats import SampleRatio
from gateway.store.auditing import Odd
from gateway.store.base import NO_LIMIT
from gateway.store.keeping import Keeping


def verify(store: Keeping, done: Callable[[str], None] = lambda _: None) -> Iterator[Finding]:
    """Everything that is wrong, inside a transaction of the store; `done` hears what is being looked at."""
    done("the engine's own check")
    broken = [Finding(what="integrity", text=text) for text in store.integrity()]
    yield from broken
    try:
        yield from _checks(store, done)
    except StoreError as error:
        if not broken:
            raise
        yield Finding(what="integrity", text=f"the rest cannot be read: {error}")


def _checks(store: Keeping, done: Callable[[str], None]) -> Iterator[Finding]:
    done("the ledger")
    yield from _ledger(store)
    done("the fold steps")
    steps = read_steps(store, {})
    yield from steps.findings
    yield from _streams(store, steps)
    done("votes and their assignments")
    yield from _votes(store)
    done("assignments and their plans")
    yield from _plans(store, steps)
    done("outcomes")
    yield from _counted(store)
    for id, (_, text) in store.experiments().items():
        done(f"the evidence of {id}")
        try:
            yield from _Experiment(store, steps, decode(text)).findings()
        except (msgspec.DecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
            yield Finding(what="evidence", text=f"cannot be read: {error!r}", experiment=id)
    done("release states")
    yield from _releases(store)


def head(store: Keeping) -> tuple[int, str]:
    """Number and hash of the ledger's last row: whoever notes them can tell later that nothing before was changed."""
    rows = store.ledger(1)
    return (rows[-1].id, rows[-1].hash) if rows else (0, "")


def _ledger(store: Keeping) -> Iterator[Finding]:
    broken = store.broken_link()
    if broken is not None:
        yield Finding(what="ledger", text=f"row {broken} does not follow from the rows before")
    last = store.last_step()
    number = last.step if last else 0
    beyond = [row for row in store.ledger(NO_LIMIT) if row.step > number]
    if beyond:
        text = f"{len(beyond)} rows rest on steps that are not written down, the first is {beyond[0].id}"
        yield Finding(what="ledger", text=text, step=beyond[0].step, experiment=beyond[0].experiment)


def _streams(store: Keeping, steps: Steps) -> Iterator[Finding]:
    """Positions only grow, and no vote is ahead of what was admitted."""
    cursors = {f"{stream.spool}.{stream.stream}": cursor for stream, cursor in store.streams().items()}
    for name, (step, position) in steps.positions.items():
        here = cursors[name].position if name in cursors else Position()
        if here < position:
            text = f"stream {name} is behind what step {step} says was read of it"
            yield Finding(what="stream", text=text, step=step, expected=f">= {_place(position)}", found=_place(here))
    admitted = store.admitted()
    for spool, decision in store.last_votes().items():
        mark = admitted.get(spool, 0)
        if decision > mark:
            text = f"of spool {spool} a vote is ahead of what was admitted"
            yield Finding(what="stream", text=text, expected=f"<= {mark}", found=str(decision))


def _votes(store: Keeping) -> Iterator[Finding]:
    since = store.expired_through()
    checks: list[tuple[str, list[Odd]]] = [
        ("have no assignment", store.votes_without_assignment(since)),
        ("are not as they were assigned", store.votes_unlike_assignment(since)),
        ("are of units that the store does not know", store.votes_without_unit(since)),
        ("share their decision with another vote", store.votes_twice()),
    ]
    for what, found in checks:
        for odd in found:
            text = f"{odd.votes} {what}, the first is {odd.first}"
            yield Finding(what="votes", text=text, experiment=odd.experiment)
    if number := store.settled_without_vote():
        yield Finding(what="votes", text=f"{number} settled values belong to no vote")
    if number := store.facts_of_erased():
        yield Finding(what="erasure", text=f"{number} facts of erased units are there")


def _plans(store: Keeping, steps: Steps) -> Iterator[Finding]:
    plans = {plan.revision: plan for plan in store.plans()}
    for plan in plans.values():
        if plan.as_of > len(steps):
            text = f"plan {plan.revision} rests on a step that is not written down"
            yield Finding(what="plan", text=text, step=plan.as_of)
    for drawn in store.drawn():
        if drawn.revision not in plans:
            yield Finding(what="plan", text=f"{drawn.revision} drew assignments of {drawn.endpoint} and is not there")
            continue
        slots = store.plan_slots(drawn.revision, drawn.endpoint)
        if slots and drawn.variant not in {slot.variant for slot in slots}:
            text = f"plan {drawn.revision} gives {drawn.variant} nothing at {drawn.endpoint}, which was assigned to it"
            yield Finding(what="plan", text=text)


def _counted(store: Keeping) -> Iterator[Finding]:
    if number := store.outcomes_twice():
        yield Finding(what="outcomes", text=f"{number} are there more than once")


def _releases(store: Keeping) -> Iterator[Finding]:
    known = store.experiments()
    for endpoint, (_, text) in store.releases().items():
        try:
            state = decode_state(text)
        except msgspec.DecodeError as error:
            yield Finding(what="release", text=f"the state of {endpoint} cannot be read: {error}")
            continue
        if state.experiment and state.experiment not in known:
            yield Finding(
                what="release", text=f"{endpoint} is in an experiment that never began", experiment=state.experiment
            )


@dataclass(slots=True)
class _Experiment:
    """What is counted of one experiment, against its votes."""

    store: Keeping
    steps: Steps
    definition: Definition

    def findings(self) -> Iterator[Finding]:
        id = self.definition.id
        number, first, last = self.store.vote_extent(id)
        if number and (first, last) != (1, number):
            yield self._differs("votes", "their numbers have gaps", f"1 to {number}", f"{first} to {last}")
        yield from self._cursors(number)
        try:
            evidence = Evidence.restore(self.definition, self.store.evidence(id))
        except GatewayError as error:
            yield Finding(what="evidence", text=str(error), experiment=id)
            return
        yield from self._coins(evidence)
        yield from self._tally(evidence)

    def _cursors(self, votes: int) -> Iterator[Finding]:
        written = self.steps.course(self.definition.id).last
        cursors = {ADMITTED: votes, **self.store.cursors(self.definition.id)}
        for metric, cursor in cursors.items():
            if cursor > votes:
                yield self._differs("cursor", "beyond the last vote", f"<= {votes}", str(cursor), metric)
            if cursor != written.get(metric, cursor):
                yield self._differs("cursor", "not what the steps say", str(written[metric]), str(cursor), metric)

    def _coins(self, evidence: Evidence) -> Iterator[Finding]:
        """Votes by arm and odds, as the evidence has counted them."""
        votes = self.store.votes_by_odds(self.definition.id)
        for arm in evidence.counted_arms:
            counted = SampleRatio()
            for (odds, drawn), number in votes.items():
                if 0.0 < odds[arm] < 1.0:
                    counted.add_counts(odds[arm], number, number if drawn == arm else 0)
            found = evidence.find("coins", str(arm))
            if (found.state() if found else SampleRatio().state()) != counted.state():
                observed = (found.n, found.observed) if found else (0, 0)
                expected = f"{counted.observed} of {counted.n}"
                yield self._differs("coins", self.definition.arms[arm], expected, "{1} of {0}".format(*observed))

    def _tally(self, evidence: Evidence) -> Iterator[Finding]:
        """Units that the objective has folded, by stage and arm."""
        objective = self.definition.metric(self.definition.objective)
        cursor = self.store.cursors(self.definition.id).get(objective.name, 0)
        complete = objective.source == "outcome"
        votes = self.store.votes_by_stage(self.definition.id, cursor, complete_only=complete)
        expected = {place: number for place, number in votes.items() if place[0] != WATCH}
        for place in sorted(expected.keys() | evidence.matured.keys()):
            if expected.get(place, 0) != evidence.matured[place]:
                text = f"folded units of {self.definition.arms[place[1]]} in {place[0]}"
                yield self._differs("tally", text, str(expected.get(place, 0)), str(evidence.matured[place]))

    def _differs(self, what: str, text: str, expected: str, found: str, metric: str = "") -> Finding:
        id = self.definition.id
        return Finding(what=what, text=text, experiment=id, metric=metric, expected=expected, found=found)


def _place(position: Position) -> str:
    return f"{position.segment}:{position.offset}"
