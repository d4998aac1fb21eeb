"""What was known of a unit before the oldest assignment of it that is left. Pure."""

from __future__ import annotations

from gateway.events import Assignment
from gateway.evidence.splits import SEPARATOR, seen_too
from gateway.store.base import KnownUnit, Vote

LONG_AGO = -(1 << 62)  # no window is open


def seed(known: KnownUnit, split: int, fact: Assignment, vote: Vote | None) -> KnownUnit | None:
    """From what is known in the end, the split that drew the assignment, and the vote that it has, if it has one.

    None if the assignment showed nothing of the unit that was not known already.
    """
    if known.known is None:
        return None
    seen = known.known.split(SEPARATOR) if known.known else []
    entry = seen_too("", split, fact.variant)
    if entry not in seen:
        return None
    place = seen.index(entry)
    if vote is None:
        at = known.at if known.at <= fact.at else LONG_AGO
        return KnownUnit(known.decision, at, SEPARATOR.join(seen[: place + 1]))
    return KnownUnit(0, LONG_AGO if vote.complete else fact.at, SEPARATOR.join(seen[:place]))
