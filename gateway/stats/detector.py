"""G1: has something become worse *since when it does not matter*? E-detectors for the time after a promotion.

With factors e_t >= 0 whose conditional mean is at most 1 while nothing is wrong,

    Shiryaev-Roberts  M_t = e_t (1 + M_{t-1}),        CUSUM  M_t = e_t max(1, M_{t-1}),        M_0 = 0,

sum the evidence over all possible change points, or take the best. M_t - t is a supermartingale, so an alarm at
M_t >= c comes after c units or more on average if nothing changes (Shin, Ramdas & Rinaldo 2023, "E-detectors",
theorem 2.4). The stakes are mixed *after* the recursion: detectors with weights that add up to 1 sum to a detector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.stats.bets import MAX_LOSS
from gateway.stats.checks import checked_units
from gateway.stats.moments import Moments
from gateway.stats.wealth import log_mixture

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gateway.stats.score_process import AnyBet

    Floats = NDArray[np.float64]

_RISES: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 9.0)
_BLOCK: Final = 4096


class EDetector:
    """The two recursions for K stakes, in log space. The threshold is ``log(c)``, c the average run length in units.

    log M_t = L_t + log sum_{s<t} exp(-L_s) (SR) and L_t - min_{s<t} L_s (CUSUM) with L the running sum of log factors:
    both are left-to-right accumulations, so any cut of the stream gives the same bits.
    Raises ValueError unless ``weights`` are positive and sum to 1.
    """

    __slots__ = ("_level", "_lowest", "_sum", "_weights", "n", "peak_log_cusum", "peak_log_sr")

    def __init__(self, weights: ArrayLike) -> None:
        self._weights = np.asarray(weights, dtype=np.float64)
        if not ((self._weights > 0.0).all() and abs(math.fsum(self._weights) - 1.0) < 1e-9):
            raise ValueError("weights must be positive and sum to 1")
        self.n = 0
        self.peak_log_sr = self.peak_log_cusum = -math.inf
        self._level = np.zeros(len(self._weights))
        self._sum = np.full(len(self._weights), -np.inf)
        self._lowest = np.full(len(self._weights), np.inf)

    def advance(self, gains: Floats) -> None:
        """Fold n units: each stake's factor less 1, shape (K, n), above -1."""
        for begin in range(0, gains.shape[1], _BLOCK):
            self._advance(np.log1p(gains[:, begin : begin + _BLOCK].copy()))

    @property
    def log_sr(self) -> float:
        """Current log of the mixed Shiryaev-Roberts statistic; -inf before the first unit."""
        return self._mixed(self._level + self._sum)

    @property
    def log_cusum(self) -> float:
        """Current log of the mixed CUSUM statistic; -inf before the first unit."""
        return self._mixed(self._level - self._lowest)

    def state(self) -> dict[str, Any]:
        """Plain lists and finite floats (None before the first unit); exact round trip."""
        if not self.n:
            return {"n": 0}
        arrays = {"level": self._level, "sum": self._sum, "lowest": self._lowest}
        peaks = {"peak_log_sr": self.peak_log_sr, "peak_log_cusum": self.peak_log_cusum}
        return {"n": self.n, **peaks, **{name: array.tolist() for name, array in arrays.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a `state`. Raises ValueError for another number of stakes."""
        if not state["n"]:
            return
        for name in ("level", "sum", "lowest"):
            array = np.array(state[name], dtype=np.float64)
            if array.shape != self._weights.shape:
                raise ValueError(f"the state holds {array.size} stakes, not {len(self._weights)}")
            setattr(self, f"_{name}", array)
        self.n = int(state["n"])
        self.peak_log_sr, self.peak_log_cusum = float(state["peak_log_sr"]), float(state["peak_log_cusum"])

    def _advance(self, steps: Floats) -> None:
        level = np.add.accumulate(np.concatenate([self._level[:, None], steps], axis=1), axis=1)
        before, after = level[:, :-1], level[:, 1:]
        sums = np.logaddexp.accumulate(np.concatenate([self._sum[:, None], -before], axis=1), axis=1)[:, 1:]
        lowest = np.minimum.accumulate(np.concatenate([self._lowest[:, None], before], axis=1), axis=1)[:, 1:]
        self.peak_log_sr = max(self.peak_log_sr, float(log_mixture(self._weights, after + sums).max()))
        self.peak_log_cusum = max(self.peak_log_cusum, float(log_mixture(self._weights, after - lowest).max()))
        self._level, self._sum, self._lowest = after[:, -1].copy(), sums[:, -1].copy(), lowest[:, -1].copy()
        self.n += steps.shape[1]

    def _mixed(self, log_m: Floats) -> float:
        return float(log_mixture(self._weights, log_m[:, None])[0]) if self.n else -math.inf


class HoldbackDetector:
    """A detector on a holdback: a few per cent of units still get the former champion, by a fresh logged coin.

    ``bet`` is usually `bets.harm` or `bets.harm_beyond`. Comparing with a holdback is blind to seasons, which move both
    arms. After an alarm start a new one.
    """

    __slots__ = ("_bet", "_moments", "detector")

    def __init__(self, bet: AnyBet) -> None:
        self._bet = bet
        self._moments = Moments()
        self.detector = EDetector(bet.weights)

    def fold(self, z: ArrayLike, pi: ArrayLike, g: ArrayLike) -> None:
        """Fold units; arguments and errors as in `ScoreCell.fold` (z = 1: the promoted variant)."""
        z_, pi_, g_ = checked_units(z, pi, g)
        for begin in range(0, len(g_), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            self.detector.advance(self._bet.wagers(self._moments.advance(z_[block], pi_[block], g_[block])))

    def state(self) -> dict[str, Any]:
        """Plain values; exact round trip."""
        described = self._bet.describe()
        return {"bet": described, "moments": self._moments.state(), "detector": self.detector.state()}

    @classmethod
    def restore(cls, bet: AnyBet, state: Mapping[str, Any]) -> HoldbackDetector:
        """Inverse of `state`. Raises ValueError for a state of another bet."""
        if state["bet"] != bet.describe():
            raise ValueError(f"the state was folded under another bet than {bet}")
        new = cls(bet)
        new._moments = Moments.restore(state["moments"])
        new.detector.load(state["detector"])
        return new


class LevelDetector:
    """A detector without a holdback: has the mean of x in [0, 1] (x = 1: an error) risen above ``baseline``?

    ``baseline`` is an upper confidence bound from the experiment: valid only as far as that bound is, and it takes a
    season for a change. The factor is 1 + lambda (x - baseline), lambda optimal for rises by 1.25 to 9 times.
    Raises ValueError unless 0 < baseline < 1.
    """

    __slots__ = ("_baseline", "_stakes", "detector")

    def __init__(self, baseline: float) -> None:
        if not 0.0 < baseline < 1.0:
            raise ValueError(f"baseline must lie strictly between 0 and 1, not {baseline!r}")
        self._baseline = baseline
        rises = np.array(_RISES) * baseline - baseline
        self._stakes = np.minimum(rises / (baseline * (1.0 - baseline)), MAX_LOSS / baseline)
        self.detector = EDetector(np.full(len(_RISES), 1.0 / len(_RISES)))

    def fold(self, x: ArrayLike) -> None:
        """Fold n values in [0, 1], shape (n,). Raises ValueError for others, before anything changed."""
        values = np.asarray(x, dtype=np.float64)
        if values.ndim != 1 or not ((values >= 0.0) & (values <= 1.0)).all():
            raise ValueError("x must be 1-d and lie in [0, 1]")
        if values.size:
            self.detector.advance(self._stakes[:, None] * (values - self._baseline))
