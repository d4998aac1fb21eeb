"""Time-uniform boundaries for one running sum, in closed form or by one root.

A sum ``s`` with intrinsic time ``v`` (predictable variance, or the sum of squared prediction errors)
turns into ``log E(s, v)``: under the null ``E`` is a nonnegative supermartingale that starts at 1, so by
Ville's inequality ``P(some time: log E >= log(1/alpha)) <= alpha``. The boundary ``u(v)`` is the ``s``
at which ``log E`` reaches ``log(1/alpha)``; ``|s| >= u(v)`` may be looked at after every observation.

B1 normal mixture (sub-Gaussian sums, or asymptotically any sum): Robbins 1970; Howard, Ramdas, McAuliffe,
Sekhon 2021, Annals of Statistics 49:1055, propositions 5 and 6.
B2 gamma-exponential mixture (bounded increments with their empirical variance): the same paper,
proposition 9 with the empirical-Bernstein process of its theorem 4.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import special
from scipy.optimize import brentq

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

_TINY = 1e-280
"""Below this the regularised incomplete gamma function nears the end of float64."""
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def normal_rho(v_opt: float, alpha: float) -> float:
    """Mixture precision of B1 whose two-sided boundary is about the tightest at ``v == v_opt``.

    Howard et al. 2021, section 3.5, in the elementary approximation that confseq uses (within 1 % of the
    Lambert-W optimum). For a one-sided boundary, B1 or B2, pass ``2 * alpha``: `one_sided_rho`.

    Units: ``v_opt`` and the result are in units of ``s**2``.
    Raises ValueError unless v_opt > 0 and 0 < alpha < 1.
    """
    _require_positive("v_opt", v_opt)
    _require_level(alpha)
    log_inverse = math.log(1.0 / alpha)
    return v_opt / (2.0 * log_inverse + math.log1p(2.0 * log_inverse))


def one_sided_rho(v_opt: float, alpha: float) -> float:
    """`normal_rho` for the one-sided mixtures at level ``alpha`` (B1 one-sided, B2).

    Raises ValueError unless v_opt > 0 and 0 < alpha < 1/2.
    """
    return normal_rho(v_opt, 2.0 * alpha)


def normal_log_e(s: ArrayLike, v: ArrayLike, *, rho: float) -> NDArray[np.float64]:
    """B1 two-sided: ``1/2 log(rho/(v+rho)) + s^2/(2(v+rho))``.

    Shapes: ``s`` and ``v`` broadcast. Raises ValueError unless rho > 0 and v >= 0.
    """
    s_, v_ = _checked(s, v, rho)
    return np.asarray(0.5 * s_ * (s_ / (v_ + rho)) - 0.5 * np.log1p(v_ / rho), dtype=np.float64)


def normal_boundary(v: float, alpha: float, *, rho: float) -> float:
    """B1 two-sided: ``sqrt((v+rho)(log(1+v/rho) + 2 log(1/alpha)))``, in units of ``s``.

    Raises ValueError unless rho > 0, v >= 0, 0 < alpha < 1.
    """
    _checked(0.0, v, rho)
    _require_level(alpha)
    return math.sqrt(v + rho) * math.sqrt(math.log1p(v / rho) + 2.0 * math.log(1.0 / alpha))


def normal_log_e_one_sided(s: ArrayLike, v: ArrayLike, *, rho: float) -> NDArray[np.float64]:
    """B1 one-sided: ``1/2 log(4 rho/(v+rho)) + z^2/2 + log Phi(z)`` with z = s/sqrt(v+rho).

    Evidence for a positive drift (half-normal mixture). Shapes: ``s`` and ``v`` broadcast.
    Raises ValueError unless rho > 0 and v >= 0.
    """
    s_, v_ = _checked(s, v, rho)
    z = s_ / np.sqrt(v_ + rho)
    below = np.minimum(z, 0.0)
    above = np.maximum(z, 0.0)
    # z^2/2 and log Phi(z) cancel for negative z; the scaled complementary error function is their sum.
    mills = np.where(
        z < 0.0,
        np.log(special.erfcx(-below / math.sqrt(2.0))) - math.log(2.0),
        0.5 * above * above + special.log_ndtr(above),
    )
    return np.asarray(math.log(2.0) - 0.5 * np.log1p(v_ / rho) + mills, dtype=np.float64)


def normal_boundary_one_sided(v: float, alpha: float, *, rho: float) -> float:
    """The ``s`` at which `normal_log_e_one_sided` equals ``log(1/alpha)``, in units of ``s``.

    Raises ValueError unless rho > 0, v >= 0, 0 < alpha < 1.
    """
    _checked(0.0, v, rho)
    _require_level(alpha)
    return _crossing(lambda s: float(normal_log_e_one_sided(s, v, rho=rho)), alpha, math.sqrt(v + rho))


def gamma_exponential_log_e(s: ArrayLike, v: ArrayLike, *, rho: float, c: float = 1.0) -> NDArray[np.float64]:
    """B2: evidence for a positive drift of a sum whose increments live in an interval of width ``c``.

    ``v`` is the sum of squared differences between each increment and a prediction made before it that
    lies in the same interval. With r = rho/c^2, a = v/c^2 + r, x = s/c + a (s/c = y):
    ``r log r - r - lgamma(r) - log P(r,r) + lgamma(a) - a log x + x + log P(a,x)``. The last four terms
    are ``log integral_0^1 exp(x t)(1-t)^(a-1) dt`` and are computed as that (see `_log_gamma_integral`):
    written out they cancel to one digit in a hundred million at v = 1e8.

    Shapes: ``s`` and ``v`` broadcast. Units: ``s`` and ``c`` alike; ``v`` and ``rho`` their square.
    Raises ValueError unless rho > 0, c > 0, v >= 0.
    """
    _require_positive("c", c)
    s_, v_ = _checked(s, v, rho)
    r = rho / c**2
    start = float(_log_gamma_integral(np.asarray(r), np.asarray(0.0)))
    return np.asarray(_log_gamma_integral(v_ / c**2 + r, s_ / c) - start, dtype=np.float64)


def gamma_exponential_boundary(v: float, alpha: float, *, rho: float, c: float = 1.0) -> float:
    """The ``s`` at which `gamma_exponential_log_e` equals ``log(1/alpha)``, in units of ``s``.

    Raises ValueError unless rho > 0, c > 0, v >= 0, 0 < alpha < 1.
    """
    _checked(0.0, v, rho)
    _require_positive("c", c)
    _require_level(alpha)
    r, a = rho / c**2, v / c**2 + rho / c**2
    offset = float(_log_gamma_height(np.asarray(a)) - _log_gamma_integral(np.asarray(r), np.asarray(0.0)))

    def log_e(y: float) -> float:
        return offset + a * (y / a - math.log1p(y / a)) + math.log(special.gammainc(a, a + y))

    return c * _crossing(log_e, alpha, math.sqrt(a) + 1.0)


def _log_gamma_integral(a: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """``log integral_0^1 exp((a+y) t)(1-t)^(a-1) dt = lgamma(a) - a log x + x + log P(a,x)``, x = a + y.

    With Stirling's remainder the large terms reduce to ``a (u - log(1+u))``, u = y/a, which is exact to
    about one unit in the last place of y. Far below the diagonal (E is tiny) P underflows; there the
    integral is Kummer's ``M(1, a+1, x)/a``, bounded and well conditioned, also for x <= 0.
    """
    a, y = np.broadcast_arrays(a, y)
    x = a + y
    inside = special.gammainc(a, np.maximum(x, 0.0))
    near = inside > _TINY
    u = np.where(near, y / a, 0.0)
    direct = _log_gamma_height(a) + a * (u - np.log1p(u)) + np.log(np.where(near, inside, 1.0))
    if near.all():
        return np.asarray(direct, dtype=np.float64)
    far = np.log(special.hyp1f1(1.0, np.where(near, 1.0, a) + 1.0, np.where(near, -1.0, x))) - np.log(a)
    return np.asarray(np.where(near, direct, far), dtype=np.float64)


def _log_gamma_height(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """``lgamma(a) - a log a + a`` without its cancellation for large a (Stirling's series)."""
    small = np.minimum(a, 1e3)
    exact = special.gammaln(small) - small * np.log(small) + small
    series = _HALF_LOG_2PI - 0.5 * np.log(a) + 1.0 / (12.0 * a) - 1.0 / (360.0 * a**3)
    return np.where(a < 1e3, exact, series)


def _crossing(log_e: Callable[[float], float], alpha: float, scale: float) -> float:
    """Root of ``log_e(s) = log(1/alpha)``: log_e rises in s, is <= 0 at s = 0 and unbounded above."""
    target = math.log(1.0 / alpha)
    high = scale * (1.0 + math.sqrt(2.0 * target))
    while log_e(high) < target:
        high *= 2.0
    return float(brentq(lambda s: log_e(s) - target, 0.0, high, xtol=1e-13 * high, rtol=1e-13))


def _checked(s: ArrayLike, v: ArrayLike, rho: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    _require_positive("rho", rho)
    s_ = np.asarray(s, dtype=np.float64)
    v_ = np.asarray(v, dtype=np.float64)
    if not (np.isfinite(s_).all() and np.isfinite(v_).all() and (v_ >= 0.0).all()):
        raise ValueError("s and v must be finite and v must not be negative")
    return s_, v_


def _require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} must be positive and finite, not {value!r}")


def _require_level(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"the level must lie strictly between 0 and 1, not {alpha!r}")
