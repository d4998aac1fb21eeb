"""From an outcome to g in [0, 1]: bounded scores for counts, heavy tails, ranks, ratios and limits.

Any function of the outcome that was fixed before the unit's coin is a valid g (`bets`): the test is then exact for
the effect *on g*, without any assumption on tails, ties or dispersion. Every function here is pure, vectorised
over n units, refuses NaN, and returns float64 of shape (n,) within its declared bounds [0, 1]; bigger g means
bigger y, so where smaller is better the caller folds 1 - g (rule R8).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


def count_score(y: ArrayLike, cap: float) -> Floats:
    """``min(y, cap)/cap`` for counts and other amounts y >= 0 (tokens, retries, revenue); inf counts as the cap.

    ``cap`` comes from before the experiment, about the 99.9 % quantile. Raises ValueError for y < 0, NaN, or a
    cap that is not positive and finite.
    """
    if not 0.0 < cap < math.inf:
        raise ValueError(f"cap must be positive and finite, not {cap!r}")
    values = _numbers(y)
    if (values < 0.0).any():
        raise ValueError("y must not be negative")
    return np.asarray(np.minimum(values, cap) / cap, dtype=np.float64)


def winsorised_score(y: ArrayLike, low: float, high: float) -> Floats:
    """``(clip(y, low, high) - low)/(high - low)``: the mean with its tails drawn in to past quantiles.

    The estimand is the effect on the clipped value. +-inf counts as the bound. Raises ValueError for NaN and unless
    low < high are finite and so is their difference.
    """
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(f"low and high must be finite and in order, not {low!r}, {high!r}")
    return np.asarray(np.clip((np.clip(_numbers(y), low, high) - low) / (high - low), 0.0, 1.0), dtype=np.float64)


def exceedance(y: ArrayLike, limit: ArrayLike) -> Floats:
    """1 where y > limit, else 0. ``limit``: one number, or one per unit. A time-out is y = inf: it exceeds.

    Raises ValueError for NaN in either.
    """
    return np.asarray(_numbers(y) > _numbers(limit), dtype=np.float64)


def ratio_score(
    numerator: ArrayLike, denominator: ArrayLike, *, ratio: float, numerator_cap: float, denominator_cap: float
) -> Floats:
    """The linearised ratio ``N - ratio D`` of one closed unit, rescaled from [-ratio cap_D, cap_N] to [0, 1].

    ``ratio`` is the champion's past sum N / sum D, frozen in the epoch (Deng, Knoblich & Lu 2018, KDD; one
    closed-window vote per unit). The estimand is the effect on N - ratio D; where the challenger moves D by d,
    an error e of ``ratio`` biases it by e d.

    Raises ValueError unless 0 <= N <= numerator_cap and 0 <= D <= denominator_cap for every unit, ratio >= 0, and
    the caps are positive; everything finite. Values beyond a cap are refused, not clipped: reject and count them.
    """
    if not (0.0 <= ratio < math.inf and 0.0 < numerator_cap < math.inf and 0.0 < denominator_cap < math.inf):
        raise ValueError(f"ratio and caps must be finite, not {ratio!r}, {numerator_cap!r}, {denominator_cap!r}")
    top, bottom = _numbers(numerator), _numbers(denominator)
    if not (((top >= 0.0) & (top <= numerator_cap)).all() and ((bottom >= 0.0) & (bottom <= denominator_cap)).all()):
        raise ValueError("numerator and denominator must lie between 0 and their caps")
    low = ratio * denominator_cap
    return np.asarray(np.clip((top - ratio * bottom + low) / (numerator_cap + low), 0.0, 1.0), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Reference:
    """A frozen sample of past champion values: what `ranks` compares with.

    ``sample`` is sorted. ``epoch`` is the number of units folded when it was frozen; units folded from then on may
    be scored with it, earlier ones must not be. Make one with `freeze`, replace it with `refreshed`.
    Raises ValueError for an empty or unsorted sample, NaN, or a negative epoch.
    """

    sample: tuple[float, ...]
    epoch: int = 0

    def __post_init__(self) -> None:
        values = np.array(self.sample, dtype=np.float64)
        if values.size == 0 or np.isnan(values).any() or (values[1:] < values[:-1]).any():
            raise ValueError("sample must hold numbers in ascending order")
        if self.epoch < 0:
            raise ValueError(f"epoch must not be negative, not {self.epoch!r}")

    @classmethod
    def freeze(cls, values: ArrayLike, *, epoch: int = 0, size: int = 500) -> Reference:
        """The last ``size`` of the champion's past values, in the order they were folded."""
        if size < 1:
            raise ValueError(f"size must be positive, not {size!r}")
        return cls(tuple(np.sort(_numbers(values)[-size:]).tolist()), epoch)

    def refreshed(self, values: ArrayLike, *, epoch: int, size: int = 500) -> Reference:
        """A new reference at the start of a later epoch. Raises ValueError unless ``epoch`` is later."""
        if epoch <= self.epoch:
            raise ValueError(f"a reference may be refreshed only at a later epoch than {self.epoch}, not {epoch!r}")
        return self.freeze(values, epoch=epoch, size=size)

    def ranks(self, y: ArrayLike) -> Floats:
        """Mid-rank in [0, 1]: the share of the sample below y plus half the share equal to y.

        The effect on it is, up to the sample's error, P(Y1 > Y0) + P(Y1 = Y0)/2 - 1/2 against the frozen champion
        (Mann-Whitney). Ties, integers and +-inf are no special cases. Raises ValueError for NaN.
        """
        values, sample = _numbers(y), np.array(self.sample)
        below = np.searchsorted(sample, values, side="left")
        up_to = np.searchsorted(sample, values, side="right")
        return np.asarray((below + up_to) / (2.0 * len(sample)), dtype=np.float64)

    def state(self) -> dict[str, Any]:
        """Plain list and int; exact round trip (JSON needs finite values)."""
        return {"sample": list(self.sample), "epoch": self.epoch}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Reference:
        """Inverse of `state`. Raises ValueError for a broken sample."""
        return cls(tuple(float(value) for value in state["sample"]), int(state["epoch"]))


def _numbers(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if np.isnan(array).any():
        raise ValueError("values must not be NaN")
    return array
