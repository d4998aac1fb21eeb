"""B4, the beta-binomial mixture: sharp boundaries for proportions and, through them, for quantiles (Q1).

For increments in [-g, h] with mean 0 and intrinsic time V (g h per unit), Howard, Ramdas, McAuliffe & Sekhon 2021,
Annals of Statistics 49:1055, proposition 7 and its one-sided form: with R = max(rho - g h, g h/1000),

    log E = V/(gh) log(g+h) - (V+hS)/(h(g+h)) log g - (V-gS)/(g(g+h)) log h
            + lB((R+V-gS)/(g(g+h)), (R+V+hS)/(h(g+h))) - lB(R/(g(g+h)), R/(h(g+h))),

lB the log of the incomplete beta function up to h/(g+h) (one-sided) or the complete one. Independent Bernoulli
counts only: for the effect of a challenger use `score_process`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scipy import special
from scipy.optimize import brentq

from gateway.stats.sequences import normal_rho, one_sided_rho

if TYPE_CHECKING:
    from collections.abc import Callable


def beta_binomial_log_e(s: float, v: float, *, rho: float, g: float, h: float, one_sided: bool = True) -> float:
    """Evidence that a sum of increments in [-g, h] drifts upwards (one-sided) or at all.

    Units: ``s``, ``g``, ``h`` alike; ``v`` and ``rho`` their square. ``s`` beyond v/g is read as v/g, which the
    sum cannot exceed. Raises ValueError unless rho, g, h > 0 and v >= 0.
    """
    if not (min(rho, g, h) > 0.0 and v >= 0.0 and math.isfinite(s)):
        raise ValueError(f"rho, g, h must be positive and v not negative, not {rho!r}, {g!r}, {h!r}, {v!r}")
    s = max(min(s, v / g), -v / h)
    width, r = g + h, max(rho - g * h, 1e-3 * g * h)
    x = h / width if one_sided else 1.0
    failures, successes = (v - g * s) / (g * width), (v + h * s) / (h * width)
    a, b = r / (g * width), r / (h * width)
    likelihood = v / (g * h) * math.log(width) - successes * math.log(g) - failures * math.log(h)
    return likelihood + log_incomplete_beta(a + failures, b + successes, x) - log_incomplete_beta(a, b, x)


def beta_binomial_boundary(v: float, alpha: float, *, rho: float, g: float, h: float, one_sided: bool = True) -> float:
    """The ``s`` > 0 at which `beta_binomial_log_e` reaches ``log(1/alpha)``; v/g where it never does.

    Raises ValueError for the same arguments, and unless 0 < alpha < 1.
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"the level must lie strictly between 0 and 1, not {alpha!r}")

    def excess(s: float) -> float:
        return beta_binomial_log_e(s, v, rho=rho, g=g, h=h, one_sided=one_sided) + math.log(alpha)

    high = v / g
    return high if excess(high) <= 0.0 else float(brentq(excess, 0.0, high, xtol=1e-12 * high, rtol=1e-12))


def proportion_interval(successes: int, n: int, *, alpha: float, t_opt: float) -> tuple[float, float]:
    """Confidence sequence of one proportion: every p that B4 (two-sided, g = p, h = 1 - p) does not reject.

    ``t_opt`` is the n at which it should be tightest, fixed in advance. 0 successes close the lower side at 0, n the
    upper at 1; n = 0 gives [0, 1]. Raises ValueError unless 0 <= successes <= n, t_opt > 0 and 0 < alpha < 1.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"counts must satisfy 0 <= successes <= n, not {successes!r} of {n!r}")

    def excess(p: float) -> float:
        v = p * (1.0 - p)
        rho = normal_rho(v * t_opt, alpha)
        s = successes - n * p
        return beta_binomial_log_e(s, v * n, rho=rho, g=p, h=1.0 - p, one_sided=False) + math.log(alpha)

    share = successes / n if n else 0.5
    lower = 0.0 if successes == 0 else _root(excess, 1e-12, share)
    upper = 1.0 if successes == n else _root(excess, 1.0 - 1e-12, share)
    return lower, upper


def quantile_ranks(n: int, p: float, *, alpha: float, t_opt: float) -> tuple[int, int]:
    """Q1: ranks whose values enclose the p-quantile at every n at once, for independent equal draws.

    floor(n p - u_-) + 1 and ceil(n p + u_+), u from B4 one-sided at alpha/2 with V = p(1-p) n and (g, h) =
    (1-p, p) below, (p, 1-p) above (Howard & Ramdas 2022, Bernoulli 28:1704, theorem 1). A lower rank of 0 or less is
    returned as 0 and means "no bound", an upper one above n as n + 1. ``t_opt`` as in `proportion_interval`.
    Raises ValueError unless n >= 0, 0 < p < 1, t_opt > 0, 0 < alpha < 1.
    """
    if not (n >= 0 and 0.0 < p < 1.0):
        raise ValueError(f"n must not be negative and p lie strictly between 0 and 1, not {n!r}, {p!r}")
    unit = p * (1.0 - p)
    rho = one_sided_rho(unit * t_opt, alpha / 2.0)
    below = beta_binomial_boundary(unit * n, alpha / 2.0, rho=rho, g=1.0 - p, h=p)
    above = beta_binomial_boundary(unit * n, alpha / 2.0, rho=rho, g=p, h=1.0 - p)
    # Where the level is out of reach the boundary is n p or n (1-p) itself; rounding must not turn it into a bound.
    lower = math.floor(n * p - below) + 1 if below < n * p * (1.0 - 1e-12) else 0
    upper = math.ceil(n * p + above) if above < n * (1.0 - p) * (1.0 - 1e-12) else n + 1
    return max(lower, 0), min(upper, n + 1)


def log_incomplete_beta(a: float, b: float, x: float) -> float:
    """``log integral_0^x t^(a-1) (1-t)^(b-1) dt`` for a, b > 0 and 0 < x <= 1, also where it is below e^-700.

    Far in the lower tail by the continued fraction of DLMF 8.17.22, which converges there in a few terms.
    """
    if x >= 1.0:
        return float(special.betaln(a, b))
    share = float(special.betainc(a, b, x))
    if share > 1e-280:
        return float(special.betaln(a, b)) + math.log(share)
    return a * math.log(x) + b * math.log1p(-x) - math.log(a) - math.log(_fraction(a, b, x))


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d_1/(1 + d_2/(1 + ...)) of DLMF 8.17.22, by the modified Lentz algorithm."""
    value, c, d = 1.0, 1.0, 0.0
    for k in range(1, 10_000):
        j, odd = divmod(k, 2)
        if odd:
            step = -(a + j) * (a + b + j) * x / ((a + 2 * j) * (a + 2 * j + 1.0))
        else:
            step = j * (b - j) * x / ((a + 2 * j - 1.0) * (a + 2 * j))
        d = 1.0 / (1.0 + step * d)
        c = 1.0 + step / c
        value *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return value


def _root(excess: Callable[[float], float], far: float, share: float) -> float:
    """The p between ``far`` (rejected, or the end of the scale) and ``share`` (accepted) where excess changes sign."""
    near = min(max(share, 1e-12), 1.0 - 1e-12)
    if excess(far) <= 0.0:
        return 0.0 if far < 0.5 else 1.0
    return float(brentq(excess, min(far, near), max(far, near), xtol=1e-13)) if excess(near) < 0.0 else share
