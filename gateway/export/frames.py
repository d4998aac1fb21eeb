"""Rows as pandas frames: UTC timestamps, categories for names, a column for each segment.

Rows become typed arrays a chunk at a time, so that what is in memory is the frame and not its objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from gateway.export.columns import Column, Kind, Row
from gateway.export.writers import MissingExtra

SEGMENT = "segment_"  # before the name, in a column's name
_CHUNK = 20_000  # rows held as objects
_NO_TIME = np.iinfo(np.int64).min  # NaT


def frame(columns: Sequence[Column], rows: Iterable[Row]) -> Any:
    """A pandas.DataFrame. Raises MissingExtra without pandas."""
    pandas = needed_pandas()
    makers = [(column, _MAKERS[column.kind]()) for column in columns]
    waiting = iter(rows)
    while chunk := list(islice(waiting, _CHUNK)):
        for (_, maker), values in zip(makers, zip(*chunk, strict=True), strict=True):
            maker.add(values)
    found: dict[str, Any] = {}
    for column, maker in makers:
        if column.name == "segments":
            found |= {SEGMENT + name: values for name, values in maker.exploded(pandas).items()}
        else:
            found[column.name] = maker.made(pandas)
    return pandas.DataFrame(found)


def needed_pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise MissingExtra("frames need pandas: pip install 'ab-gateway[notebook]'") from error
    return pandas


class _Numbers:
    """Integers or flags; nullable only where something is missing."""

    def __init__(self, dtype: str, nullable: str) -> None:
        self._dtype, self._nullable = dtype, nullable
        self._values: list[Any] = []
        self._missing: list[Any] = []

    def add(self, values: tuple[Any, ...]) -> None:
        missing = np.fromiter((value is None for value in values), bool, len(values))
        self._values.append(np.array([value or 0 for value in values], dtype=self._dtype))
        self._missing.append(missing)

    def made(self, pandas: Any) -> Any:
        values, missing = _joined(self._values, self._dtype), _joined(self._missing, "bool")
        if not missing.any():
            return values
        array = pandas.array(values, dtype=self._nullable)
        array[missing] = pandas.NA
        return array


class _Doubles:
    def __init__(self) -> None:
        self._values: list[Any] = []

    def add(self, values: tuple[Any, ...]) -> None:
        self._values.append(np.array(values, dtype=np.float64))

    def made(self, pandas: Any) -> Any:
        return _joined(self._values, "float64")


class _Times:
    def __init__(self) -> None:
        self._values: list[Any] = []

    def add(self, values: tuple[Any, ...]) -> None:
        self._values.append(np.array([_NO_TIME if value is None else value for value in values], dtype=np.int64))

    def made(self, pandas: Any) -> Any:
        return pandas.Series(_joined(self._values, "int64").view("datetime64[us]")).dt.tz_localize("UTC")


class _Coded:
    """Few values, each kept once."""

    def __init__(self, read: Callable[[Any], Any] = lambda value: value) -> None:
        self._read = read
        self._codes: list[Any] = []
        self._known: dict[Any, int] = {}

    def add(self, values: tuple[Any, ...]) -> None:
        known = self._known
        codes = (-1 if value is None else known.setdefault(value, len(known)) for value in values)
        self._codes.append(np.fromiter(codes, np.int32, len(values)))

    def made(self, pandas: Any) -> Any:
        return pandas.Categorical.from_codes(_joined(self._codes, "int32"), categories=list(self._known))

    def objects(self, pandas: Any) -> Any:
        """As what was read, one object for all places that have it."""
        values = np.full(len(self._known) + 1, None, dtype=object)  # the last of them is where nothing is
        for place, value in enumerate(self._known):
            values[place] = self._read(value)
        return pandas.Series(values[_joined(self._codes, "int32")], dtype=object)


class _Json(_Coded):
    """JSON, read once for each text."""

    def __init__(self) -> None:
        super().__init__(json.loads)

    def made(self, pandas: Any) -> Any:
        return self.objects(pandas)

    def exploded(self, pandas: Any) -> dict[str, Any]:
        """A categorical for each name that any of the objects has."""
        codes = _joined(self._codes, "int32")
        objects = [json.loads(text) for text in self._known]
        found = {}
        for name in dict.fromkeys(name for one in objects for name in one):
            categories = list(dict.fromkeys(one[name] for one in objects if name in one))
            of = np.array([categories.index(one[name]) if name in one else -1 for one in objects] + [-1], np.int32)
            found[name] = pandas.Categorical.from_codes(of[codes], categories=categories)
        return found


class _Texts:
    def __init__(self, read: Callable[[Any], Any] = lambda value: value) -> None:
        self._read = read
        self._values: list[Any] = []

    def add(self, values: tuple[Any, ...]) -> None:
        self._values += [None if value is None else self._read(value) for value in values]

    def made(self, pandas: Any) -> Any:
        return pandas.array(self._values, dtype="string")


def _joined(arrays: list[Any], dtype: str) -> Any:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


_MAKERS: dict[Kind, Callable[[], Any]] = {
    "integer": lambda: _Numbers("int64", "Int64"),
    "number": _Doubles,
    "flag": lambda: _Numbers("bool", "boolean"),
    "time": _Times,
    "word": _Coded,
    "text": _Texts,
    "hash": lambda: _Texts(bytes.hex),
    "json": _Json,
}
