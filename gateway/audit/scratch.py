"""A store that is thrown away: where votes are made once more."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.events import UnitOutcome
from gateway.store.base import Vote
from gateway.store.sqlite import SqliteStore


class Scratch(SqliteStore):
    """Knows units, which may be many, in a temporary file; hands over votes, and forgets everything else."""

    def __init__(self) -> None:
        super().__init__("")  # SQLite deletes such a file by itself
        self._votes: list[Vote] = []

    def take_votes(self) -> list[Vote]:
        """Those that were added since the last call."""
        votes, self._votes = self._votes, []
        return votes

    def add_votes(self, votes: Iterable[Vote]) -> None:
        self._votes += votes

    def add_revisits(self, rows: Iterable[tuple[str, int, int]]) -> None: ...
    def count(self, experiment: str, variant: str, name: str, more: int = 1) -> None: ...
    def unit_outcomes(self, before: int) -> list[UnitOutcome]:
        return []
