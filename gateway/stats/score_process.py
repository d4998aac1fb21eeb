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
from gateway.stats.checks import checked_units
from gateway.stats.intervals import Interval, Method, overlap_interval
from gateway.stats.moments import Moments
from gateway.stats.regression import Regression
from gateway.stats.relative import RelativeBet
from gateway.stats.shards import EpochShard, Frozen, absorb, freeze
from gateway.stats.wealth import Wealth

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

_BLOCK = 4096
"""Units worked on at once: K x _BLOCK floats still fit the cache. Cuts have no influence on the result."""

_WAITING = 512
"""Single units that `ScoreCell.add` lets wait at most."""

_STATE_VERSION = 3

AnyBet = Bet | RelativeBet


class ScoreCell:
    """Evidence of one (metric, segment, challenger) pair stream, folded in log order.

    ``covariates`` is how many numbers known before the coin come with each unit (CUPED, `regression`); 0 to 4.
    Raises ValueError when ``bets`` is empty or ``covariates`` out of range.
    """

    def __init__(self, bets: Mapping[str, AnyBet], *, covariates: int = 0) -> None:
        if not bets:
            raise ValueError("a cell needs at least one bet")
        self._regression = Regression(covariates) if covariates else None
        self._moments = Moments()
        self._waiting: list[tuple[float, float, float]] = []
        self._bets = dict(bets)
        self._wealth = {name: Wealth(bet) for name, bet in bets.items()}

    def fold(self, z: ArrayLike, pi: ArrayLike, g: ArrayLike, x: ArrayLike | None = None) -> None:
        """Fold n units in log order: challenger or not, propensity in (0, 1), outcome in [0, 1]; shape (n,).

        ``x`` (n, covariates) is required where the cell was made for covariates, and refused elsewhere.

        The result does not depend on how a stream is cut into calls, bit for bit (on one machine: another
        processor may round log1p and exp differently in the last place).
        Raises ValueError on unequal lengths, NaN, infinite or out-of-range values, before anything changed.
        """
        z_, pi_, g_ = checked_units(z, pi, g)
        x_ = self._covariates(x, len(g_))
        self._flush()
        self._fold(z_, pi_, g_, x_)

    def add(self, z: bool, pi: float, g: float) -> None:
        """Fold one unit; the same bits as `fold`, and a hundred times its speed for single units.

        Units wait until the next read or until there are 512 of them: how a stream is cut has no influence.
        Raises ValueError for values out of range, or in a cell with covariates, before anything changed.
        """
        if self._regression is not None:
            raise ValueError("a cell with covariates must be given x: use fold")
        if not (z in (0, 1) and 0.0 < pi < 1.0 and 0.0 <= g <= 1.0):
            raise ValueError(f"z must be 0 or 1, pi in (0, 1) and g in [0, 1], not {z!r}, {pi!r}, {g!r}")
        self._waiting.append((z, pi, g))
        if len(self._waiting) >= _WAITING:
            self._flush()

    def frozen(self) -> Frozen:
        """What shards of the next epoch are made with (`shards`). Raises ValueError with covariates."""
        if self._regression is not None:
            raise ValueError("a cell with covariates cannot be sharded")
        return freeze(self._read())

    def shard(self) -> EpochShard:
        """An empty shard of the next epoch."""
        return EpochShard(self.frozen(), self._bets)

    def absorb(self, shard: EpochShard) -> None:
        """Fold a merged epoch; the next epoch starts behind it. The peak is looked at once, at the epoch's end.

        Raises ValueError for a shard of another epoch or other bets, before anything changed.
        """
        if shard.frozen != self.frozen() or shard.bets != self._bets:
            raise ValueError("the shard must be one of this cell's next epoch and bets")
        for name, steps in absorb(self._read(), shard).items():
            self._wealth[name].absorb(steps)

    @property
    def n(self) -> int:
        """Units folded."""
        return self._read().n

    @property
    def counts(self) -> tuple[int, int]:
        """Folded units of the champion and of the challenger."""
        return self._read().n0, self._read().n1

    @property
    def sums(self) -> tuple[float, float]:
        """Sums of g per arm, champion first."""
        return self._read().sum0, self._read().sum1

    @property
    def means(self) -> tuple[float, float]:
        """Means of g per arm, champion first, nan while an arm is empty. For display: under a changing
        split their difference is confounded with time, `interval` is not."""
        return self._read().arm_mean(0), self._read().arm_mean(1)

    @property
    def variances(self) -> tuple[float, float]:
        """Sample variances of g per arm, champion first, nan below two units. For display."""
        return self._read().arm_variance(0), self._read().arm_variance(1)

    def log_e(self, name: str) -> float:
        """Current natural log of the e-value of a bet: what promotion and non-inferiority use (R16)."""
        self._flush()
        return self._wealth[name].log_e

    def peak_log_e(self, name: str) -> float:
        """Maximum of `log_e` over the start (0) and every folded unit: harm latches on it (R16)."""
        self._flush()
        return self._wealth[name].peak

    def interval(self, alpha: float, *, v_opt: float, method: Method = "exact") -> Interval:
        """Confidence sequence for the overlap-weighted effect on g; see `intervals.overlap_interval`."""
        known = self._read()
        return overlap_interval(
            known.sum_psi,
            known.sum_h,
            known.v,
            alpha=alpha,
            v_opt=v_opt,
            method=method,
            v_by_range=(known.below, known.above),
        )

    def state(self) -> dict[str, Any]:
        """Everything folded so far as plain dicts, lists, ints and finite floats; exact round trip."""
        return {
            "version": _STATE_VERSION,
            "moments": self._read().state(),
            "bets": {name: wealth.state() for name, wealth in self._wealth.items()},
            "regression": self._regression.state() if self._regression else None,
        }

    @classmethod
    def restore(cls, bets: Mapping[str, AnyBet], state: Mapping[str, Any]) -> ScoreCell:
        """Inverse of `state`. Raises ValueError for a state of other bets or another version.

        Wealth that was won with one bet says nothing about another: a changed bet starts a new cell.
        """
        if state["version"] != _STATE_VERSION:
            raise ValueError(f"unknown state version {state['version']!r}")
        if set(state["bets"]) != set(bets):
            raise ValueError(f"the state holds the bets {sorted(state['bets'])}, not {sorted(bets)}")
        cell = cls(bets)
        cell._moments = Moments.restore(state["moments"])
        if state["regression"] is not None:
            cell._regression = Regression.restore(state["regression"])
        for name, wealth in cell._wealth.items():
            wealth.load(state["bets"][name])
        return cell

    def _flush(self) -> None:
        if self._waiting:
            z, pi, g = np.ascontiguousarray(np.array(self._waiting, dtype=np.float64).T)
            self._waiting.clear()
            self._fold(z, pi, g, None)

    def _fold(self, z: Floats, pi: Floats, g: Floats, x: Floats | None) -> None:
        for begin in range(0, len(g), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            known = None if x is None else x[block]
            scores = self._moments.advance(z[block], pi[block], g[block], known, self._regression)
            for name, wealth in self._wealth.items():
                wealth.advance(self._bets[name].wagers(scores))

    def _read(self) -> Moments:
        """The moments with every waiting unit folded."""
        self._flush()
        return self._moments

    def _covariates(self, x: ArrayLike | None, n: int) -> Floats | None:
        if self._regression is None:
            if x is not None:
                raise ValueError("x must not be given: the cell was made without covariates")
            return None
        return self._regression.checked(x, n)
