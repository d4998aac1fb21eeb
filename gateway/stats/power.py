"""How long it will take: the physical limit, and what the tests of this package need above it.

L1 (Wald 1945; Kaufmann & Koolen 2021): no level-alpha test of power one can beat E[N] >= log(1/alpha)/I with
I = pi KL(theta1 || m) + (1-pi) KL(theta0 || m), m = pi theta1 + (1-pi) theta0: what an outcome says about its arm.
The factors above the limit are measured, not proved: docs of `_FACTORS`. N counts units of both arms.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy import special
from scipy.optimize import brentq

from gateway.stats.bets import EFFECT_MULTIPLES, EFFECT_WEIGHTS, MAX_LOSS

if TYPE_CHECKING:
    from collections.abc import Callable

_FACTORS: Final = {0.5: 1.25, 1.0: 1.10, 2.0: 1.28, 4.0: 1.60}
"""Mean sample size of D1 over the limit by true effect / expected effect; alpha .05, p .05 -> .06, pi 1/2. Measured by
`benchmarks/bench_statistics.py`, G2: 1.22 +- .05, 1.09, 1.28, 1.61 +- .02 each (375 and 1,500 runs)."""
_GENERIC_FACTOR: Final = 1.45
"""The same for a bet without an expected effect: 1.48 +- .06 over 400 runs of `ScoreCell`."""
_CALIBRATION: Final = (0.85, 0.95)
"""Non-inferiority, median and 95th percentile: measured over those of a single stake's first passage. Alpha .05,
pi 1/2, 200 runs each, base/margin 0/.005, .001/.005, .005/.005, .02/.01, .1/.03, .3/.05: .78 .62 .94 .81 .81 .91 and
.78 .77 1.16 .90 .93 .89. A mixture is quicker than its best stake alone; learning the base takes some of it back."""


class PassCost(NamedTuple):
    """Units of both arms until non-inferiority passes with equal arms: median and 95th percentile."""

    median: float
    high: float


def information(theta0: float, theta1: float, pi: float) -> float:
    """I(Y; Z) in nats per unit for 0/1 outcomes with success rates theta0, theta1 and split pi; 0 if equal.

    Raises ValueError unless the rates lie in [0, 1] and 0 < pi < 1.
    """
    if not (0.0 <= theta0 <= 1.0 and 0.0 <= theta1 <= 1.0):
        raise ValueError(f"rates must lie in [0, 1], not {theta0!r}, {theta1!r}")
    _require_open("pi", pi)
    if theta0 == theta1:
        return 0.0
    m = pi * theta1 + (1.0 - pi) * theta0
    return pi * _divergence(theta1, m) + (1.0 - pi) * _divergence(theta0, m)


def information_gaussian(effect: float, sd: float, pi: float) -> float:
    """The same for a small effect on a bounded score: pi (1-pi) (effect/sd)^2/2 nats per unit.

    Raises ValueError unless sd > 0 and 0 < pi < 1.
    """
    _require_open("pi", pi)
    if not sd > 0.0:
        raise ValueError(f"sd must be positive, not {sd!r}")
    return 0.5 * pi * (1.0 - pi) * (effect / sd) ** 2


def least_units(information_per_unit: float, alpha: float) -> float:
    """L1: ``log(1/alpha)/I`` units, which no test of power one beats on average; inf without information."""
    _require_open("alpha", alpha)
    return -math.log(alpha) / information_per_unit if information_per_unit > 0.0 else math.inf


def expected_units(information_per_unit: float, alpha: float, *, multiple: float | None = 1.0) -> float:
    """Mean units of both arms until the superiority e-process reaches 1/alpha.

    ``multiple`` is true effect / expected effect, or None for a bet without one; outside [.5, 4] the end value is
    used. Promotion also waits for the interval: see README, "Choosing v_opt".
    Raises ValueError for alpha outside (0, 1) or multiple <= 0.
    """
    return least_units(information_per_unit, alpha) * _factor(multiple)


def detectable_effect(n: float, base: float, pi: float, alpha: float) -> float:
    """The rise of a success rate ``base`` that n units detect on average, if it was the expected effect; inf if none.

    Raises ValueError unless n > 0, 0 <= base < 1, 0 < pi < 1, 0 < alpha < 1.
    """
    if not (n > 0.0 and 0.0 <= base < 1.0):
        raise ValueError(f"n must be positive and base lie in [0, 1), not {n!r}, {base!r}")

    def excess(effect: float) -> float:
        return expected_units(information(base, base + effect, pi), alpha) - n

    most = 1.0 - base
    if excess(most) > 0.0:
        return math.inf
    return float(brentq(excess, 1e-9 * most, most, xtol=1e-12)) if excess(1e-9 * most) > 0.0 else 1e-9 * most


def non_inferiority_cost(
    base: float, margin: float, alpha: float, *, pi: float = 0.5, sd: float | None = None
) -> PassCost:
    """Units until non-inferiority with an absolute ``margin`` passes when both arms are equal.

    Each stake's log wealth is a random walk with known drift and variance; its first passage of log(1/(alpha w_k)) is
    inverse Gaussian (Wald 1947). The quickest stake times a factor calibrated on simulated cells (`_CALIBRATION`) is
    within 25 % of their median and 95th percentile, 40 % where the margin is many times the base. ``base`` is the
    rate of the bad event; for a bounded score give its ``sd`` too.

    Raises ValueError unless 0 <= base < 1, 0 < margin < 1, 0 < pi < 1, 0 < alpha < 1.
    """
    if not 0.0 <= base < 1.0:
        raise ValueError(f"base must lie in [0, 1), not {base!r}")
    for name, value in (("margin", margin), ("alpha", alpha), ("pi", pi)):
        _require_open(name, value)
    variance = max(sd**2 if sd is not None else base * (1.0 - base), 1e-9)
    walks = [_walk(base, variance, margin, pi, multiple) for multiple in EFFECT_MULTIPLES]
    heights = [-math.log(alpha * weight) for weight in EFFECT_WEIGHTS]
    median, high = (
        min(_passage(height, *walk, share) for height, walk in zip(heights, walks, strict=True))
        for share in (0.5, 0.95)
    )
    return PassCost(_CALIBRATION[0] * median, _CALIBRATION[1] * high)


def _walk(base: float, variance: float, margin: float, pi: float, multiple: float) -> tuple[float, float]:
    """Mean and variance per unit of one stake's log factor with equal arms and m = base known."""
    q = 1.0 - pi
    # g = 1 - bad, m = 1 - base; spread the score on two points of the given variance when it is not 0/1.
    m = 1.0 - base
    cap = MAX_LOSS / (max(q * m, pi * base) - pi * q * margin)
    kappa = min(multiple * margin / variance, cap)
    spread = math.sqrt(variance)
    share, low, high = (base, -m, base) if variance == base * m else (0.5, -spread, spread)
    mean = square = 0.0
    for z, arm in ((1.0, pi), (0.0, q)):
        for chance, dev in ((share, low), (1.0 - share, high)):
            step = math.log1p(max(kappa * ((z - pi) * dev + pi * q * margin), -MAX_LOSS))
            mean += arm * chance * step
            square += arm * chance * step * step
    return mean, square - mean * mean


