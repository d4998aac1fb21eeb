"""Who owns which part of the hash space, and how shares change without moving anybody needlessly.

Every challenger has an origin, a point fixed by its experiment and name, and takes its space clockwise from
there: growing takes champion space behind the far end, shrinking gives the far end back. So a ramp 10 → 20 → 10 %
moves exactly the band in between, and back. Where another challenger is in the way, it is stepped over; when that
one leaves, nobody moves up: whoever has a variant keeps it unless the shares themselves demand otherwise.
All arithmetic is in integers; shares are exact decimals.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction

from gateway.assignment.hashing import bucket, salt_key
from gateway.plan import HASH_SPACE, Slot


def origin(salt: str, variant: str) -> int:
    """The fixed point from which a challenger's range grows."""
    return bucket(salt_key(salt), b"slot-origin\0" + variant.encode())


def width(share: Decimal) -> int:
    """The number of hash values that make up a share of [0, 1], rounded down (error below 2**-64)."""
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, not {share}")
    return int(Fraction(share) * HASH_SPACE)


def whole(champion: str) -> tuple[Slot, ...]:
    """The split before anything was released: everything is the champion's."""
    return (Slot(start=0, variant=champion),)


def owner(slots: tuple[Slot, ...], point: int) -> str:
    """The variant whose range holds a hash value."""
    return slots[bisect_right(slots, point, key=lambda slot: slot.start) - 1].variant


def joined(slots: Iterable[Slot]) -> tuple[Slot, ...]:
    """The same split with neighbours of one variant as one slot."""
    found: list[Slot] = []
    for slot in slots:
        if not found or found[-1].variant != slot.variant:
            found.append(slot)
    return tuple(found)


def resize(
    slots: tuple[Slot, ...], champion: str, widths: Mapping[str, int], origins: Mapping[str, int]
) -> tuple[Slot, ...]:
    """Give each challenger exactly its width, moving as few units as possible.

    Variants that hold space but are not named in `widths` lose it to the champion. Shrinking comes first, so
    that space freed by one challenger can be taken by another in the same step.
    Raises ValueError if the widths exceed the hash space.
    """
    if sum(widths.values()) > HASH_SPACE:
        raise ValueError("the challengers' shares exceed the whole")
    pieces = [
        piece if piece[2] in widths or piece[2] == champion else (piece[0], piece[1], champion)
        for piece in _pieces(slots)
    ]
    by_change = sorted(widths, key=lambda variant: (widths[variant] - _held(pieces, variant), variant))
    for variant in by_change:
        pieces = _fit(pieces, champion, variant, widths[variant], origins[variant])
    return joined(Slot(start=start, variant=variant) for start, _, variant in sorted(pieces))


_Piece = tuple[int, int, str]  # start, end (exclusive), variant


def _pieces(slots: tuple[Slot, ...]) -> list[_Piece]:
    ends = [slot.start for slot in slots[1:]] + [HASH_SPACE]
    return [(slot.start, end, slot.variant) for slot, end in zip(slots, ends, strict=True)]


def _held(pieces: list[_Piece], variant: str) -> int:
    return sum(end - start for start, end, owner in pieces if owner == variant)


def _fit(pieces: list[_Piece], champion: str, variant: str, target: int, start: int) -> list[_Piece]:
    around = _clockwise(pieces, start)
    more = target - _held(pieces, variant)
    if more <= 0:
        return _hand_over(around, variant, target, variant, champion)
    last = max((index for index, piece in enumerate(around) if piece[2] == variant), default=-1)
    return _hand_over(around[last + 1 :] + around[: last + 1], champion, more, variant, champion)


def _hand_over(around: list[_Piece], source: str, amount: int, near: str, far: str) -> list[_Piece]:
    """Walk over the pieces of `source`: the first `amount` goes to `near`, the rest to `far`."""
    result: list[_Piece] = []
    for low, high, held_by in around:
        if held_by != source:
            result.append((low, high, held_by))
            continue
        cut = low + min(amount, high - low)
        amount -= cut - low
        result += [(low, cut, near), (cut, high, far)]
    return [piece for piece in result if piece[0] < piece[1]]


def _clockwise(pieces: list[_Piece], start: int) -> list[_Piece]:
    split = [
        part
        for low, high, held_by in pieces
        for part in ((low, min(high, start), held_by), (max(low, start), high, held_by))
        if part[0] < part[1]
    ]
    return sorted(split, key=lambda piece: (piece[0] - start) % HASH_SPACE)
