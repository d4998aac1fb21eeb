"""Margins relative to the champion: worse by less, or by more, than a share r of the base (D4; rule R8).

With f = 1 - r (bigger is better) or 1 + r (smaller is better), y in [0, 1] the *raw* outcome and theta its
conditional mean in each arm,

    phi = (1-pi) Z y - f pi (1-Z) y - (Z-pi) m'      has      E[phi | past] = h (theta1 - f theta0)

for every m' known before the coin, by the argument of `bets`; m' = (1-pi) mu1 + pi f mu0 with past arm means
keeps its variance small. Given Z = 1 phi = (1-pi)(y - m') and given Z = 0 phi = pi (m' - f y), so its extremes are
-max((1-pi) m', pi (f - m')) and max((1-pi)(1-m'), pi m'): the caps of R8.

A share of a small base is a margin that no amount of traffic can resolve, and a base of 0 has none. ``floor``
widens the tolerance to max(r theta0, floor). "Passes" then bets against theta1 beyond *both* margins; every
factor that is fair under either null is fair, so each unit uses the wider margin by past data. "Harm" has the
union of both nulls, and min(phi_relative, psi - h shift) has a mean below both means, so ``1 + kappa min`` is
exact under the union, also when the base moves from one side to the other. The price: about r theta0 + floor
instead of the larger of the two must be exceeded before wealth grows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.stats.bets import EFFECT_MULTIPLES, EFFECT_WEIGHTS, GENERIC_SIZES, GENERIC_WEIGHTS, MAX_LOSS
from gateway.stats.moments import Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RelativeBet:
    """One null about theta1 against (1 -+ margin) theta0.

    margin            r: in (0, 1) if bigger is better, else in (0, 10].
    bigger_is_better  direction of the raw outcome. A cell folds g with bigger better, that is g = y or 1 - y;
                      the bet undoes the 1 - y, because a share of 1 - y is another margin.
    passing           True: evidence that the challenger is worse by less than the margin (non-inferiority).
                      False: evidence that it is worse by more (harm).
    floor             the tolerance is max(r theta0, floor), in units of g, in [0, 1). With floor 0 a base of 0
                      never passes.

    Raises ValueError outside these ranges.
    """

    margin: float
    bigger_is_better: bool
    passing: bool
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not (0.0 < self.margin < 1.0 if self.bigger_is_better else 0.0 < self.margin <= 10.0):
            raise ValueError(f"margin must lie in (0, 1), or (0, 10] where smaller is better, not {self.margin!r}")
        if not 0.0 <= self.floor < 1.0:
            raise ValueError(f"floor must lie in [0, 1), not {self.floor!r}")

    @property
    def sign(self) -> int:
        """+1 if evidence is for a large theta1 (of the raw outcome), -1 if for a small one."""
        return 1 if self.bigger_is_better == self.passing else -1

    @property
    def factor(self) -> float:
        """f = 1 - r or 1 + r: theta1 is compared with f theta0."""
        return 1.0 - self.margin if self.bigger_is_better else 1.0 + self.margin

    @property
    def weights(self) -> Floats:
        """Prior weights of the K simultaneous stakes; they sum to 1. Shape (K,)."""
        return np.array(EFFECT_WEIGHTS if self.passing else GENERIC_WEIGHTS)

    def wagers(self, scores: Scores) -> Floats:
        """Each stake's gain on each unit (its factor less 1, at least -0.9), shape (K, n)."""
        up = self.bigger_is_better
        y = scores.g if up else 1.0 - scores.g
        mu0, mu1 = (scores.mu0, scores.mu1) if up else (1.0 - scores.mu0, 1.0 - scores.mu1)
        pi, z, f = scores.pi, scores.z, self.factor
        q = 1.0 - pi
        guess = q * mu1 + pi * f * mu0
        relative = self.sign * (q * z * y - f * pi * (1.0 - z) * y - (z - pi) * guess)
        loss = self._loss(pi, guess, f, 0.0)
        allowed = self.margin * mu0
        if self.floor > 0.0:
            # The absolute margin: (z - pi)(y - level). For the minimum both need one guess, or their
            # difference alone would cost more than the margin.
            level, shift = q * mu1 + pi * mu0 if self.passing else guess, self.floor * (-1.0 if up else 1.0)
            absolute = self.sign * ((z - pi) * (y - level) - pi * q * shift)
            cost = self._loss(pi, level, 1.0, shift)
            wide = allowed < self.floor
            gain = np.where(wide, absolute, relative) if self.passing else np.minimum(absolute, relative)
            loss = np.where(wide, cost, loss) if self.passing else np.maximum(cost, loss)
            allowed = np.maximum(allowed, self.floor)
        else:
            gain = relative
        return np.asarray(self._kappa(scores, allowed, loss) * gain, dtype=np.float64)

    def describe(self) -> dict[str, Any]:
        """The bet as plain values: what a stored state is checked against."""
        return {"kind": "relative", **asdict(self)}

    def _loss(self, pi: Floats, guess: Floats, f: float, shift: float) -> Floats:
        """The largest loss per unit of kappa; positive, because |shift| < 1 (see `Bet.cap`)."""
        q = 1.0 - pi
        if self.sign > 0:
            worst = np.maximum(q * guess, pi * (f - guess)) + pi * q * shift
        else:
            worst = np.maximum(q * (1.0 - guess), pi * guess) - pi * q * shift
        return np.asarray(worst, dtype=np.float64)

    def _kappa(self, scores: Scores, allowed: Floats, loss: Floats) -> Floats:
        """Stakes tuned to equal arms (passing) or to a generic grid of sds (harm), capped. Shape (K, n)."""
        # var(phi) = h (q var1 + pi f^2 var0): the variance of g times this share of h.
        variance = scores.variance * ((1.0 - scores.pi) + self.factor**2 * scores.pi)
        if self.passing:
            wanted = np.array(EFFECT_MULTIPLES)[:, None] * (allowed / variance)
        else:
            wanted = np.array(GENERIC_SIZES)[:, None] / np.sqrt(variance)
        return np.asarray(np.minimum(wanted, MAX_LOSS / loss), dtype=np.float64)


def relative_non_inferiority(margin: float, *, bigger_is_better: bool, floor: float = 0.0) -> RelativeBet:
    """Evidence that the challenger is worse by less than ``max(margin x base, floor)``."""
    return RelativeBet(margin, bigger_is_better, passing=True, floor=floor)


def relative_harm(margin: float, *, bigger_is_better: bool, floor: float = 0.0) -> RelativeBet:
    """Evidence that the challenger is worse by more than ``max(margin x base, floor)``."""
    return RelativeBet(margin, bigger_is_better, passing=False, floor=floor)
