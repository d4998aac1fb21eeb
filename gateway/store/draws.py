"""What assignments have in common, written once and named by a number: their draw."""

from __future__ import annotations

import json
from operator import attrgetter
from typing import Any

from gateway.events import Assignment
from gateway.store.tables import Tables

_MOST = 10_000  # draws remembered
_COLUMNS = ("revision", "endpoint", "experiment", "stage", "variant", "pi", "flags", "segments")
_draw_of = attrgetter(*_COLUMNS)
# A draw that is there already is touched, for an insert that does nothing returns nothing.
_WRITE = (
    f"INSERT INTO draw ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
    f" ON CONFLICT ({', '.join(_COLUMNS)}) DO UPDATE SET flags = excluded.flags RETURNING id"
)


class Draws:
    """The table `draw`, remembered. Numbers learned in a transaction are believed once it has committed."""

    def __init__(self, connection: Tables) -> None:
        self._connection = connection
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._fresh: list[tuple[Any, ...]] = []

    def number(self, fact: Assignment) -> int:
        """The number of a fact's draw, which is written down if it is new."""
        draw = _draw_of(fact)
        number = self._numbers.get(draw)
        return self._written(draw) if number is None else number

    def rolled_back(self) -> None:
        for draw in self._fresh:
            self._numbers.pop(draw, None)
        self._fresh.clear()

    def committed(self) -> None:
        self._fresh.clear()

    def _written(self, draw: tuple[Any, ...]) -> int:
        if len(self._numbers) >= _MOST:
            self._numbers.clear()
        *rest, segments = draw
        number: int = self._connection.row(_WRITE, (*rest, json.dumps(segments)))[0]
        self._numbers[draw] = number
        self._fresh.append(draw)
        return number
