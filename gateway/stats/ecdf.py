"""A band around an empirical distribution function that holds at all sample sizes at once.

Howard & Ramdas (2022), "Sequential estimation of quantiles", theorem 2: for i.i.d. observations, with probability at
least 1 - alpha, at all n >= n_min and all x,

    |F_n(x) - F(x)| <= A sqrt((log(1 + log(n / n_min)) + C) / n),     A = 0.85,

where C solves inf_eta 4 exp(-gamma^2 C) (1 + 1/((gamma^2 - 1) log eta)) = alpha over eta in (1, 2 A^2) with
gamma^2 = (2/eta) (A - sqrt(2 (eta - 1)/C))^2 > 1.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
from scipy import optimize

_A: Final = 0.85
_ETAS: Final = 1.0 + (2 * _A * _A - 1.0) * np.linspace(1e-4, 1.0 - 1e-4, 2000)
FEWEST: Final = 32  # observations, below which the band says nothing


def ecdf_radius(n: int, alpha: float, *, n_min: int = FEWEST) -> float:
    """Half of the band's height after ``n`` observations, at most 1. Raises ValueError unless 0 < alpha < 1."""
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"the level must lie strictly between 0 and 1, not {alpha!r}")
    if n < n_min:
        return 1.0
    return min(1.0, _A * math.sqrt((math.log1p(math.log(n / n_min)) + _constant(alpha)) / n))


@lru_cache(maxsize=64)
def _constant(alpha: float) -> float:
    low, high = 1.0, 2.0
    while _miss(high) > alpha:
        high *= 2.0
    root = optimize.brentq(lambda c: math.log(_miss(c)) - math.log(alpha), low, high, xtol=1e-9)
    return float(root) + 1e-8  # never below the root


def _miss(c: float) -> float:
    """The bound on the probability that the band misses, with the best eta of a fine grid; at most 4."""
    inner = _A - np.sqrt(2.0 * (_ETAS - 1.0) / c)
    squared = np.where(inner > 0.0, 2.0 / _ETAS * inner * inner, 0.0)
    usable = squared > 1.0 + 1e-12
    if not usable.any():
        return 4.0
    gamma, eta = squared[usable], _ETAS[usable]
    return float(min(4.0, (4.0 * np.exp(-gamma * c) * (1.0 + 1.0 / ((gamma - 1.0) * np.log(eta)))).min()))
