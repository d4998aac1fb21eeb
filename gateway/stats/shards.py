"""The mergeable form of a cell: one epoch, folded in parts by several workers (D1 "Mergeable form"; G14).

Inside an epoch everything that a stake depends on is frozen, so the order of its units no longer matters: the log
wealth of stake k grows by a *sum* of log factors. A shard keeps integers per (pi, z, y) while outcomes are 0 or 1,
and plain sums otherwise; merging adds them. Integers merge exactly, and a cell absorbs them in sorted order with one
rounding per sum: any sharding gives the same bits. With other outcomes it agrees within 1e-9 relative.

An epoch may be cut wherever the cut depends on no Z or Y inside it. The price of parts: the wealth is seen once, at
the end of the epoch, so a peak inside it goes unnoticed; this is conservative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gateway.stats.bands import BANDS, band_of
from gateway.stats.checks import checked_units
from gateway.stats.moments import Moments, Scores

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

_ARMS = ("n0", "n1", "sum0", "sum1", "dev0", "dev1", "square0", "square1")
_SUMS = ("residual", "sum_psi", "sum_h", "v")
_HEADS = len(_ARMS) + len(_SUMS)


class _Bet(Protocol):
    @property
    def weights(self) -> Floats: ...

    def wagers(self, scores: Scores) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Frozen:
    """What a cell knew after ``n`` units: the guesses that hold for the whole next epoch."""

    n: int
    offset: float
    m: float
    variance: float
    t: float
    mu0: float
    mu1: float


def freeze(known: Moments) -> Frozen:
    """The guesses of an epoch that starts now, by the formulas of `Moments`."""
    n = known.n
    m = (known.sum0 + known.sum1 + 0.5) / (n + 1.0)
    t = max(-1.0, min(1.0, known.sum_psi / known.sum_h)) if known.sum_h > 0.0 else 0.0
    return Frozen(
        n=n,
        offset=known.offset,
        m=m,
        variance=(0.25 + known.residual) / (n + 1.0),
        t=t,
        mu0=(known.sum0 + m) / (known.n0 + 1.0),
        mu1=(known.sum1 + m) / (known.n1 + 1.0),
    )


class EpochShard:
    """A part of one epoch of one cell. Make it with `ScoreCell.shard`, or from `Frozen` in another process."""

    __slots__ = ("_sums", "_tally", "bets", "frozen")

    def __init__(self, frozen: Frozen, bets: Mapping[str, _Bet]) -> None:
        self.frozen = frozen
        self.bets = dict(bets)
        self._tally: dict[tuple[float, int, int], int] = {}
        self._sums = np.zeros(_HEADS + 2 * len(BANDS) + sum(len(bet.weights) for bet in self.bets.values()))

    def add(self, z: ArrayLike, pi: ArrayLike, g: ArrayLike) -> None:
        """Fold n units in any order; shapes, ranges and errors as in `ScoreCell.fold`."""
        z_, pi_, g_ = checked_units(z, pi, g)
        binary = (g_ == 0.0) | (g_ == 1.0)
        units, counts = np.unique(np.stack([pi_[binary], z_[binary], g_[binary]]), axis=1, return_counts=True)
        for (share, arm, outcome), count in zip(units.T.tolist(), counts.tolist(), strict=True):
            key = share, int(arm), int(outcome)
            self._tally[key] = self._tally.get(key, 0) + count
        if not binary.all():
            rest = ~binary
            self._sums += _terms(self, z_[rest], pi_[rest], g_[rest]).sum(axis=1)

    @property
    def counts(self) -> dict[tuple[float, int, int], int]:
        """Units per (pi, z, y) among those with y in {0, 1}."""
        return dict(self._tally)

    def merge(self, other: EpochShard) -> EpochShard:
        """Both parts as a new shard; associative and commutative, exactly in the integers.

        Raises ValueError for parts of different epochs or bets.
        """
        if self.frozen != other.frozen or self.bets != other.bets:
            raise ValueError("shards must be of one epoch and the same bets")
        merged = EpochShard(self.frozen, self.bets)
        for part in (self, other):
            for key, count in part._tally.items():
                merged._tally[key] = merged._tally.get(key, 0) + count
        merged._sums = self._sums + other._sums
        return merged

    def state(self) -> dict[str, Any]:
        """Plain lists: ``tally`` of [pi, z, y, count], sorted, and ``sums``; exact round trip."""
        return {"tally": [[*key, self._tally[key]] for key in sorted(self._tally)], "sums": self._sums.tolist()}

    @classmethod
    def restore(cls, frozen: Frozen, bets: Mapping[str, _Bet], state: Mapping[str, Any]) -> EpochShard:
        """Inverse of `state`. Raises ValueError when the number of sums does not fit the bets."""
        shard = cls(frozen, bets)
        sums = np.array(state["sums"], dtype=np.float64)
        if sums.shape != shard._sums.shape:
            raise ValueError(f"the state holds {sums.size} sums, not {shard._sums.size}")
        shard._sums = sums
        shard._tally = {(float(pi), int(z), int(y)): int(count) for pi, z, y, count in state["tally"]}
        return shard

    def totals(self) -> Floats:
        """All sums of the shard, tallied units included, each rounded once."""
        if not self._tally:
            return self._sums
        keys = sorted(self._tally)
        pi, z, g = np.array(keys).T
        terms = _terms(self, z, pi, g) * np.array([self._tally[key] for key in keys], dtype=np.float64)
        return np.array([math.fsum([total, *row]) for total, row in zip(self._sums, terms.tolist(), strict=True)])


def absorb(known: Moments, shard: EpochShard) -> dict[str, Floats]:
    """Add a shard's sums to the moments and return each bet's K log factors. The next epoch starts behind it."""
    totals = shard.totals()
    for name, value in zip(_ARMS + _SUMS, totals.tolist(), strict=False):
        setattr(known, name, getattr(known, name) + (int(value) if name in ("n0", "n1") else value))
    at = _HEADS
    for bands in (known.below, known.above):
        bands[:] = [a + b for a, b in zip(bands, totals[at : at + len(BANDS)].tolist(), strict=True)]
        at += len(BANDS)
    new = freeze(known)
    known.m, known.variance, known.t = new.m, new.variance, new.t
    known.mu0, known.mu1, known.epoch_end = new.mu0, new.mu1, known.n
    steps = {}
    for name, bet in shard.bets.items():
        steps[name] = totals[at : at + len(bet.weights)]
        at += len(bet.weights)
    return steps


def _terms(shard: EpochShard, z: Floats, pi: Floats, g: Floats) -> Floats:
    """What each unit adds to each sum, in the order of `_ARMS`, `_SUMS`, two sets of bands, stakes. Shape (sums, n)."""
    at, q = shard.frozen, 1.0 - pi

    def all_of(value: float) -> Floats:
        return np.full(len(g), value)

    h, psi = pi * q, (z - pi) * (g - at.m)
    scores = Scores(psi, h, pi, all_of(at.m), all_of(at.variance), z, g, all_of(at.mu0), all_of(at.mu1))
    dev, rest, predicted = g - at.offset, 1.0 - z, h * at.t
    square = (psi - predicted) ** 2
    rows = [rest, z, rest * g, z * g, rest * dev, z * dev, rest * dev * dev, z * dev * dev]
    rows += [(g - at.m) ** 2, psi, h, square]
    below = band_of(np.maximum(q * at.m, pi * (1.0 - at.m)) + predicted)
    above = band_of(np.maximum(q * (1.0 - at.m), pi * at.m) - predicted)
    rows += [np.where(below == band, square, 0.0) for band in range(len(BANDS))]
    rows += [np.where(above == band, square, 0.0) for band in range(len(BANDS))]
    stakes = [np.log1p(bet.wagers(scores)) for bet in shard.bets.values()]
    return np.concatenate([np.stack(rows), *stakes])
