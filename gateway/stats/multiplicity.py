"""Thresholds for several tests at once (M1).

"Primary and all guardrails" needs no correction: an intersection of conditions only lowers the error. Any
"or" does: the best of k challengers, harm in any of k segments, a mismatch in any of k arms.
"""

from __future__ import annotations

import math


def bonferroni_threshold(alpha: float, k: int = 1) -> float:
    """``log(k/alpha)``: flag test j when its log e-value reaches it (e-Bonferroni).

    With E_1..E_k e-processes of true nulls under any dependence, Markov's and Ville's inequality give
    ``P(some sup E_j >= k/alpha) <= alpha`` (Vovk & Wang 2021, Annals of Statistics 49:1736). Flags may latch:
    the bound is about suprema. Units: natural log of an e-value, comparable with ``log_e`` everywhere here.

    Raises ValueError unless 0 < alpha < 1 and k >= 1.
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"the level must lie strictly between 0 and 1, not {alpha!r}")
    if k < 1:
        raise ValueError(f"there must be at least one test, not {k!r}")
    return math.log(k) - math.log(alpha)
