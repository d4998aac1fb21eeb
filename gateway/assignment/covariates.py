"""Covariates: numbers known before assignment, read from request headers, by which estimates are sharpened (CUPED).

Whatever a client sends becomes a finite number within the bounds: a unit without one is no better or worse than the
middle, and none may weigh more than the ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.plan import CovariatePlan


@dataclass(frozen=True, slots=True)
class CovariateReader:
    """Reads one covariate."""

    header: bytes
    low: float
    high: float

    @classmethod
    def of(cls, plan: CovariatePlan) -> CovariateReader:
        return cls(plan.header.encode(), plan.low, plan.high)

    def read(self, headers: Mapping[bytes, bytes]) -> float:
        value = number(headers.get(self.header, b""))
        if not math.isfinite(value):
            return (self.low + self.high) / 2
        return min(max(value, self.low), self.high)


def number(text: bytes) -> float:
    """A decimal number as every language writes it, or NaN: underscores are Python's own."""
    try:
        return math.nan if b"_" in text else float(text)
    except ValueError:
        return math.nan
