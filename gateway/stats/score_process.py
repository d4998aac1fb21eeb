"""Evidence of one stream of units: the randomisation e-processes D1 and the confidence sequence D3.

One cell is one (metric, segment, challenger) pair against the champion. It folds units (z, pi, g) in log
order and keeps, for each named bet, the log wealth of K stakes. The mixture
``E = sum_k w_k exp(L_k)`` is an e-process (`bets`): under the null, ``P(sup E >= 1/alpha) <= alpha``,
at every time, under drift, ramps and adaptive splits, provided that the units are folded in the order of
their coins and pi depends on folded units only (rules R1-R3; the caller's duty, as is the direction of g).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.stats.bets import Bet
from gateway.stats.intervals import Interval, Method, overlap_interval
from gateway.stats.moments import Moments, Scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

_BLOCK = 4096
"""Units worked on at once: K x _BLOCK floats still fit the cache. Cuts have no influence on the result."""

_STATE_VERSION = 1


class ScoreCell:
    """Evidence of one (metric, segment, challenger) pair stream, folded in log order.

    Raises ValueError when ``bets`` is empty.
    """

    def __init__(self, bets: Mapping[str, Bet]) -> None:
        if not bets:
            raise ValueError("a cell needs at least one bet")
        self._moments = Moments()
        self._wealth = {name: _Wealth(bet) for name, bet in bets.items()}

    def fold(self, z: ArrayLike, pi: ArrayLike, g: ArrayLike) -> None:
        """Fold n units in log order: challenger or not, propensity in (0, 1), outcome in [0, 1]; shape (n,).

        The result does not depend on how a stream is cut into calls, bit for bit (on one machine: another
        processor may round log1p and exp differently in the last place).
        Raises ValueError on unequal lengths, NaN, infinite or out-of-range values, before anything changed.
        """
        z_, pi_, g_ = _checked(z, pi, g)
        for begin in range(0, len(g_), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            scores = self._moments.advance(z_[block], pi_[block], g_[block])
            for wealth in self._wealth.values():
                wealth.advance(scores)

    @property
    def n(self) -> int:
        return self._moments.n

    @property
    def counts(self) -> tuple[int, int]:
        """Folded units of the champion and of the challenger."""
        return self._moments.n0, self._moments.n1

    @property
    def sums(self) -> tuple[float, float]:
        """Sums of g per arm, champion first."""
        return self._moments.sum0, self._moments.sum1

    @property
    def means(self) -> tuple[float, float]:
        """Means of g per arm, champion first, nan while an arm is empty. For display: under a changing
        split their difference is confounded with time, `interval` is not."""
        return self._moments.arm_mean(0), self._moments.arm_mean(1)

    @property
    def variances(self) -> tuple[float, float]:
        """Sample variances of g per arm, champion first, nan below two units. For display."""
        return self._moments.arm_variance(0), self._moments.arm_variance(1)

    def log_e(self, name: str) -> float:
        """Current natural log of the e-value of a bet: what promotion and non-inferiority use (R16)."""
        return self._wealth[name].log_e

    def peak_log_e(self, name: str) -> float:
        """Maximum of `log_e` over the start (0) and every folded unit: harm latches on it (R16)."""
        return self._wealth[name].peak

    def interval(self, alpha: float, *, v_opt: float, method: Method = "exact") -> Interval:
        """Confidence sequence for the overlap-weighted effect on g; see `intervals.overlap_interval`."""
        known = self._moments
        return overlap_interval(known.sum_psi, known.sum_h, known.v, alpha=alpha, v_opt=v_opt, method=method)

    def state(self) -> dict[str, Any]:
        """Everything folded so far as plain dicts, lists, ints and finite floats; exact round trip."""
        return {
            "version": _STATE_VERSION,
            "moments": self._moments.state(),
            "bets": {name: wealth.state() for name, wealth in self._wealth.items()},
        }

    @classmethod
    def restore(cls, bets: Mapping[str, Bet], state: Mapping[str, Any]) -> ScoreCell:
        """Inverse of `state`. Raises ValueError for a state of other bets or another version.

        Wealth that was won with one bet says nothing about another: a changed bet starts a new cell.
        """
        if state["version"] != _STATE_VERSION:
            raise ValueError(f"unknown state version {state['version']!r}")
        if set(state["bets"]) != set(bets):
            raise ValueError(f"the state holds the bets {sorted(state['bets'])}, not {sorted(bets)}")
        cell = cls(bets)
        cell._moments = Moments.restore(state["moments"])
        for name, wealth in cell._wealth.items():
            wealth.load(state["bets"][name])
        return cell


class _Wealth:
    """Log wealth of the K stakes of one bet, and the peak of their mixture."""

    __slots__ = ("_bet", "_log_wealth", "_weights", "peak")

    def __init__(self, bet: Bet) -> None:
        self._bet = bet
        self._weights = bet.weights
        self._log_wealth = np.zeros(len(self._weights))
        self.peak = 0.0

    @property
    def log_e(self) -> float:
        return float(_log_mixture(self._weights, self._log_wealth[:, None])[0])

    def advance(self, scores: Scores) -> None:
        kappa = self._bet.stakes(scores.pi, scores.m, scores.variance)
        # log1p into an array of its own: on contiguous memory numpy takes one code path whatever the length.
        steps = np.log1p(self._bet.gains(kappa, scores.psi, scores.h))
        path = np.concatenate([self._log_wealth[:, None], steps], axis=1)
        np.add.accumulate(path, axis=1, out=path)
        self._log_wealth = path[:, -1].copy()
        # A mixture never exceeds its best stake, so most blocks cannot hold a new peak. The margin covers
        # the rounding of the mixture, without which the peak would depend on the cuts.
        if path.max() >= self.peak - 1e-9:
            self.peak = max(self.peak, float(_log_mixture(self._weights, path[:, 1:]).max()))

    def state(self) -> dict[str, Any]:
        bet = self._bet
        return {
            "sign": bet.sign,
            "shift": bet.shift,
            "effect": bet.effect,
            "log_wealth": self._log_wealth.tolist(),
            "peak": self.peak,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        if Bet(state["sign"], state["shift"], state["effect"]) != self._bet:
            raise ValueError(f"the state was folded under another bet than {self._bet}")
        log_wealth = np.array(state["log_wealth"], dtype=np.float64)
        if log_wealth.shape != self._log_wealth.shape:
            raise ValueError(f"the state holds {log_wealth.size} stakes, not {self._log_wealth.size}")
        self._log_wealth = log_wealth
        self.peak = float(state["peak"])


def _log_mixture(weights: Floats, log_wealth: Floats) -> Floats:
    """``log sum_k w_k exp(L_k)`` per column of ``log_wealth`` (K, n), without overflow. Shape (n,)."""
    top = log_wealth.max(axis=0)
    scaled = np.exp(log_wealth - top)
    total = weights[0] * scaled[0]
    # Row by row: the order in which a numpy reduction adds depends on the number of columns.
    for weight, row in zip(weights[1:], scaled[1:], strict=True):
        total += weight * row
    return np.asarray(top + np.log(total), dtype=np.float64)


def _checked(z: ArrayLike, pi: ArrayLike, g: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """The arguments as float arrays of shape (n,); every complaint comes before any change."""
    arms = np.asarray(z)
    if arms.dtype != np.bool_ and not np.isin(arms, (0, 1)).all():
        raise ValueError("z must hold booleans (or 0 and 1)")
    z_ = arms.astype(np.float64)
    pi_ = np.asarray(pi, dtype=np.float64)
    g_ = np.asarray(g, dtype=np.float64)
    if z_.ndim != 1 or not z_.shape == pi_.shape == g_.shape:
        raise ValueError(f"z, pi and g must be 1-d of one length, not {z_.shape}, {pi_.shape}, {g_.shape}")
    # Written so that NaN fails: every comparison with NaN is false.
    if not ((pi_ > 0.0) & (pi_ < 1.0)).all():
        raise ValueError("pi must lie strictly between 0 and 1")
    if not ((g_ >= 0.0) & (g_ <= 1.0)).all():
        raise ValueError("g must lie in [0, 1]")
    return z_, pi_, g_
