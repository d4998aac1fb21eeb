"""What a cell knows before each unit's coin: the pooled mean, the variance and the effect so far.

The stakes of a bet may depend on everything folded before a unit and on nothing else. The running moments are
therefore frozen for an epoch of ``clip(n // 16, 1, 512)`` units (R5): epochs are cut by the count of folded
units, so the same log gives the same epochs however it is cut into calls.

Every sum grows by ``np.add.accumulate`` seeded with the carried value. Addition then runs strictly from left
to right, and a fold in one call equals a fold in a thousand, bit for bit; ``np.sum`` adds pairwise and would
not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

EPOCH_SHARE = 16
MAX_EPOCH = 512


class Scores(NamedTuple):
    """What the bets need to know of n units; each field has shape (n,)."""

    psi: Floats
    h: Floats
    pi: Floats
    m: Floats
    variance: Floats


@dataclass(slots=True)
class Moments:
    """Running sums of one stream of units (z, pi, g), folded in log order.

    m = (S + 1/2)/(n + 1), pooled over both arms; the variance of g is (1/4 + sum (g_i - m_i)^2)/(n + 1)
    with m_i the frozen guess at unit i (R9); t = sum psi / sum h clipped to [-1, 1] is the effect so far,
    the prediction of D3. All three are those of the last epoch start.
    """

    n0: int = 0
    n1: int = 0
    sum0: float = 0.0
    sum1: float = 0.0
    offset: float = 0.0
    """g of the first unit: deviations from it keep variances exact when g sits on a large constant."""
    dev0: float = 0.0
    dev1: float = 0.0
    square0: float = 0.0
    square1: float = 0.0
    residual: float = 0.0
    sum_psi: float = 0.0
    sum_h: float = 0.0
    v: float = 0.0
    epoch_end: int = 0
    m: float = 0.5
    variance: float = 0.25
    t: float = 0.0

    @property
    def n(self) -> int:
        return self.n0 + self.n1

    def advance(self, z: Floats, pi: Floats, g: Floats) -> Scores:
        """Fold n >= 1 checked units (float arrays of shape (n,), z in {0, 1}) and return their scores."""
        count = self.n
        if count == 0:
            self.offset = float(g[0])
        starts, lengths = self._cut_epochs(len(g))
        arms = self._fold_arms(z, g)
        at = count + starts + 1.0

        m_epoch = np.append(self.m, (arms[0, starts] + arms[1, starts] + 0.5) / at)
        m = np.repeat(m_epoch, lengths)
        residual = _running(self.residual, (g - m) ** 2)
        variance_epoch = np.append(self.variance, (0.25 + residual[starts]) / at)

        h = pi * (1.0 - pi)
        psi = (z - pi) * (g - m)
        sum_psi = _running(self.sum_psi, psi)
        sum_h = _running(self.sum_h, h)
        t_epoch = np.append(self.t, _effect(sum_psi[starts], sum_h[starts]))
        v = _running(self.v, (psi - h * np.repeat(t_epoch, lengths)) ** 2)

        self.residual, self.sum_psi = float(residual[-1]), float(sum_psi[-1])
        self.sum_h, self.v = float(sum_h[-1]), float(v[-1])
        self.m, self.variance, self.t = float(m_epoch[-1]), float(variance_epoch[-1]), float(t_epoch[-1])
        return Scores(psi, h, pi, m, np.repeat(variance_epoch, lengths))

    def arm_mean(self, arm: int) -> float:
        """Mean of g in arm 0 (champion) or 1 (challenger); nan while the arm is empty."""
        count, total = (self.n1, self.sum1) if arm else (self.n0, self.sum0)
        return total / count if count else float("nan")

    def arm_variance(self, arm: int) -> float:
        """Sample variance of g in an arm (n - 1 in the denominator); nan below two units."""
        count, dev, square = (self.n1, self.dev1, self.square1) if arm else (self.n0, self.dev0, self.square0)
        if count < 2:
            return float("nan")
        return max(square - dev * (dev / count), 0.0) / (count - 1)

    def state(self) -> dict[str, float]:
        """The fields as plain ints and floats."""
        return asdict(self)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Moments:
        """Inverse of `state`. Raises ValueError when a field is missing or unknown."""
        if set(state) != {field.name for field in fields(cls)}:
            raise ValueError("the state does not have the fields of Moments")
        return cls(**state)

    def _cut_epochs(self, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Offsets in the batch at which epochs begin, and the units in each epoch, the open one first."""
        begin, end = self.n, self.n + count
        starts = []
        while self.epoch_end < end:
            starts.append(self.epoch_end - begin)
            self.epoch_end += min(max(self.epoch_end // EPOCH_SHARE, 1), MAX_EPOCH)
        cuts = np.array(starts, dtype=np.intp)
        return cuts, np.diff(cuts, prepend=0, append=count)

    def _fold_arms(self, z: Floats, g: Floats) -> Floats:
        """Per-arm sums for display; the running sums of g per arm come back, shape (2, n + 1)."""
        rest = 1.0 - z
        dev = g - self.offset
        square = dev * dev
        steps = np.stack([rest * g, z * g, rest * dev, z * dev, rest * square, z * square])
        seeds = np.array([self.sum0, self.sum1, self.dev0, self.dev1, self.square0, self.square1])
        path = np.add.accumulate(np.column_stack([seeds, steps]), axis=1)
        self.sum0, self.sum1, self.dev0, self.dev1, self.square0, self.square1 = path[:, -1].tolist()
        ones = int(np.count_nonzero(z))
        self.n0 += len(z) - ones
        self.n1 += ones
        return path[:2]


def _running(seed: float, steps: Floats) -> Floats:
    """``seed, seed + x1, (seed + x1) + x2, ...``: shape (n + 1,), added strictly in order."""
    path = np.empty(len(steps) + 1)
    path[0] = seed
    path[1:] = steps
    return np.add.accumulate(path, out=path)


def _effect(sum_psi: Floats, sum_h: Floats) -> Floats:
    """``sum_psi/sum_h`` clipped to [-1, 1], 0 where nothing is known; never overflows."""
    bounded = np.clip(sum_psi, -sum_h, sum_h)
    return np.asarray(bounded / np.where(sum_h > 0.0, sum_h, 1.0), dtype=np.float64)
