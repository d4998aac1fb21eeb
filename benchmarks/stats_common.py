"""What the goals of `bench_statistics` share: a measured goal, streams of units, and first passages of real cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gateway.stats import AnyBet, ScoreCell

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

Rng = np.random.Generator
Subject = TypeVar("Subject")
State = TypeVar("State")


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


def first_reach(
    fold: Callable[[Subject, slice], None],
    save: Callable[[Subject], State],
    load: Callable[[State], Subject],
    reached: Callable[[Subject], bool],
    subject: Subject,
    n: int,
) -> int | None:
    """Units until a real object has reached something that it never loses again, exact to the unit; None if never.

    Folds growing blocks; inside the block in which it happened, restores the state before it and bisects. Every
    half that did not reach it is kept, so that the search costs no more than the block once more.
    """
    begin = 0
    while begin < n:
        end = min(begin + max(64, begin // 4), n)
        before = save(subject)
        fold(subject, slice(begin, end))
        if reached(subject):
            break
        begin = end
    else:
        return None
    low, high = begin, end
    while high - low > 1:
        middle = (low + high) // 2
        again = load(before)
        fold(again, slice(low, middle))
        if reached(again):
            high = middle
        else:
            low, before = middle, save(again)
    return high


def first_passage(
    bets: Mapping[str, AnyBet], threshold: float, z: Bools, pi: Floats, g: Floats, x: Floats | None = None
) -> int | None:
    """Units until some bet of a real cell reaches ``threshold``, exact to the unit; None if never."""
    return first_reach(
        fold=lambda cell, cut: cell.fold(z[cut], pi[cut], g[cut], None if x is None else x[cut]),
        save=ScoreCell.state,
        load=lambda state: ScoreCell.restore(bets, state),
        reached=lambda cell: any(cell.peak_log_e(name) >= threshold for name in bets),
        subject=ScoreCell(bets, covariates=0 if x is None else x.shape[1]),
        n=len(g),
    )


def capped(units: list[int | None], cap: int) -> Floats:
    """Passages as numbers, those that never came counted as ``cap``."""
    return np.array([cap if n is None else n for n in units], dtype=np.float64)


def mean_ratio(values: Floats, others: Floats | float) -> tuple[float, float]:
    """mean(values) / mean(others), and its standard error; ``others`` from the same runs, or a constant."""
    ratio = float(np.mean(values) / np.mean(others))
    error = float(np.std(values - ratio * others) / math.sqrt(len(values)) / np.mean(others))
    return ratio, error
