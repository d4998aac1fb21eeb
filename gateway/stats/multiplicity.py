"""Several tests at once: M1 e-Bonferroni, M2 e-BH, M3 e-Holm, M4 p-values, and spending over experiments.

"Primary and all guardrails" needs no correction: an intersection of conditions only lowers the error. Any
"or" does: the best of k challengers, harm in any of k segments, a mismatch in any of k arms.
All evidence is the natural log of an e-value; all but M4 hold under any dependence.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


def bonferroni_threshold(alpha: float, k: int = 1) -> float:
    """``log(k/alpha)``: flag test j when its log e-value reaches it (M1, e-Bonferroni).

    With E_1..E_k e-processes of true nulls under any dependence, Markov's and Ville's inequality give
    ``P(some sup E_j >= k/alpha) <= alpha`` (Vovk & Wang 2021, Annals of Statistics 49:1736). Flags may latch:
    the bound is about suprema. Units: natural log of an e-value, comparable with ``log_e`` everywhere here.

    Raises ValueError unless 0 < alpha < 1 and k >= 1.
    """
    _require_level(alpha)
    if k < 1:
        raise ValueError(f"there must be at least one test, not {k!r}")
    return math.log(k) - math.log(alpha)


def e_bh(log_e: ArrayLike, alpha: float) -> list[int]:
    """M2: indices, ascending, whose false discovery rate is at most alpha (Wang & Ramdas 2022, JRSS B 84:822).

    Rejects the k largest e-values for the largest k with E_(k) >= K/(alpha k). ``log_e``, shape (K,), must be
    *current* values at one stopping time: on running maxima the rate is not controlled (Tavyrikov, Goeman &
    de Heide 2025). Raises ValueError for NaN or another shape, or alpha outside (0, 1).
    """
    _require_level(alpha)
    values = _checked(log_e)
    order = np.argsort(-values, kind="stable")
    wanted = math.log(len(values)) - math.log(alpha) - np.log(np.arange(1, len(values) + 1)) if len(values) else values
    passed = np.flatnonzero(values[order] >= wanted)
    return sorted(order[: passed[-1] + 1].tolist()) if passed.size else []


def e_holm(log_e: ArrayLike) -> Floats:
    """M3: adjusted log e-values, shape (K,); rejecting those >= log(1/alpha) keeps the family-wise error at alpha.

    The closure of the mean of e-values, which is an e-value under any dependence (Vovk & Wang 2021, section 5):
    e*_i = min_j (E_i + the sum of the j smallest others)/(j + 1). Current values; never above E_i, and never
    weaker than e-Bonferroni. Raises ValueError for NaN or another shape.
    """
    values = _checked(log_e)
    adjusted = np.empty_like(values)
    for i, own in enumerate(values):
        others = np.sort(np.delete(values, i))
        sums = np.logaddexp.accumulate(np.concatenate([[own], others]))
        adjusted[i] = (sums - np.log(np.arange(1, len(values) + 1))).min()
    return adjusted


def anytime_p(peak_log_e: ArrayLike) -> Floats:
    """M4: ``min(1, 1/sup E)``, valid at every stopping time by Ville's inequality. Shape as given."""
    return np.exp(-np.maximum(_checked(np.atleast_1d(peak_log_e)), 0.0)).reshape(np.shape(peak_log_e))


def holm(p: ArrayLike) -> Floats:
    """Adjusted p-values, family-wise, any dependence (Holm 1979): reject those <= alpha. Shape (K,)."""
    return _step(p, lambda rank, k: k - rank, down=True)


def benjamini_yekutieli(p: ArrayLike) -> Floats:
    """Adjusted p-values, false discovery rate, any dependence (Benjamini & Yekutieli 2001). Shape (K,).

    Plain Benjamini-Hochberg, without the factor sum 1/k, needs independent or positively dependent tests.
    """
    return _step(p, lambda rank, k: k * np.sum(1.0 / np.arange(1, k + 1)) / (rank + 1.0), down=False)


def spent_alpha(alpha: float, j: int) -> float:
    """The level of the j-th experiment, 6 alpha/(pi^2 j^2): over all experiments ever they sum to alpha (R16).

    Raises ValueError unless 0 < alpha < 1 and j >= 1.
    """
    _require_level(alpha)
    if j < 1:
        raise ValueError(f"experiments are counted from 1, so j must not be {j!r}")
    return 6.0 * alpha / (math.pi * j) ** 2


def _step(p: ArrayLike, factor: Callable[[Floats, int], Floats], *, down: bool) -> Floats:
    """Sorted p-values times their factor, made monotone from the smallest up or from the largest down."""
    values = _checked(p)
    if not ((values >= 0.0) & (values <= 1.0)).all():
        raise ValueError("p must lie in [0, 1]")
    order = np.argsort(values, kind="stable")
    scaled = values[order] * factor(np.arange(len(values), dtype=np.float64), len(values))
    steps = np.maximum.accumulate(scaled) if down else np.minimum.accumulate(scaled[::-1])[::-1]
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def _checked(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or np.isnan(array).any():
        raise ValueError("values must be 1-d and must not be NaN")
    return array


def _require_level(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"the level must lie strictly between 0 and 1, not {alpha!r}")
