"""Where the hash of a unit is known to lie, and what its next coin is worth (rule R6). Pure.

A unit that was seen under a split has shown in which variant's part of the hash space it lies, and no more. Under
another split its hash is uniform over that part, so the probability of each variant is a ratio of widths: exact
integers. Whoever was seen under the same split before has no coin left (the ratio is 0 or 1), hence votes once for
each split; nothing has to remember stages. With one growing challenger this is clip((s - a)/(b - a), 0, 1) on the
interval [a, b); with several, origins that step over one another and shares that shrink it stays right.
"""

from __future__ import annotations

from itertools import pairwise

from gateway.plan import HASH_SPACE, Slot

Split = tuple[Slot, ...]
Seen = tuple[tuple[Split, str], ...]  # every split under which a unit was seen, with the variant that it got
_Spans = tuple[tuple[int, int], ...]  # [low, high) in ascending order


def odds(seen: Seen, split: Split, arms: tuple[str, ...]) -> tuple[float, ...]:
    """The probability of each arm under `split`, given where the unit was seen before; sums to at most 1.

    Raises ValueError where what was seen contradicts itself: no hash can have got those variants.
    """
    known: _Spans = ((0, HASH_SPACE),)
    for earlier, variant in seen:
        known = _meet(known, _part(earlier, variant))
    whole = _width(known)
    if not whole:
        raise ValueError(f"no hash was given {[variant for _, variant in seen]} under those splits")
    return tuple(_width(_meet(known, _part(split, arm))) / whole for arm in arms)


def _part(split: Split, variant: str) -> _Spans:
    ends = [*(slot.start for slot in split), HASH_SPACE]
    return tuple(
        (low, high) for (low, high), slot in zip(pairwise(ends), split, strict=True) if slot.variant == variant
    )


def _meet(some: _Spans, others: _Spans) -> _Spans:
    """The intersection of two ascending lists of spans."""
    return tuple(
        (max(low, floor), min(high, ceiling))
        for low, high in some
        for floor, ceiling in others
        if max(low, floor) < min(high, ceiling)
    )


def _width(spans: _Spans) -> int:
    return sum(high - low for low, high in spans)
