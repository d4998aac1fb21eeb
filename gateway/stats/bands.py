"""B2 with the range that each increment really had: an exact boundary for sums of unequally bounded steps.

Let X_i = psi_i - h_i tau_i be a martingale difference and p_i a prediction of psi_i made before it. Only one
side of the range matters for each side of the interval: if psi_i - p_i >= -c_i with c_i known before unit i, then
for every lambda in [0, 1), c_i <= 1,

    exp(lambda (psi_i - h_i tau_i) - (psi_i - p_i)^2 f(lambda, c_i)),
    f(lambda, c) = (-log(1 - c lambda) - c lambda)/c^2,

has conditional mean at most 1. Proof: xi = lambda (psi_i - p_i) >= -lambda c_i > -1, so by Fan, Grama & Liu
(2015, lemma 4.1) exp(xi - (psi_i - p_i)^2 f) <= 1 + xi, whose mean is 1 + lambda (h_i tau_i - p_i)
<= exp(lambda (h_i tau_i - p_i)). Multiply by exp(lambda (p_i - h_i tau_i)). The product over i is a supermartingale;
so is any mixture over lambda. f grows with c, hence rounding c_i up to the next of ten fixed bands stays exact, and
ten sums V_b of (psi - p)^2, one per band, are all that any lambda needs: O(1) state, whatever the history of ranges.

With the mixture density of B2 at c = 1 (Howard et al. 2021, proposition 9) and everything in the last band this
*is* B2 with c = 1. The density is cut into a proper prior on a geometric grid of lambda, so the discrete
mixture is exact by itself and no quadrature error touches the guarantee.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

BANDS: Final = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)
"""Upper ends of the bands into which a range c in [0, 1] is rounded up."""

_EDGES: Final = np.array(BANDS)
_RATIO: Final = 1.1
_NODES: Final = np.exp(math.log(0.99) - math.log(_RATIO) * np.arange(180.0))[::-1].copy()
"""lambda from 4e-8 to .99. A sum near its boundary sits at lambda = 4/sqrt(V) with a spread of a quarter of it."""


def band_of(c: ArrayLike) -> NDArray[np.intp]:
    """Index of the first band that holds each range c >= 0; ranges above 1 by rounding count as 1."""
    index = np.searchsorted(_EDGES, np.asarray(c, dtype=np.float64), side="left")
    return np.minimum(index, len(BANDS) - 1)


def banded_log_e(s: ArrayLike, v: ArrayLike, *, rho: float) -> NDArray[np.float64]:
    """``log sum_j w_j exp(lambda_j s - sum_b v_b f(lambda_j, BANDS_b))``: evidence that the sum drifts upwards.

    ``v`` holds the sums of squared prediction errors per band, shape (..., len(BANDS)) over ``s`` of shape (...), for
    ranges *below* the prediction; for evidence of a downward drift pass ``-s`` and the sums by the range above it.
    Raises ValueError unless rho > 0 and every v >= 0 and finite.
    """
    height = _log_weights(_positive(rho)) - _penalty(v)
    return np.asarray(special.logsumexp(height + _NODES * np.asarray(s)[..., None], axis=-1), dtype=np.float64)


def banded_boundary(v: Sequence[float], alpha: float, *, rho: float) -> float:
    """The ``s`` > 0 at which `banded_log_e` reaches ``log(1/alpha)``, never rounded towards zero.

    log E is convex and increasing in s: Newton's method started to the right of the root falls onto it
    from the right. Raises ValueError unless 0 < alpha < 1, rho > 0 and every v >= 0 and finite.
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"the level must lie strictly between 0 and 1, not {alpha!r}")
    height = _log_weights(_positive(rho)) - _penalty(v)
    target = -math.log(alpha)
    s = float(((target - height) / _NODES).min())
    for _ in range(100):
        terms = height + _NODES * s
        top = float(terms.max())
        share = np.exp(terms - top)
        total = float(share.sum())
        step = (top + math.log(total) - target) * total / float(share @ _NODES)
        if step <= 1e-13 * s:
            break
        s -= step
    return s


def _penalty(v: ArrayLike) -> Floats:
    sums = np.asarray(v, dtype=np.float64)
    if sums.shape[-1:] != (len(BANDS),) or not (np.isfinite(sums).all() and (sums >= 0.0).all()):
        raise ValueError(f"v must hold {len(BANDS)} finite sums that are not negative")
    return np.asarray(sums @ _PENALTIES, dtype=np.float64)


def _penalties() -> Floats:
    """f(lambda, c) per band and node. -log(1-x) - x loses all digits for small x; its series does not."""
    c = _EDGES[:, None]
    x = c * _NODES
    series = x * x * (0.5 + x * (1 / 3 + x * (0.25 + x * (0.2 + x / 6))))
    return np.asarray(np.where(x < 1e-3, series, -np.log1p(-x) - x) / c**2, dtype=np.float64)


_PENALTIES: Final = _penalties()


@lru_cache(maxsize=256)
def _log_weights(rho: float) -> Floats:
    """Log mass that B2's density ~ (1-t)^(rho-1) exp(-rho(1-t)) on (0, 1) puts around each node; they sum to 1."""
    edges = np.concatenate([[0.0], np.sqrt(_NODES[1:] * _NODES[:-1]), [1.0]])
    survival = special.gammainc(rho, rho * (1.0 - edges))
    mass = np.maximum(-np.diff(survival), 1e-300)
    weights = np.log(mass / mass.sum())
    weights.setflags(write=False)
    return np.asarray(weights, dtype=np.float64)


def _positive(rho: float) -> float:
    if not (math.isfinite(rho) and rho > 0.0):
        raise ValueError(f"rho must be positive and finite, not {rho!r}")
    return rho
