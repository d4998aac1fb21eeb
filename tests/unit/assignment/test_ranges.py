"""Shares move only the band that must move."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.assignment.hashing import bucket, salt_key
from gateway.assignment.ranges import joined, origin, owner, resize, whole, width
from gateway.plan import HASH_SPACE, Slot, shares

CHAMPION = "a"
UNITS = [b"user-%d" % number for number in range(20_000)]
KEY = salt_key("exp-1")
POINTS = [bucket(KEY, unit) for unit in UNITS]
ORIGINS = {name: origin("exp-1", name) for name in ("b", "c", "d")}
Slots = tuple[Slot, ...]


def split(**given: str) -> Slots:
    return after(whole(CHAMPION), **given)


def after(slots: Slots, **given: str) -> Slots:
    widths = {name: width(Decimal(share)) for name, share in given.items()}
    return resize(slots, CHAMPION, widths, ORIGINS)


def moved(before: Slots, now: Slots) -> set[tuple[str, str]]:
    pairs = ((owner(before, point), owner(now, point)) for point in POINTS)
    return {(old, new) for old, new in pairs if old != new}


GOLDEN = {
    ("b", "0.1"): [(0, "a"), (803294172987677544, "b"), (2647968580358632705, "a")],
    ("b", "0.5"): [(0, "a"), (803294172987677544, "b"), (10026666209842453352, "a")],
    ("c", "0.01"): [(0, "a"), (14694305005027298185, "c"), (14878772445764393701, "a")],
}


@pytest.mark.parametrize(("given", "slots"), GOLDEN.items())
def test_split_is_the_golden_one(given: tuple[str, str], slots: list[tuple[int, str]]) -> None:
    assert [(slot.start, slot.variant) for slot in split(**dict([given]))] == slots


@pytest.mark.parametrize("share", ["0", "0.001", "0.01", "0.1", "0.3", "0.5", "0.9", "1"])
def test_realised_split_is_within_binomial_bounds(share: str) -> None:
    slots = split(b=share)
    drawn = sum(owner(slots, point) == "b" for point in POINTS)
    p = float(share)
    assert abs(drawn - len(POINTS) * p) <= 5 * (len(POINTS) * p * (1 - p)) ** 0.5


@pytest.mark.parametrize("share", ["0.01", "0.1", "0.333333333333333333333", "0.5", "0.999999"])
def test_width_is_the_share_rounded_down(share: str) -> None:
    exact = Fraction(share) * HASH_SPACE
    assert width(Decimal(share)) == exact.numerator // exact.denominator
    assert shares(split(b=share))["b"] == width(Decimal(share))


@pytest.mark.parametrize("share", ["-0.01", "1.01"])
def test_a_share_outside_0_and_1_is_refused(share: str) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        width(Decimal(share))


def test_a_ramp_up_and_down_moves_only_the_band_and_back() -> None:
    ramp = ["0.01", "0.1", "0.5", "0.1", "0.01"]
    splits = [split(b=ramp[0])]
    for share in ramp[1:]:
        splits.append(after(splits[-1], b=share))
    assert moved(splits[0], splits[1]) == moved(splits[1], splits[2]) == {("a", "b")}
    assert moved(splits[2], splits[3]) == moved(splits[3], splits[4]) == {("b", "a")}
    assert splits[4] == splits[0]
    assert splits[3] == splits[1]


def test_a_share_of_all_leaves_the_champion_nothing() -> None:
    assert split(b="1") == whole("b")


def test_more_than_all_is_refused() -> None:
    with pytest.raises(ValueError, match="exceed the whole"):
        split(b="0.6", c="0.5")


def test_a_variant_that_is_not_named_loses_its_space_to_the_champion() -> None:
    slots = after(split(b="0.2", c="0.3"), c="0.3")
    assert moved(split(b="0.2", c="0.3"), slots) == {("b", "a")}
    assert shares(slots)["c"] == width(Decimal("0.3"))


def test_space_that_one_challenger_frees_can_be_taken_by_another_in_the_same_step() -> None:
    slots = after(split(b="0.7", c="0.3"), b="0.3", c="0.7")
    assert shares(slots)["b"] == width(Decimal("0.3"))
    assert shares(slots)["c"] == width(Decimal("0.7"))


def test_neighbours_of_one_variant_are_one_slot() -> None:
    slots = [Slot(start=start, variant=variant) for start, variant in enumerate("abbbaac")]
    assert joined(slots) == (slots[0], slots[1], slots[4], slots[6])
    assert joined(()) == ()


points = st.integers(0, HASH_SPACE - 1)
widths = st.integers(0, HASH_SPACE // 3)
names = st.sampled_from(["b", "c", "d"])
steps = st.lists(st.dictionaries(names, widths), min_size=1, max_size=6)
origins = st.fixed_dictionaries({"b": points, "c": points, "d": points})


def walk(steps: list[dict[str, int]], origins: dict[str, int]) -> list[Slots]:
    walked = [whole(CHAMPION)]
    for step in steps:
        walked.append(resize(walked[-1], CHAMPION, step, origins))
    return walked


@given(steps, origins)
def test_widths_are_exact_and_fill_the_space(steps: list[dict[str, int]], origins: dict[str, int]) -> None:
    for slots, step in zip(walk(steps, origins)[1:], steps, strict=True):
        held = shares(slots)
        assert sum(held.values()) == HASH_SPACE
        assert {name: held.get(name, 0) for name in step} == step
        assert held.keys() <= {CHAMPION, *step}
        starts = [slot.start for slot in slots]
        assert starts[0] == 0
        assert starts == sorted(set(starts))


@given(steps, origins)
def test_resizing_to_the_present_shares_changes_nothing(steps: list[dict[str, int]], origins: dict[str, int]) -> None:
    slots = walk(steps, origins)[-1]
    assert resize(slots, CHAMPION, steps[-1], origins) == slots


@given(steps, origins, names, widths, st.lists(points, max_size=50))
def test_growing_one_challenger_only_takes_from_the_champion(
    steps: list[dict[str, int]], origins: dict[str, int], name: str, more: int, probes: list[int]
) -> None:
    before = walk(steps, origins)[-1]
    present = steps[-1]
    now = resize(before, CHAMPION, present | {name: min(HASH_SPACE // 3, present.get(name, 0) + more)}, origins)
    edges = [slot.start for slot in (*before, *now)]
    for point in [*probes, *edges, *(edge - 1 for edge in edges if edge)]:
        old, new = owner(before, point), owner(now, point)
        assert old == new or (old, new) == (CHAMPION, name)


@given(steps, origins, names, st.integers(0, 100), st.lists(points, max_size=50))
def test_shrinking_one_challenger_only_gives_to_the_champion(
    steps: list[dict[str, int]], origins: dict[str, int], name: str, percent: int, probes: list[int]
) -> None:
    before = walk(steps, origins)[-1]
    less = steps[-1].get(name, 0) * percent // 100
    now = resize(before, CHAMPION, steps[-1] | {name: less}, origins)
    edges = [slot.start for slot in (*before, *now)]
    for point in [*probes, *edges, *(edge - 1 for edge in edges if edge)]:
        old, new = owner(before, point), owner(now, point)
        assert old == new or (old, new) == (name, CHAMPION)
