"""What the goals of `bench_statistics` share: a measured goal, streams of units, and first passages of real cells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.stats import AnyBet, ScoreCell

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

Rng = np.random.Generator


@dataclass(slots=True)
class Measured:
    """One number against its limit. ``value`` must be at most ``limit``, or at least where ``at_least``."""

    goal: str
    what: str
    value: float
    limit: float
    runs: int
    at_least: bool = False
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return bool(self.value >= self.limit if self.at_least else self.value <= self.limit)

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "value": float(self.value), "pass": self.passed}


def slack(alpha: float, runs: int) -> float:
    """alpha + 2.33 standard errors: what a true rate of alpha exceeds in one of a hundred measurements."""
    return alpha + 2.33 * math.sqrt(alpha * (1.0 - alpha) / runs)


def coins(rng: Rng, pi: ArrayLike, n: int) -> tuple[Bools, Floats]:
    """z and pi of n units; ``pi`` one number or one per unit."""
    shares = np.array(np.broadcast_to(np.asarray(pi, dtype=np.float64), n))
    return rng.random(n) < shares, shares


def draw(rng: Rng, rate: ArrayLike) -> Floats:
    """0/1 outcomes with one rate per unit."""
    rates = np.asarray(rate, dtype=np.float64)
    return (rng.random(rates.shape) < rates).astype(np.float64)


def first_passage(bets: Mapping[str, AnyBet], threshold: float, z: Bools, pi: Floats, g: Floats) -> int | None:
    """Units until some bet of a real cell reaches ``threshold``, exact to the unit; None if never.

    Folds growing blocks; inside the block in which the peak reached the threshold, restores the state before it and
    bisects, since the peak only grows.
    """

    def reached(cell: ScoreCell) -> bool:
        return any(cell.peak_log_e(name) >= threshold for name in bets)

    cell, begin = ScoreCell(bets), 0
    while begin < len(g):
        end = min(begin + max(64, begin // 4), len(g))
        before = cell.state()
        cell.fold(z[begin:end], pi[begin:end], g[begin:end])
        if reached(cell):
            break
        begin = end
    else:
        return None
    low, high = begin, end
    while high - low > 1:
        middle = (low + high) // 2
        again = ScoreCell.restore(bets, before)
        again.fold(z[begin:middle], pi[begin:middle], g[begin:middle])
        low, high = (low, middle) if reached(again) else (middle, high)
    return high


def mean_capped(units: list[int | None], cap: int) -> float:
    """Mean of passages, those that never came counted as ``cap``."""
    return float(np.mean([cap if n is None else n for n in units]))
