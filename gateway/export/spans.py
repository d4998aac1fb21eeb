"""Facts in the order of their times, with no index on times: in each spool, times ascend with the decisions.

So where a time begins in a spool is found by bisection, and one merge over the spools that lived at a time gives the
order over all of them, with a chunk of each in memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from gateway.events import decision_id, spool_of
from gateway.export.columns import Row
from gateway.export.source import OpenStore

T = TypeVar("T")

_ASSIGNMENTS = "decision, at FROM assignment WHERE decision >= ? AND decision < ? ORDER BY decision"
_BEYOND = (1 << 63) - 1  # all decisions


class Span(NamedTuple):
    """Decisions of one spool, from `begin` until before `end`; `since` is when the first of them was drawn."""

    since: int
    spool: int
    begin: int
    end: int


def spools(store: OpenStore, table: str = "assignment") -> Iterator[int]:
    """Every spool that has left an assignment, or of which there is something else; ascending."""
    spool = 0
    while True:
        row = _first(store, table, decision_id(spool, 0), _BEYOND)
        if row is None:
            return
        yield spool_of(row[0])
        spool = spool_of(row[0]) + 1


def spans(store: OpenStore, since: int, until: int) -> list[Span]:
    """Where in each spool the assignments lie that were drawn from `since` until before `until`; none are empty."""
    found = []
    for spool in spools(store):
        begin, end = first_since(store, spool, since), first_since(store, spool, until)
        if begin < end:
            found.append(Span(_first(store, "assignment", begin, end)[1], spool, begin, end))
    return sorted(found)


def spans_of(store: OpenStore, table: str, since: int, until: int | None) -> list[Span]:
    """The same for facts about assignments, which may not be there: `until` is None for no end."""
    found = []
    for spool in spools(store, table):
        begin = first_since(store, spool, since) if since > 0 else decision_id(spool, 0)
        end = decision_id(spool + 1, 0) if until is None else first_since(store, spool, until)
        first = _first(store, "assignment", begin, end) or _first(store, table, begin, end)
        if first is not None:
            found.append(Span(first[1], spool, begin, end))
    return sorted(found)


def merged(
    parts: Iterable[tuple[int, T]], rows_of: Callable[[T], Iterator[tuple[int, Row]]]
) -> Iterator[tuple[int, Row]]:
    """Rows with their times, in the order of these, over all parts; each part is its first time and what it is.

    Parts come in the order of their first times, and are opened when it is their turn.
    """
    waiting = iter(parts)
    following = next(waiting, None)
    heap: list[tuple[int, int, Row, Iterator[tuple[int, Row]]]] = []
    opened = 0
    while heap or following is not None:
        while following is not None and (not heap or following[0] <= heap[0][0]):
            rows = rows_of(following[1])
            first = next(rows, None)
            if first is not None:
                heapq.heappush(heap, (first[0], opened, first[1], rows))
                opened += 1
            following = next(waiting, None)
        if heap:
            at, number, row, rows = heap[0]
            yield at, row
            after = next(rows, None)
            if after is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (after[0], number, after[1], rows))


def first_since(store: OpenStore, spool: int, at: int) -> int:
    """A decision such that those before were drawn before a time, and those from it on then or later."""
    low, high = decision_id(spool, 0), decision_id(spool + 1, 0)
    last = store.row(f"SELECT {_ASSIGNMENTS} DESC LIMIT 1", (low, high))
    if last is None:
        return low
    beyond, high = high, last[0] + 1
    while low < high:
        middle = (low + high) // 2
        row = _first(store, "assignment", middle, beyond)
        if row is None or row[1] >= at:
            high = middle
        else:
            low = row[0] + 1
    return low


def _first(store: OpenStore, table: str, begin: int, end: int) -> Any:
    """Decision and time of the first row, or None."""
    return store.row(
        f"SELECT decision, at FROM {table} WHERE decision >= ? AND decision < ? ORDER BY decision LIMIT 1", (begin, end)
    )
