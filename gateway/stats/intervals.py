"""Confidence sequences for the overlap-weighted effect (D3): intervals that hold at every n at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.stats.bands import banded_boundary
from gateway.stats.sequences import gamma_exponential_boundary, normal_boundary, normal_rho, one_sided_rho

Method = Literal["exact", "asymptotic"]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate of the effect on g with its confidence bounds; always -1 <= lower <= upper <= 1."""

    estimate: float
    lower: float
    upper: float


def overlap_interval(
    sum_psi: float,
    sum_h: float,
    v: float,
    *,
    alpha: float,
    v_opt: float,
    method: Method = "exact",
    v_by_range: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Interval:
    """``(sum psi +- u(v)) / sum h``, clipped to [-1, 1]: covers ``sum h_i tau_i / sum h_i`` at all n at once.

    ``psi_i - h_i tau_i`` are martingale differences in an interval of width <= 1, and ``v`` is the sum of
    ``(psi_i - h_i t_i)^2`` with t_i any guess in [-1, 1] made before unit i.

    exact       alpha/2 on each side: miscoverage at any n is at most alpha, from the first unit on. With
                ``v_by_range``, v split by the range that psi had below and above its prediction, u is the
                banded boundary of `bands` on each side; without, B2 with c = 1 (Howard et al. 2021,
                theorem 4), which is never narrower.
    asymptotic  u = B1 two-sided (Waudby-Smith et al. 2024, Annals of Statistics 52:2380): narrower, and
                valid as the sample grows; label it so.

    ``v_opt`` is the intrinsic time at which the interval should be tightest. It must be fixed in advance:
    a v_opt taken from the same data voids the guarantee. Without information (sum_h = 0) the answer is
    [-1, 1] around 0. Raises ValueError for alpha outside (0, 1), v_opt <= 0 or an unknown method.
    """
    if method == "exact":
        rho = one_sided_rho(v_opt, alpha / 2.0)
        if v_by_range is None:
            lower = upper = gamma_exponential_boundary(v, alpha / 2.0, rho=rho)
        else:
            lower, upper = (banded_boundary(part, alpha / 2.0, rho=rho) for part in v_by_range)
    elif method == "asymptotic":
        lower = upper = normal_boundary(v, alpha, rho=normal_rho(v_opt, alpha))
    else:
        raise ValueError(f"method must be 'exact' or 'asymptotic', not {method!r}")
    if sum_h <= 0.0:
        return Interval(0.0, -1.0, 1.0)
    return Interval(_ratio(sum_psi, sum_h), _ratio(sum_psi - lower, sum_h), _ratio(sum_psi + upper, sum_h))


def suggested_v_opt(effect: float, variance: float = 0.0625) -> float:
    """``10 variance^2 / effect^2``: about the intrinsic time at which an effect of this size is decided.

    The decision takes ``sum h`` of about 10 variance/effect^2 (L1 with the price of looking all the time),
    and v grows by ``h variance`` a unit, whatever the split. ``variance`` is that of g, guessed in advance:
    p(1-p) of the champion's past rate for 0/1 outcomes; without knowledge an sd of 1/4. Simulated, a v_opt
    four times too small costs about 3 % in sample size, four times too large about 15 to 20 %.

    Units: ``effect`` in units of g. Raises ValueError unless both are positive and finite.
    """
    if not (0.0 < effect < math.inf and 0.0 < variance < math.inf):
        raise ValueError(f"effect and variance must be positive and finite, not {effect!r}, {variance!r}")
    return 10.0 * (variance / effect) ** 2


def _ratio(numerator: float, denominator: float) -> float:
    """``numerator/denominator`` clipped to [-1, 1]; never overflows, however small the denominator."""
    if abs(numerator) >= denominator:
        return 1.0 if numerator > 0.0 else -1.0
    return numerator / denominator
