"""What still comes of units that were erased, out of spools that were read late or from clients who knew a token."""

from __future__ import annotations

from typing import Any

from gateway.events import Assignment, UnitOutcome
from gateway.evidence.ship import Facts
from gateway.store.base import Erasure, Store


def refuse_erased(store: Store, facts: Facts) -> None:
    """Take such facts out; inside the transaction that writes the rest.

    No vote is lost by that: a unit is erased when everything that it did before has been admitted, so whatever of it is
    as old and comes now is late.
    """
    erasures = [one for one in store.erasures() if one.through]
    if not erasures:
        return
    late = [fact for fact in facts.assignments if _is_erased(fact, erasures)]
    if late:
        store.add_erased([fact.decision for fact in late], max(one.until for one in erasures))
    kinds: tuple[list[Any], ...] = (
        facts.assignments,
        facts.completions,
        facts.shadows,
        facts.outcomes,
        facts.readings,
        facts.rejections,
    )
    erased = store.erased_among({fact.decision for kind in kinds for fact in kind})
    for kind in kinds:
        kind[:] = [fact for fact in kind if fact.decision not in erased]
    facts.unit_outcomes[:] = [fact for fact in facts.unit_outcomes if not _is_erased(fact, erasures)]


def _is_erased(fact: Assignment | UnitOutcome, erasures: list[Erasure]) -> bool:
    return any(
        fact.unit == one.unit and fact.at < one.through and one.endpoint in ("", fact.endpoint) for one in erasures
    )
