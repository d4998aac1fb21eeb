"""A mergeable sketch of positive values: integer counts on a logarithmic grid, quantiles within 1 %.

Bin i holds gamma^i <= y < gamma^(i+1) with gamma = 1.01/0.99; its representative 2 gamma^(i+1)/(gamma + 1) is
within 1 % of every member (the grid of DDSketch: Masson, Rim & Lee 2019, VLDB). Counts are integers in a fixed
range, so merging is exact, associative and commutative, and the size is bounded: 1,845 bins from 1e-6 to 1e10.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.stats.binomial import quantile_ranks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_GAMMA: Final = 1.01 / 0.99
_LOG_GAMMA: Final = math.log(_GAMMA)
_FIRST: Final = math.floor(math.log(1e-6) / _LOG_GAMMA)
_LAST: Final = math.floor(math.log(1e10) / _LOG_GAMMA)
_SIZE: Final = _LAST - _FIRST + 3
"""One bin for everything below 1e-6 (read as 0) and one for everything above (read as inf) at the ends."""


class LogHistogram:
    """Counts of values y >= 0; inf is a value (a time-out)."""

    __slots__ = ("_counts", "_n")

    def __init__(self) -> None:
        self._counts = np.zeros(_SIZE, dtype=np.int64)
        self._n = 0

    def add(self, y: ArrayLike) -> None:
        """Count values y in [0, inf]. Raises ValueError for NaN or y < 0, before anything changed."""
        values = np.atleast_1d(np.asarray(y, dtype=np.float64))
        if not (values >= 0.0).all():
            raise ValueError("y must be numbers that are not negative")
        with np.errstate(divide="ignore"):
            position = np.floor(np.log(values) / _LOG_GAMMA)
        index = np.clip(position - _FIRST + 1, 0, _SIZE - 1).astype(np.intp)
        self._counts += np.bincount(index, minlength=_SIZE)
        self._n += len(values)

    @property
    def n(self) -> int:
        """Values counted."""
        return self._n

    def value_at(self, rank: int) -> float:
        """The value of rank 1..n in ascending order, within 1 %; 0 below 1e-6, inf above 1e10.

        Raises ValueError for another rank.
        """
        if not 1 <= rank <= self._n:
            raise ValueError(f"rank must lie between 1 and {self._n}, not {rank!r}")
        index = int(np.searchsorted(np.cumsum(self._counts), rank))
        if index == 0:
            return 0.0
        if index == _SIZE - 1:
            return math.inf
        return 2.0 * math.exp((index - 1 + _FIRST + 1) * _LOG_GAMMA) / (_GAMMA + 1.0)

    def quantile(self, p: float) -> float:
        """The smallest value that at least a share p of the values do not exceed, within 1 %; nan when empty.

        Raises ValueError unless 0 < p < 1.
        """
        if not 0.0 < p < 1.0:
            raise ValueError(f"p must lie strictly between 0 and 1, not {p!r}")
        return self.value_at(max(math.ceil(self._n * p), 1)) if self._n else math.nan

    def quantile_interval(self, p: float, *, alpha: float, t_opt: float) -> tuple[float, float]:
        """Q1: bounds of the p-quantile at every n at once (`binomial.quantile_ranks`), widened by the 1 % of a bin.

        Valid for independent values of one distribution: for display, not for decisions.
        """
        lower, upper = quantile_ranks(self._n, p, alpha=alpha, t_opt=t_opt)
        low = self.value_at(lower) / 1.01 if lower >= 1 else 0.0
        return low, self.value_at(upper) / 0.99 if upper <= self._n else math.inf

    def merge(self, other: LogHistogram) -> LogHistogram:
        """The counts of both as a new sketch; associative and commutative, an empty one is neutral."""
        merged = LogHistogram()
        merged._counts = self._counts + other._counts
        merged._n = self._n + other._n
        return merged

    def state(self) -> dict[str, list[list[int]]]:
        """``{"counts": [[bin, count], ...]}`` of the bins in use; ints only."""
        used = np.flatnonzero(self._counts)
        return {"counts": [[int(i), int(self._counts[i])] for i in used]}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> LogHistogram:
        """Inverse of `state`. Raises ValueError for a bin or a count out of range."""
        sketch = cls()
        for index, count in state["counts"]:
            if not (0 <= index < _SIZE and count > 0):
                raise ValueError(f"bin {index!r} with count {count!r} is out of range")
            sketch._counts[index] += count
            sketch._n += int(count)
        return sketch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogHistogram) and bool((self._counts == other._counts).all())

    __hash__ = None  # type: ignore[assignment]
