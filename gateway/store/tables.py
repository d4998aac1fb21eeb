"""Statements, whatever the engine: what a store's tables need of a connection, and where the dialects differ.

Statements are written once, in the SQL that both engines share, with `?` and `:name` for parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

Parameters = Sequence[Any] | Mapping[str, Any]


FINITE = "BETWEEN -1.7976931348623157e308 AND 1.7976931348623157e308"


class Tables(ABC):
    """One connection of a store. Every method raises StoreError where the engine fails."""

    node = 0  # who writes: what several nodes count is kept apart

    @abstractmethod
    def rows(self, sql: str, parameters: Parameters = ()) -> list[Any]: ...

    @abstractmethod
    def row(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first row, or None."""

    @abstractmethod
    def stream(self, sql: str, parameters: Parameters = ()) -> Iterator[Any]:
        """Rows read as they are asked for; inside a transaction only."""

    @abstractmethod
    def write(self, sql: str, parameters: Parameters = ()) -> int:
        """Returns the number of rows changed."""

    @abstractmethod
    def write_all(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Returns the number of rows changed in all."""

    # ------------------------------------------------------------------ dialect

    @abstractmethod
    def among(self, column: str, values: Sequence[Any]) -> tuple[str, Any]:
        """A condition with one `?` that holds where the column is one of the values; and its parameter."""

    def same_day(self, fact: str, assigned: str) -> str:
        """A further condition, " AND ...", for facts that are kept by the day of their assignment."""
        return ""

    def on_days(self, times: Collection[int]) -> str:
        """A further condition, " AND ...", for requests that were assigned at some of these times; () for any."""
        return ""

    @abstractmethod
    def object_of(self, name: str, value: str) -> str:
        """The aggregate that makes a JSON object, as text, of names and numbers to the last digit; what is no finite
        number becomes null, which JSON has for it."""

    @abstractmethod
    def sum_of(self, value: str, order: str) -> str:
        """The sum of numbers added up in an order: another order would be another last digit."""
