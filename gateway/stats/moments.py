"""What a cell knows before each unit's coin: the pooled mean, the variance and the effect so far.

The stakes of a bet may depend on everything folded before a unit and on nothing else. The running moments are
therefore frozen for an epoch of ``clip(n // 16, 1, 512)`` units (R5): epochs are cut by the count of folded
units, so the same log gives the same epochs however it is cut into calls.

Every sum grows by ``np.add.accumulate`` seeded with the carried value. Addition then runs strictly from left
to right, and a fold in one call equals a fold in a thousand, bit for bit; ``np.sum`` adds pairwise and would
not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gateway.stats.bands import BANDS, band_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gateway.stats.regression import Regression

    Floats = NDArray[np.float64]

EPOCH_SHARE = 16
MAX_EPOCH = 512


class Scores(NamedTuple):
    """What the bets need to know of n units; each field has shape (n,). mu0 and mu1 are past arm means."""

    psi: Floats
    h: Floats
    pi: Floats
    m: Floats
    variance: Floats
    z: Floats
    g: Floats
    mu0: Floats
    mu1: Floats


@dataclass(slots=True)
class Moments:
    """Running sums of one stream of units (z, pi, g), folded in log order.

    m = (S + 1/2)/(n + 1), pooled over both arms; the variance of g is (1/4 + sum (g_i - m_i)^2)/(n + 1)
    with m_i the frozen guess at unit i (R9); t = sum psi / sum h clipped to [-1, 1] is the effect so far,
    the prediction of D3; mu_a = (S_a + m)/(n_a + 1) is the mean of an arm, drawn to the pooled one while
    the arm is small. All are those of the last epoch start. ``below`` and ``above`` split v by how far psi
    could fall below and rise above its prediction (`bands`).
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
    below: list[float] = field(default_factory=lambda: [0.0] * len(BANDS))
    above: list[float] = field(default_factory=lambda: [0.0] * len(BANDS))
    epoch_end: int = 0
    m: float = 0.5
    variance: float = 0.25
    t: float = 0.0
    mu0: float = 0.5
    mu1: float = 0.5

    @property
    def n(self) -> int:
        return self.n0 + self.n1

    def advance(
        self, z: Floats, pi: Floats, g: Floats, x: Floats | None = None, regression: Regression | None = None
    ) -> Scores:
        """Fold n >= 1 checked units (float arrays of shape (n,), z in {0, 1}) and return their scores.

        With a ``regression`` and covariates ``x`` (n, p) the guess of each unit is m(x) instead of m.
        """
        count, ones = self.n, self.n1
        if count == 0:
            self.offset = float(g[0])
        starts, lengths = self._cut_epochs(len(g))
        arms = self._fold_arms(z, g)
        n1 = (ones + _running(0.0, z))[starts]

        m_epoch = np.append(self.m, (arms[0, starts] + arms[1, starts] + 0.5) / (count + starts + 1.0))
        mu0_epoch = np.append(self.mu0, (arms[0, starts] + m_epoch[1:]) / (count + starts - n1 + 1.0))
        mu1_epoch = np.append(self.mu1, (arms[1, starts] + m_epoch[1:]) / (n1 + 1.0))
        if regression is None or x is None:
            m = np.repeat(m_epoch, lengths)
        else:
            m = regression.advance(x, g, starts, lengths, m_epoch)
        residual = _running(self.residual, (g - m) ** 2)
        variance_epoch = np.append(self.variance, (0.25 + residual[starts]) / (count + starts + 1.0))

        h = pi * (1.0 - pi)
        psi = (z - pi) * (g - m)
        self._fold_interval(psi, h, pi, m, starts, lengths)
        self.residual, self.m, self.variance = float(residual[-1]), float(m_epoch[-1]), float(variance_epoch[-1])
        self.mu0, self.mu1 = float(mu0_epoch[-1]), float(mu1_epoch[-1])
        return Scores(
            psi,
            h,
            pi,
            m,
            np.repeat(variance_epoch, lengths),
            z,
            g,
            np.repeat(mu0_epoch, lengths),
            np.repeat(mu1_epoch, lengths),
        )

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
        if set(state) != {one.name for one in fields(cls)}:
            raise ValueError("the state does not have the fields of Moments")
        own: dict[str, Any] = {
            name: list(value) if isinstance(value, list | tuple) else value for name, value in state.items()
        }
        return cls(**own)

    def _cut_epochs(self, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Offsets in the batch at which epochs begin, and the units in each epoch, the open one first."""
        begin, end = self.n, self.n + count
        starts = []
        while self.epoch_end < end:
            starts.append(self.epoch_end - begin)
            self.epoch_end += epoch_length(self.epoch_end)
        cuts = np.array(starts, dtype=np.intp)
        return cuts, np.diff(cuts, prepend=0, append=count)

    def _fold_interval(
        self, psi: Floats, h: Floats, pi: Floats, m: Floats, starts: NDArray[np.intp], lengths: NDArray[np.intp]
    ) -> None:
        """The sums of D3: psi, h and the squared prediction errors, in all and per band of the range."""
        sum_psi = _running(self.sum_psi, psi)
        sum_h = _running(self.sum_h, h)
        t_epoch = np.append(self.t, _effect(sum_psi[starts], sum_h[starts]))
        predicted = h * np.repeat(t_epoch, lengths)
        square = (psi - predicted) ** 2
        q = 1.0 - pi
        # add.at adds one by one in order, like accumulate: any cut gives the same bits.
        for totals, reach in (
            (self.below, np.maximum(q * m, pi * (1.0 - m)) + predicted),
            (self.above, np.maximum(q * (1.0 - m), pi * m) - predicted),
        ):
            bands = np.array(totals)
            np.add.at(bands, band_of(reach), square)
            totals[:] = bands.tolist()
        self.sum_psi, self.sum_h, self.t = float(sum_psi[-1]), float(sum_h[-1]), float(t_epoch[-1])
        self.v = float(_running(self.v, square)[-1])

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


def epoch_length(n: int) -> int:
    """``clip(n // 16, 1, 512)``: units for which everything is frozen after n folded units (R5)."""
    return min(max(n // EPOCH_SHARE, 1), MAX_EPOCH)


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
