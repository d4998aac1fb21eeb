"""The log wealth of one bet: K stakes side by side, and the exact running maximum of their mixture.

``E = sum_k w_k exp(L_k)`` with fixed weights is an e-process if every ``exp(L_k)`` is one; Ville's inequality
(1939) then bounds its supremum, which is why the peak over every single unit is kept and may latch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Wagerable(Protocol):
    """What `Wealth` needs of a bet."""

    @property
    def weights(self) -> Floats: ...

    def describe(self) -> dict[str, Any]: ...


class Wealth:
    """Log wealth of the K stakes of one bet, and the peak of their mixture."""

    __slots__ = ("_bet", "_log_wealth", "_weights", "peak")

    def __init__(self, bet: Wagerable) -> None:
        self._bet = bet
        self._weights = bet.weights
        self._log_wealth = np.zeros(len(self._weights))
        self.peak = 0.0

    @property
    def log_e(self) -> float:
        """Current natural log of the mixture's e-value."""
        return float(log_mixture(self._weights, self._log_wealth[:, None])[0])

    @property
    def _described(self) -> list[Any]:
        """Without names: a state is written after every step, and most of it would be these."""
        return list(self._bet.describe().values())

    def advance(self, gains: Floats) -> None:
        """Fold the K stakes' gains on n units, shape (K, n), each at least -0.9."""
        # log1p into an array of its own: on contiguous memory numpy takes one code path whatever the length.
        steps = np.log1p(gains)
        path = np.concatenate([self._log_wealth[:, None], steps], axis=1)
        np.add.accumulate(path, axis=1, out=path)
        self._log_wealth = path[:, -1].copy()
        # A mixture never exceeds its best stake, so most blocks cannot hold a new peak. The margin covers
        # the rounding of the mixture, without which the peak would depend on the cuts.
        if path.max() >= self.peak - 1e-9:
            self.peak = max(self.peak, float(log_mixture(self._weights, path[:, 1:]).max()))

    def absorb(self, steps: Floats) -> None:
        """Add the K log factors of a whole epoch whose order is not known, shape (K,): one look, at its end."""
        self._log_wealth = self._log_wealth + steps
        self.peak = max(self.peak, self.log_e)

    def state(self) -> dict[str, Any]:
        """The bet, the K log wealths and the peak; exact round trip."""
        return {"bet": self._described, "log_wealth": self._log_wealth.tolist(), "peak": self.peak}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a `state`. Raises ValueError when it was folded under another bet."""
        if list(state["bet"]) != self._described:
            raise ValueError(f"the state was folded under another bet than {self._bet}")
        log_wealth = np.array(state["log_wealth"], dtype=np.float64)
        if log_wealth.shape != self._log_wealth.shape:
            raise ValueError(f"the state holds {log_wealth.size} stakes, not {self._log_wealth.size}")
        self._log_wealth = log_wealth
        self.peak = float(state["peak"])


def log_mixture(weights: Floats, log_wealth: Floats) -> Floats:
    """``log sum_k w_k exp(L_k)`` per column of ``log_wealth`` (K, n), without overflow. Shape (n,)."""
    top = log_wealth.max(axis=0)
    scaled = np.exp(log_wealth - top)
    total = weights[0] * scaled[0]
    # Row by row: the order in which a numpy reduction adds depends on the number of columns.
    for weight, row in zip(weights[1:], scaled[1:], strict=True):
        total += weight * row
    return np.asarray(top + np.log(total), dtype=np.float64)
