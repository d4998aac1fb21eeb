"""Spool to store, second half: write the facts of a step, and count those that will never reach a verdict.

A repeated outcome is a duplicate, or a conflict if its value differs; the first one stays. An outcome whose window
has closed is late. All are counted under the variant that was assigned, so that a bias between variants shows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from gateway.events import Outcome, Rejection
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import Definition
from gateway.evidence.ship import Facts
from gateway.store.base import Exposure, Store


def record(store: Store, step: int, facts: Facts, evidence: Mapping[str, Evidence]) -> None:
    """Write facts inside the caller's transaction."""
    store.add_assignments(step, facts.assignments)
    store.add_completions(step, facts.completions)
    if facts.shadows:
        store.add_shadows(step, facts.shadows)
    # Accepted first, kept first: the order is that of the times, over all streams.
    arrived = sorted([*facts.outcomes, *facts.readings], key=lambda fact: fact.at)
    ours = _not_for_clients(evidence) if facts.outcomes else ()
    refused = {id(fact) for fact in facts.outcomes if ours and (fact.experiment, fact.metric) in ours}
    # Workers accept no NaN; one that does all the same must not stop the shipping of everybody's facts.
    refused.update(id(fact) for fact in arrived if math.isnan(fact.value))
    outcomes = [fact for fact in arrived if id(fact) not in refused]
    rejections: list[Outcome | Rejection] = [*facts.rejections, *(fact for fact in arrived if id(fact) in refused)]
    if outcomes or rejections:
        repeated = store.add_outcomes(step, outcomes)
        exposures = store.exposures({o.decision for o in outcomes} | {r.decision for r in rejections})
        tally: Counter[tuple[str, str, str]] = Counter()
        for fact, name in _odd(outcomes, repeated, rejections, exposures, evidence):
            # An outcome can overtake its assignment (another worker, another spool): then no variant is known.
            exposure = exposures.get(fact.decision)
            tally[fact.experiment, exposure.variant if exposure else "", name] += 1
        for key in sorted(tally):
            store.count(*key, tally[key])


def _not_for_clients(evidence: Mapping[str, Evidence]) -> set[tuple[str, str]]:
    """(experiment, metric) that the gateway itself reads. A worker knows them of the experiments in its plan alone."""
    definitions = (one.definition for one in evidence.values())
    return {(one.id, metric.name) for one in definitions for metric in one.metrics if metric.read}


def _odd(
    outcomes: list[Outcome],
    repeated: list[tuple[Outcome, float]],
    rejections: list[Outcome | Rejection],
    exposures: Mapping[int, Exposure],
    evidence: Mapping[str, Evidence],
) -> Iterator[tuple[Outcome | Rejection, str]]:
    """Facts that nothing is folded from, each with the name it is counted under."""
    for rejection in rejections:
        yield rejection, "rejected"
    for fact, kept in repeated:
        yield fact, "duplicate" if kept == fact.value else "conflict"
    again = {id(fact) for fact, _ in repeated}
    windows = {key: _windows(one.definition) for key, one in evidence.items()}
    for fact in outcomes:
        exposure = exposures.get(fact.decision)
        if exposure is None or id(fact) in again:
            continue
        window = windows.get(exposure.experiment, {}).get(fact.metric)
        if window is not None and fact.at >= exposure.at + window:
            yield fact, "late"


def _windows(definition: Definition) -> dict[str, int]:
    return {metric.name: metric.within_us for metric in definition.metrics if metric.source == "outcome"}
