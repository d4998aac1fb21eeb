"""What a returning unit's coin is worth, against an enumeration of the whole (small) hash space."""

from __future__ import annotations

from collections import Counter, defaultdict
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.assignment.ranges import owner, resize, whole
from gateway.evidence.known import Seen, Split, odds
from gateway.plan import HASH_SPACE, Slot

CELLS = 64  # the hash space in equal cells, that splits never cut
CELL = HASH_SPACE // CELLS
ARMS = ("a", "b", "c", "d")


def slots(*parts: tuple[int, str]) -> Split:
    return tuple(Slot(start=cell * CELL, variant=variant) for cell, variant in parts)


def variant_of(split: Split, cell: int) -> str:
    return owner(split, cell * CELL)


@st.composite
def histories(draw: st.DrawFn) -> list[Split]:
    """Splits as releases make them: shares that grow, shrink and go to nothing, origins that step over one another."""
    origins = {name: draw(st.integers(0, CELLS - 1)) * CELL for name in ARMS[1:]}
    splits = [whole("a")]
    for _ in range(draw(st.integers(1, 5))):
        cuts = sorted(draw(st.lists(st.integers(0, CELLS), min_size=3, max_size=3)))
        shares = [cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1]]
        widths = {name: share * CELL for name, share in zip(ARMS[1:], shares, strict=True)}
        splits.append(resize(splits[-1], "a", widths, origins))
    return splits


@given(histories(), st.data())
def test_odds_are_the_shares_among_all_hashes_that_were_seen_so(splits: list[Split], data: st.DataObject) -> None:
    hidden = data.draw(st.integers(0, CELLS - 1))
    under = data.draw(st.lists(st.sampled_from(splits), max_size=5))
    seen: Seen = tuple((split, variant_of(split, hidden)) for split in under)
    split = data.draw(st.sampled_from(splits))
    alike = [cell for cell in range(CELLS) if all(variant_of(one, cell) == variant for one, variant in seen)]
    counted = Counter(variant_of(split, cell) for cell in alike)
    found = odds(seen, split, ARMS)
    assert found == pytest.approx([counted[arm] / len(alike) for arm in ARMS], abs=1e-15)
    assert sum(found) == pytest.approx(1.0, abs=1e-15)
    assert found[ARMS.index(variant_of(split, hidden))] > 0.0
    if split in under:
        assert sorted(found) == [0.0, 0.0, 0.0, 1.0], "under the same split there is no coin left"


@given(histories(), st.lists(st.booleans(), min_size=6, max_size=6))
def test_votes_of_returning_units_are_fair_coins(splits: list[Split], comes: list[bool]) -> None:
    """T22: of all units that vote with the same odds, each arm has exactly the share that the odds say."""
    votes: dict[tuple[int, tuple[float, ...]], Counter[str]] = defaultdict(Counter)
    known: dict[int, Seen] = dict.fromkeys(range(CELLS), ())
    for stage, split in enumerate(split for split, visits in zip(splits, comes, strict=False) if visits):
        for cell in range(CELLS):
            chances = odds(known[cell], split, ARMS)
            if max(chances) < 1.0:
                votes[stage, chances][variant_of(split, cell)] += 1
                known[cell] = (*known[cell], (split, variant_of(split, cell)))
    for (_, chances), got in votes.items():
        assert [got[arm] / got.total() for arm in ARMS] == pytest.approx(chances, abs=1e-15)


@given(st.integers(0, CELLS - 1), st.lists(st.integers(1, CELLS - 1), min_size=1, max_size=6, unique=True))
def test_one_growing_challenger_is_the_rule_on_an_interval(hidden: int, shares: list[int]) -> None:
    """R6: [low, high) is what is known; pi' = clip((s - low)/(high - low), 0, 1)."""
    low, high = 0, CELLS
    seen: Seen = ()
    for share in sorted(shares):
        split = slots((0, "b"), (share, "a"))
        expected = min(max(Fraction(share - low, high - low), Fraction(0)), Fraction(1))
        assert odds(seen, split, ("a", "b"))[1] == pytest.approx(float(expected), abs=1e-15)
        seen = (*seen, (split, variant_of(split, hidden)))
        low, high = (low, min(high, share)) if hidden < share else (max(low, share), high)


def test_odds_are_exact_however_thin_the_slice() -> None:
    thin = (Slot(start=0, variant="b"), Slot(start=1, variant="a"))
    wider = (Slot(start=0, variant="b"), Slot(start=3, variant="a"))
    assert odds((), thin, ("a", "b")) == (1.0, 2.0**-64)
    assert odds(((wider, "b"),), thin, ("a", "b")) == (2 / 3, 1 / 3)


def test_a_variant_that_is_no_arm_keeps_its_part() -> None:
    assert odds((), slots((0, "a"), (CELLS // 2, "stranger")), ("a", "b")) == (0.5, 0.0)


def test_what_contradicts_itself_has_no_odds() -> None:
    one, other = slots((0, "a"), (10, "b")), slots((0, "b"), (10, "a"))
    with pytest.raises(ValueError, match="no hash"):
        odds(((one, "a"), (other, "a")), one, ("a", "b"))
