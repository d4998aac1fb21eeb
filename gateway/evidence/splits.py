"""The splits under which units were seen, as the plans that published them say; with names short enough for a unit.

What is known of a unit is kept as text, "3:a|7:b": under the split of plan 3 it got a, under that of plan 7 it got b.
"""

from __future__ import annotations

from gateway.events import Assignment
from gateway.evidence.known import Seen, Split, odds
from gateway.store.base import Store

SEPARATOR = "|"
_MOST = 100_000  # odds remembered: as many as units with a past of their own could ask for in a step


class Splits:
    """Reads plans from the store, as facts name them, and remembers the odds that follow."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: dict[tuple[str, int], int] = {}
        self._splits: dict[tuple[str, int], Split] = {}
        self._odds: dict[tuple[str, str, int, tuple[str, ...]], tuple[float, ...]] = {}

    def name(self, fact: Assignment) -> int:
        """The name of the split that drew a fact: the first revision of the run of plans that share it.

        0 for a plan that was published without its split, by an earlier version of this program, or that the store
        does not know: that may change, so it is asked again.
        """
        key = fact.endpoint, fact.revision
        if key not in self._names:
            if not self._split(*key):
                return 0
            self._names[key] = self._first_of_run(*key)
        return self._names[key]

    def odds(self, endpoint: str, known: str, name: int, arms: tuple[str, ...]) -> tuple[float, ...]:
        """The probability of each arm for a unit of which so much is known, under the split of that name."""
        key = endpoint, known, name, arms
        if key not in self._odds:
            if len(self._odds) >= _MOST:
                self._odds.clear()
            self._odds[key] = odds(self._seen(endpoint, known), self._split(endpoint, name), arms)
        return self._odds[key]

    def _first_of_run(self, endpoint: str, revision: int) -> int:
        split = self._split(endpoint, revision)
        while revision > 1 and self._split(endpoint, revision - 1) == split:
            revision -= 1
            if (known := self._names.get((endpoint, revision))) is not None:
                return known
        return revision

    def _split(self, endpoint: str, revision: int) -> Split:
        key = endpoint, revision
        if key not in self._splits:
            split = self._store.plan_slots(revision, endpoint)
            if not split:
                return ()
            self._splits[key] = split
        return self._splits[key]

    def _seen(self, endpoint: str, known: str) -> Seen:
        parts = (part.partition(":") for part in known.split(SEPARATOR) if part)
        return tuple((self._split(endpoint, int(name)), variant) for name, _, variant in parts)


def seen_too(known: str, name: int, variant: str) -> str:
    """What is known of a unit after it was seen once more."""
    return f"{known}{SEPARATOR if known else ''}{name}:{variant}"
