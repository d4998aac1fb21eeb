"""Finding votes by their times. Ordinals ascend with them, but for votes of erased units, whose times are coarse."""

from __future__ import annotations

from gateway.store.keeping import Keeping, VotePlace

_AT_ONCE = 200  # votes


def votes_before(store: Keeping, experiment: str, time: int) -> int:
    """The ordinal behind which votes are not older than a time; those of erased units may be on either side."""
    low, high = 0, store.vote_count(experiment)
    while low < high:
        middle = (low + high + 1) // 2
        place = _first_known(store, experiment, middle, high)
        if place is None or place.at >= time:
            high = middle - 1
        else:
            low = place.ordinal
    return low


def ordinal_of(store: Keeping, experiment: str, at: int, decision: int) -> int | None:
    """Which vote a decision of that time has; None if it has none."""
    after = votes_before(store, experiment, at)
    while places := store.vote_places(experiment, after, _AT_ONCE):
        for place in places:
            if place.decision == decision:
                return place.ordinal
            if place.decision and place.at > at:
                return None
        after = places[-1].ordinal
    return None


def _first_known(store: Keeping, experiment: str, first: int, last: int) -> VotePlace | None:
    """The first vote from one ordinal to another whose unit is not erased."""
    limit = 1  # mostly it is the first
    while first <= last:
        places = store.vote_places(experiment, first - 1, limit)
        for place in places:
            if place.decision:
                return place if place.ordinal <= last else None
        if not places:
            return None
        first, limit = places[-1].ordinal + 1, _AT_ONCE
    return None