def _passage(height: float, drift: float, variance: float, share: float) -> float:
    """Quantile of the inverse-Gaussian time at which a drifting Brownian motion first reaches ``height``."""
    if drift <= 0.0:
        return math.inf
    mean = height / drift
    if variance <= 1e-12 * drift * height:
        return mean
    shape = height * height / variance

    def below(log_t: float) -> float:
        t = math.exp(log_t)
        root = math.sqrt(shape / t)
        first = float(special.ndtr(root * (t / mean - 1.0)))
        second = math.exp(2.0 * shape / mean + float(special.log_ndtr(-root * (t / mean + 1.0))))
        return first + second - share

    return _solved(below, math.log(mean))


def _solved(rising: Callable[[float], float], at: float) -> float:
    low, high = at - 1.0, at + 1.0
    while rising(low) > 0.0:
        low -= 2.0
    while rising(high) < 0.0:
        high += 2.0
    return math.exp(float(brentq(rising, low, high, xtol=1e-10)))


def _factor(multiple: float | None) -> float:
    if multiple is None:
        return _GENERIC_FACTOR
    if not multiple > 0.0:
        raise ValueError(f"multiple must be positive, not {multiple!r}")
    return float(np.interp(math.log(multiple), [math.log(x) for x in _FACTORS], list(_FACTORS.values())))


def _divergence(p: float, m: float) -> float:
    return float(special.rel_entr(p, m) + special.rel_entr(1.0 - p, 1.0 - m))


def _require_open(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must lie strictly between 0 and 1, not {value!r}")
