"""The null hypotheses that a score process can bet against, and how much each bet may stake.

Everything rests on one identity. Unit i gets the challenger (Z = 1) with probability pi, known before the
coin falls; g in [0, 1] is its outcome with bigger better; m is any guess made before. Then

    psi = (Z - pi)(g - m)   has   E[psi | past] = h tau,   h = pi (1 - pi),   tau = g(Y(1)) - g(Y(0)),

whatever m, the drift of the outcomes or the history of pi: Z is a fresh coin, independent of both potential
outcomes. So ``1 + sign kappa (psi - h shift)`` has conditional mean ``1 + sign kappa h (tau - shift)``, at
most 1 under the null and exactly 1 on its boundary, for every kappa >= 0 fixed before the coin.
A product of such factors is an e-process as long as each factor is nonnegative; the caps below see to that.
(Waudby-Smith & Ramdas 2024, JRSS B; for 0/1 outcomes and kappa = Delta/(m(1-m)) the factor equals
P(Z=z | y)/P(Z=z), the growth-rate-optimal e-value of Turner, Ly & Grunwald 2024.)
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.stats.moments import Scores

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MAX_LOSS: Final = 0.9
"""The largest share of its wealth that a bet may lose on one unit: every factor stays >= 0.1."""

EFFECT_MULTIPLES: Final = (0.5, 0.71, 1.0, 1.41, 2.0, 4.0)
EFFECT_WEIGHTS: Final = (0.15, 0.2, 0.3, 0.15, 0.1, 0.1)
GENERIC_SIZES: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
GENERIC_WEIGHTS: Final = (1 / 6,) * 6


@dataclass(frozen=True, slots=True)
class Bet:
    """One null hypothesis about the effect tau of the challenger on g (D1, D4; rules R8-R10).

    sign    +1 collects evidence that tau > shift (null: tau <= shift for every unit),
            -1 collects evidence that tau < shift (null: tau >= shift for every unit).
    shift   the boundary of the null, in units of g, strictly between -1 and 1.
    effect  the distance |tau - shift| that is expected, in units of g. It tunes the stakes, never the
            validity. None spreads the stakes over a generic grid of effects from 0.05 to 1.6 sd.

    Raises ValueError for a sign, shift or effect outside these ranges.
    """

    sign: int
    shift: float = 0.0
    effect: float | None = None

    def __post_init__(self) -> None:
        if self.sign not in (-1, 1):
            raise ValueError(f"sign must be +1 or -1, not {self.sign!r}")
        if not (math.isfinite(self.shift) and abs(self.shift) < 1.0):
            raise ValueError(f"shift must lie strictly between -1 and 1, not {self.shift!r}")
        if self.effect is not None and not 0.0 < self.effect <= 2.0:
            raise ValueError(f"effect must lie in (0, 2], not {self.effect!r}")

    @property
    def weights(self) -> NDArray[np.float64]:
        """Prior weights of the K simultaneous stakes; they sum to 1. Shape (K,)."""
        return np.array(GENERIC_WEIGHTS if self.effect is None else EFFECT_WEIGHTS)

    def cap(self, pi: ArrayLike, m: ArrayLike) -> NDArray[np.float64]:
        """The largest kappa allowed at propensity ``pi`` and guess ``m``, both in (0, 1); they broadcast.

        psi reaches down to -max((1-pi)m, pi(1-m)) and up to max((1-pi)(1-m), pi m) over z and g in [0, 1].
        Both are at least h in size (h is a weighted mean of the two terms), so with |shift| < 1 the worst
        possible loss per unit of kappa is positive, and ``0.9/loss`` keeps every factor >= 0.1 (R9).
        """
        pi_ = np.asarray(pi, dtype=np.float64)
        m_ = np.asarray(m, dtype=np.float64)
        q = 1.0 - pi_
        if self.sign > 0:
            loss = np.maximum(q * m_, pi_ * (1.0 - m_)) + pi_ * q * self.shift
        else:
            loss = np.maximum(q * (1.0 - m_), pi_ * m_) - pi_ * q * self.shift
        return np.asarray(MAX_LOSS / loss, dtype=np.float64)

    def stakes(
        self, pi: NDArray[np.float64], m: NDArray[np.float64], variance: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """kappa of the K stakes for n units: the grid in units of the outcome's sd, capped. Shape (K, n).

        ``pi``, ``m`` and ``variance`` (of g) have shape (n,) and must be known before each unit's coin.
        """
        if self.effect is None:
            sizes, unit = np.array(GENERIC_SIZES), np.sqrt(variance)
        else:
            sizes, unit = np.array(EFFECT_MULTIPLES) * self.effect, variance
        return np.asarray(np.minimum(sizes[:, None] / unit, self.cap(pi, m)), dtype=np.float64)

    def factors(self, kappa: ArrayLike, psi: ArrayLike, h: ArrayLike) -> NDArray[np.float64]:
        """``1 + sign kappa (psi - h shift)``; the arguments broadcast."""
        return 1.0 + self.gains(kappa, psi, h)

    def gains(self, kappa: ArrayLike, psi: ArrayLike, h: ArrayLike) -> NDArray[np.float64]:
        """``sign kappa (psi - h shift)``, the factor less 1: what log1p wants."""
        distance = np.asarray(psi, dtype=np.float64) - np.asarray(h, dtype=np.float64) * self.shift
        return np.asarray(kappa, dtype=np.float64) * (self.sign * distance)

    def wagers(self, scores: Scores) -> NDArray[np.float64]:
        """Each stake's gain on each unit (its factor less 1, at least -0.9), shape (K, n)."""
        return self.gains(self.stakes(scores.pi, scores.m, scores.variance), scores.psi, scores.h)

    def describe(self) -> dict[str, Any]:
        """The bet as plain values: what a stored state is checked against."""
        return {"kind": "absolute", **asdict(self)}


def superiority(effect: float | None = None) -> Bet:
    """H0 tau <= 0: evidence that the challenger is better. ``effect`` is the expected gain."""
    return Bet(sign=1, effect=effect)


def superiority_by(min_effect: float, effect: float | None = None) -> Bet:
    """H0 tau <= min_effect: evidence of a gain above ``min_effect`` (R10 `require`).

    ``effect`` is the gain expected in all; beyond ``min_effect`` it tunes the stakes.
    """
    beyond = None if effect is None or effect <= min_effect else effect - min_effect
    return Bet(sign=1, shift=_positive("min_effect", min_effect), effect=beyond)


def non_inferiority(delta: float) -> Bet:
    """H0 tau <= -delta: evidence that the challenger is worse by less than ``delta`` (D4).

    Tuned to tau = 0, that is to a distance of delta from the null.
    """
    return Bet(sign=1, shift=-_positive("delta", delta), effect=delta)


def harm() -> Bet:
    """H0 tau >= 0: evidence that the challenger is worse, on a generic grid: harm has no expected size."""
    return Bet(sign=-1)


def harm_beyond(delta: float) -> Bet:
    """H0 tau >= -delta: evidence that the challenger is worse by more than ``delta`` (D4)."""
    return Bet(sign=-1, shift=-_positive("delta", delta))


def futility(min_effect: float) -> Bet:
    """H0 tau >= min_effect: evidence that the gain is below ``min_effect`` (R12). Tuned to tau = 0."""
    return Bet(sign=-1, shift=_positive("min_effect", min_effect), effect=min_effect)


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} must be positive and finite, not {value!r}")
    return value
