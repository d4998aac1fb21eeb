"""Facts in the order of their times, without an index on times."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.events import Assignment, decision_id
from gateway.export.columns import Row
from gateway.export.spans import first_since, merged, spans, spools
from gateway.store.sqlite import SqliteStore

Times = dict[int, list[tuple[int, int]]]  # by spool: (sequence, time), both ascending

some_times = st.dictionaries(
    st.integers(1, 5000),
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=12),
    max_size=6,
).map(
    lambda steps: {
        spool: [(sum(n for n, _ in of[: i + 1]), sum(t for _, t in of[: i + 1])) for i in range(len(of))]
        for spool, of in steps.items()
    }
)


def stored(times: Times) -> SqliteStore:
    store = SqliteStore(":memory:")
    store.add_assignments(
        1,
        [
            Assignment(decision_id(spool, sequence), at, "rank", "exp", "s1", "a", 1.0, 0, b"u" * 16, (), 1)
            for spool, of in times.items()
            for sequence, at in of
        ],
    )
    return store


@given(some_times, st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_spans_hold_exactly_the_decisions_of_their_times(times: Times, since: int, until: int) -> None:
    store = stored(times)
    try:
        found = spans(store, since, until)
        wanted = {
            decision_id(spool, sequence): at
            for spool, of in times.items()
            for sequence, at in of
            if since <= at < until
        }
        assert list(spools(store)) == sorted(times)
        inside = {d for d in wanted if any(span.begin <= d < span.end for span in found)}
        everything = [decision_id(spool, sequence) for spool, of in times.items() for sequence, _ in of]
        assert inside == {d for d in everything if any(span.begin <= d < span.end for span in found)} == set(wanted)
        assert [span.since for span in found] == sorted(
            min(at for d, at in wanted.items() if d >> 40 == span.spool) for span in found
        )
    finally:
        store.close()


def test_a_time_after_the_last_decision_is_behind_it() -> None:
    store = stored({3: [(1, 10), (2, 20)]})
    assert first_since(store, 3, 21) == decision_id(3, 3)
    assert first_since(store, 3, 0) <= decision_id(3, 1)
    assert first_since(store, 4, 0) == decision_id(4, 0)  # of a spool that left nothing
    store.close()


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_merged_by_time_and_opened_in_their_turn(seed: int) -> None:
    dice = random.Random(seed)
    begins = sorted(dice.randrange(100) for _ in range(20))
    parts = [(begin, [begin + step for step in range(0, dice.randrange(1, 40), 3)]) for begin in begins]
    open_now: set[int] = set()
    most = 0

    def rows(part: list[int]) -> Iterator[tuple[int, Row]]:
        nonlocal most
        open_now.add(id(part))
        most = max(most, len(open_now))
        for at in part:
            yield at, (at,)
        open_now.discard(id(part))

    found = list(merged(parts, rows))
    assert [at for at, _ in found] == sorted(at for _, part in parts for at in part)
    alive = max(sum(part[0] <= at <= part[-1] for _, part in parts) for at in range(140))
    assert most <= alive + 1  # the one whose end is found out when the next is asked for
