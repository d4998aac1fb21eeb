"""What is known of units, remembered: a bounded window on the store's table for those who come again and again.

Exact, because this process alone writes that table, and whoever changes a unit changes it here as well. After a failed
transaction the memory is ahead of the store and is thrown away with its engine.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.store.base import KnownUnit, Store, UnitKey

GENERATION = 50_000  # units; twice as many are remembered, and what one step brings


class Units:
    """Two generations: whoever comes again moves to the younger one; when that is full, the older one is forgotten."""

    def __init__(self, generation: int = GENERATION) -> None:
        self._generation = generation
        self._younger: dict[UnitKey, KnownUnit | None] = {}
        self._older: dict[UnitKey, KnownUnit | None] = {}

    def recall(self, store: Store, keys: Iterable[UnitKey]) -> dict[UnitKey, KnownUnit | None]:
        """A mapping that holds at least these units, None for strangers. What is changed in it must be saved."""
        if len(self._younger) >= self._generation:
            self._older, self._younger = self._younger, {}
        younger, older = self._younger, self._older
        away = dict.fromkeys(key for key in keys if key not in younger)
        for key in [key for key in away if key in older]:
            younger[key] = older.pop(key)
            del away[key]
        if away:
            wanted = list(away)
            younger.update(zip(wanted, store.known_units(wanted), strict=True))
        return younger

    def forget(self, keys: Iterable[UnitKey]) -> None:
        """They are strangers from now on, in the store, too."""
        for key in keys:
            self._younger.pop(key, None)
            self._older.pop(key, None)
