"""What a cell knows before each unit's coin: the pooled mean, the variance and the effect so far.

The stakes of a bet may depend on everything folded before a unit and on nothing else. The running moments are
therefore frozen for an epoch of ``clip(n // 16, 1, 512)`` units (R5): epochs are cut by the count of folded
units, so the same log gives the same epochs however it is cut into calls.

Every sum grows by ``np.add.accumulate`` seeded with the carried value. Addition then runs strictly from left
to right, and a fold in one call equals a fold in a thousand, bit for bit; ``np.sum`` adds pairwise and would
not.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from gateway.stats.bands import BANDS, band_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
        if self.n == 0:
            self.offset = float(g[0])
        epochs = self._cut_epochs(len(g))
        at = epochs.starts + self.n  # units folded before each epoch
        sum0, sum1, n1 = self._fold_arms(z, g)[:, epochs.starts]

        m_new = (sum0 + sum1 + 0.5) / (at + 1.0)
        mu0, self.mu0 = epochs.spread(self.mu0, (sum0 + m_new) / (at - n1 + 1.0))
        mu1, self.mu1 = epochs.spread(self.mu1, (sum1 + m_new) / (n1 + 1.0))
        if regression is None or x is None:
            m, self.m = epochs.spread(self.m, m_new)
        else:
            pooled = np.concatenate([[self.m], m_new])
            m, self.m = regression.advance(x, g, epochs.starts, epochs.lengths, pooled), float(pooled[-1])

        h = pi * (1.0 - pi)
        psi = (z - pi) * (g - m)
        residual, sum_psi, sum_h = _paths((self.residual, self.sum_psi, self.sum_h), ((g - m) ** 2, psi, h))
        variance, self.variance = epochs.spread(self.variance, (0.25 + residual[epochs.starts]) / (at + 1.0))
        t, self.t = epochs.spread(self.t, _effect(sum_psi[epochs.starts], sum_h[epochs.starts]))
        self.residual, self.sum_psi, self.sum_h = float(residual[-1]), float(sum_psi[-1]), float(sum_h[-1])
        self._fold_errors(psi, h * t, pi, m)
        return Scores(psi, h, pi, m, variance, z, g, mu0, mu1)

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

    def state(self) -> dict[str, Any]:
        """The fields as plain ints, floats and lists."""
        own = ((one, getattr(self, one)) for one in _FIELDS)
        return {name: list(value) if isinstance(value, list) else value for name, value in own}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Moments:
        """Inverse of `state`. Raises ValueError when a field is missing or unknown."""
        if set(state) != set(_FIELDS):
            raise ValueError("the state does not have the fields of Moments")
        own: dict[str, Any] = {
            name: list(value) if isinstance(value, list | tuple) else value for name, value in state.items()
        }
        return cls(**own)

    def _cut_epochs(self, count: int) -> _Epochs:
        begin, end = self.n, self.n + count
        cuts = [0]
        while self.epoch_end < end:
            cuts.append(self.epoch_end - begin)
            self.epoch_end += epoch_length(self.epoch_end)
        edges = np.array([*cuts, count], dtype=np.intp)
        return _Epochs(edges[1:-1], edges[1:] - edges[:-1])

    def _fold_errors(self, psi: Floats, predicted: Floats, pi: Floats, m: Floats) -> None:
        """The squared prediction errors of D3, in all and per band of the range."""
        square = (psi - predicted) ** 2
        q = 1.0 - pi
        rest = 1.0 - m
        # add.at adds one by one in order, like accumulate: any cut gives the same bits.
        for totals, reach in (
            (self.below, np.maximum(q * m, pi * rest) + predicted),
            (self.above, np.maximum(q * rest, pi * m) - predicted),
        ):
            bands = np.array(totals)
            np.add.at(bands, band_of(reach), square)
            totals[:] = bands.tolist()
        self.v = float(_paths((self.v,), (square,))[0, -1])

    def _fold_arms(self, z: Floats, g: Floats) -> Floats:
        """Per-arm sums for display. Running sums of g per arm and of z come back, shape (3, n + 1)."""
        rest = 1.0 - z
        dev = g - self.offset
        square = dev * dev
        path = _paths(
            (self.sum0, self.sum1, self.n1, self.dev0, self.dev1, self.square0, self.square1),
            (rest * g, z * g, z, rest * dev, z * dev, rest * square, z * square),
        )
        self.sum0, self.sum1, ones, self.dev0, self.dev1, self.square0, self.square1 = path[:, -1].tolist()
        self.n0 += len(z) - (int(ones) - self.n1)
        self.n1 = int(ones)
        return path[:3]


_FIELDS: Final = tuple(one.name for one in fields(Moments))


class _Epochs(NamedTuple):
    """Offsets in a batch at which epochs begin, and the units in each epoch, the open one first."""

    starts: NDArray[np.intp]
    lengths: NDArray[np.intp]

    def spread(self, held: float, new: Floats) -> tuple[Floats, float]:
        """What each unit of the batch goes by, ``held`` until the first epoch starts, and what the last one does."""
        if not len(new):
            return np.full(self.lengths[0], held), held
        return np.repeat(np.concatenate([[held], new]), self.lengths), float(new[-1])


def epoch_length(n: int) -> int:
    """``clip(n // 16, 1, 512)``: units for which everything is frozen after n folded units (R5)."""
    return min(max(n // EPOCH_SHARE, 1), MAX_EPOCH)


def _paths(seeds: Sequence[float], steps: Sequence[Floats]) -> Floats:
    """``seed, seed + x1, (seed + x1) + x2, ...`` per row, added strictly in order. Shape (rows, n + 1)."""
    path = np.empty((len(seeds), len(steps[0]) + 1))
    path[:, 0] = seeds
    for row, step in zip(path, steps, strict=True):
        row[1:] = step
    return np.add.accumulate(path, axis=1, out=path)


def _effect(sum_psi: Floats, sum_h: Floats) -> Floats:
    """``sum_psi/sum_h`` clipped to [-1, 1], 0 where nothing is known; never overflows."""
    bounded = np.clip(sum_psi, -sum_h, sum_h)
    return np.asarray(bounded / np.where(sum_h > 0.0, sum_h, 1.0), dtype=np.float64)
