"""Spool to store, second half: write the facts of a step, and count those that will never reach a verdict.

A repeated outcome is a duplicate, or a conflict if its value differs; the first one stays. An outcome whose window
has closed is late. All are counted under the variant that was assigned, so that a bias between variants shows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from gateway.events import Completion, Fact, Outcome, Rejection, Shadow, UnitOutcome
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import Definition
from gateway.evidence.erased import refuse_erased
from gateway.evidence.ship import Facts
from gateway.store.base import Exposure, Lag, Store


def record(store: Store, step: int, facts: Facts, evidence: Mapping[str, Evidence], before: int) -> None:
    """Write facts inside the caller's transaction.

    What is older than `before` comes from a spool that had been given up, and others did not wait for it: such facts
    are late whatever their window, so that what a vote counts never depends on when its facts were shipped.
    """
    refuse_erased(store, facts)
    late = facts.late(before)
    store.add_assignments(step, facts.assignments)
    store.add_completions(step, facts.completions)
    if facts.shadows:
        store.add_shadows(step, facts.shadows)
    # A late assignment is kept with the others, for it shows a coin; that it was late is kept, too.
    if set_aside := [*(fact for fact in facts.assignments if fact.at < before), *late]:
        store.add_late(set_aside)
    ours = _not_for_clients(evidence) if facts.outcomes or facts.unit_outcomes else set()
    refused = [fact for fact in facts.posted if (fact.experiment, fact.metric) in ours]
    # Workers accept no NaN; one that does all the same must not stop the shipping of everybody's facts.
    refused += [fact for fact in facts.posted_or_read if math.isnan(fact.value)]
    unwanted = {id(fact) for fact in refused}
    store.add_unit_outcomes([fact for fact in facts.unit_outcomes if id(fact) not in unwanted])
    # Accepted first, kept first: the order is that of the times, over all streams.
    arrived = sorted([*facts.outcomes, *facts.readings], key=lambda fact: fact.at)
    outcomes = [fact for fact in arrived if id(fact) not in unwanted]
    repeated = store.add_outcomes(step, outcomes) if outcomes else []
    tally = _Tally(store, [*outcomes, *facts.rejections, *refused, *late])
    tally.count("rejected", [*facts.rejections, *refused])
    tally.count("late", [fact for fact in late if isinstance(fact, Outcome | UnitOutcome)])
    tally.repeated(repeated)
    again = {id(fact) for fact, _ in repeated}
    tally.punctual([fact for fact in outcomes if id(fact) not in again], evidence)
    tally.write()


def note_repeated(store: Store, outcomes: list[Outcome], repeated: list[tuple[Outcome, float]]) -> None:
    """Count those of a batch that had come before."""
    if repeated:
        tally = _Tally(store, list(outcomes))
        tally.repeated(repeated)
        tally.write()


class _Tally:
    """Facts that nothing is folded from, by experiment, variant and name; and how long outcomes took."""

    def __init__(self, store: Store, about: Sequence[Fact]) -> None:
        self._store = store
        known = [fact for fact in about if isinstance(fact, _OF_A_DECISION)]
        times = {0 if isinstance(fact, Rejection) else fact.assigned_at for fact in known}
        # An outcome can overtake its assignment (another worker, another spool): then no variant is known.
        decisions = {fact.decision for fact in known}
        self._exposures = store.exposures(decisions, times if all(times) else ()) if decisions else {}
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._lags: Counter[Lag] = Counter()

    def count(self, name: str, facts: Iterable[Fact]) -> None:
        for fact in facts:
            exposure = self._exposure(fact)
            experiment = exposure.experiment if exposure else getattr(fact, "experiment", "")
            self._counts[experiment, exposure.variant if exposure else "", name] += 1

    def repeated(self, facts: Iterable[tuple[Outcome, float]]) -> None:
        for fact, kept in facts:
            self.count("duplicate" if kept == fact.value else "conflict", [fact])

    def punctual(self, outcomes: list[Outcome], evidence: Mapping[str, Evidence]) -> None:
        """New outcomes: how long they took, and which of them are late."""
        windows = {key: _windows(one.definition) for key, one in evidence.items()}
        for fact in outcomes:
            exposure = self._exposure(fact)
            assigned_at = exposure.at if exposure else fact.assigned_at
            window = windows.get(fact.experiment, {}).get(fact.metric)
            if window is None or not assigned_at:
                continue
            variant = exposure.variant if exposure else ""
            self._lags[Lag(fact.experiment, variant, fact.metric, lag_bucket(fact.at - assigned_at))] += 1
            if exposure and fact.at >= exposure.at + window:
                self.count("late", [fact])

    def write(self) -> None:
        for key in sorted(self._counts):
            self._store.count(*key, self._counts[key])
        if self._lags:
            self._store.count_lags(self._lags)

    def _exposure(self, fact: Fact) -> Exposure | None:
        return self._exposures.get(fact.decision) if isinstance(fact, _OF_A_DECISION) else None


_OF_A_DECISION = (Outcome, Rejection, Completion, Shadow)


def lag_bucket(lag_us: int) -> int:
    """The bucket of a lag: of 2^(bucket-1) to 2^bucket milliseconds."""
    return min(max(0, lag_us // 1000).bit_length(), 63)


def _not_for_clients(evidence: Mapping[str, Evidence]) -> set[tuple[str, str]]:
    """(experiment, metric) that the gateway itself reads. A worker knows them of the experiments in its plan alone."""
    definitions = (one.definition for one in evidence.values())
    return {(one.id, metric.name) for one in definitions for metric in one.metrics if metric.read}


def _windows(definition: Definition) -> dict[str, int]:
    return {metric.name: metric.within_us for metric in definition.metrics if metric.source == "outcome"}
