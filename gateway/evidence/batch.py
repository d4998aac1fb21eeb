"""Votes as columns: what is folded at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.stats.regression import MAX_VALUE
from gateway.store.base import Measured, Scored

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """n votes in the order of their coins. Arms are numbered, 0 is the champion; odds have shape (n, arms)."""

    at: Ints
    stages: NDArray[np.str_]
    arms: Ints
    odds: Floats
    segments: NDArray[np.object_]  # JSON texts: they repeat, so they are parsed once each
    x: Floats | None = None  # covariates, shape (n, p)

    @classmethod
    def of(cls, rows: Sequence[Measured] | Sequence[Scored], covariates: int) -> Batch:
        _, at, stages, arms, odds, segments, x, *_ = zip(*rows, strict=True)
        return cls(
            at=np.array(at, dtype=np.int64),
            stages=np.array(stages, dtype=np.str_),
            arms=np.array(arms, dtype=np.int64),
            odds=np.array([_numbers(text) for text in odds], dtype=np.float64),
            segments=np.array(segments, dtype=np.object_),
            x=np.array([_covariates(text, covariates) for text in x], dtype=np.float64) if covariates else None,
        )

    def __len__(self) -> int:
        return len(self.at)

    def where(self, which: Mask | slice) -> Batch:
        return replace(
            self,
            at=self.at[which],
            stages=self.stages[which],
            arms=self.arms[which],
            odds=self.odds[which],
            segments=self.segments[which],
            x=None if self.x is None else self.x[which],
        )

    def pair(self, arm: int) -> tuple[Mask, Floats]:
        """The units of one challenger and the champion, and their propensity among the two; shape (n,).

        Conditional on being one of the two, a unit's coin is still fresh: that is all that the tests need.
        """
        both = self.odds[:, 0] + self.odds[:, arm]
        pi = np.divide(self.odds[:, arm], both, out=np.zeros(len(self)), where=both > 0.0)
        return ((self.arms == 0) | (self.arms == arm)) & (pi > 0.0) & (pi < 1.0), pi

    def holders(self, names: Sequence[str]) -> dict[str, Mask]:
        """The units of each segment, "name=value", in ascending order."""
        if not names:
            return {}
        texts = self.segments.tolist()
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        holding: dict[str, Mask] = {}  # which texts hold a segment
        for text, number in numbers.items():
            for name, value in zip(names, json.loads(text), strict=False):
                holding.setdefault(f"{name}={value}", np.zeros(len(numbers), dtype=np.bool_))[number] = True
        codes = np.array([numbers[text] for text in texts])
        return {segment: texts_of[codes] for segment, texts_of in sorted(holding.items())}


class Units:
    """Units on their way into a cell: either coins with scores, or paired differences."""

    __slots__ = ("_columns",)

    def __init__(self, *columns: Any) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns[0])

    def into(self, part: Any) -> None:
        part.fold(*self._columns)

    def where(self, mask: Mask) -> Units:
        return Units(*(column[mask] for column in self._columns))

    def unadjusted(self) -> Units:
        """Without covariates: the small cells have none."""
        return Units(*self._columns[:3])


def coins(arm: int, batch: Batch, g: Floats, pi: Floats, x: Floats | None = None) -> Units:
    z = batch.arms == arm
    return Units(z, pi, g) if x is None else Units(z, pi, g, x)


def column(values: Iterable[float | None]) -> Floats:
    """Numbers, None as NaN."""
    return np.array(list(values), dtype=np.float64)


@lru_cache(maxsize=4096)
def _numbers(text: str) -> tuple[float, ...]:
    return tuple(json.loads(text))


def _covariates(text: str, count: int) -> list[float]:
    """As many as were declared; zeros where a worker knew others, or none."""
    numbers: list[float] = json.loads(text)
    usable = len(numbers) == count and all(abs(number) <= MAX_VALUE for number in numbers)
    return numbers if usable else [0.0] * count
