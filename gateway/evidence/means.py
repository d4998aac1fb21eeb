"""The mean of an unbounded metric as information: an asymptotic confidence sequence, never a decision.

The overlap-weighted effect of D3 on the value itself, with the normal mixture boundary B1 (Waudby-Smith et al. 2024,
Annals of Statistics 52:2380): right under a changing split, and only as the sample grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.stats import normal_boundary, normal_rho

Floats = NDArray[np.float64]
V_OPT = 100.0  # of values in standard deviations: tightest after some hundred units in each arm


@dataclass(slots=True)
class MeanCell:
    """Sums of psi = (z - pi) y, y in standard deviations from a mean that was frozen before."""

    n0: int = 0
    n1: int = 0
    sum_psi: float = 0.0
    sum_h: float = 0.0
    v: float = 0.0

    def fold(self, z: Floats, pi: Floats, y: Floats) -> None:
        """Fold n units; shape (n,)."""
        psi, h = (z - pi) * y, pi * (1.0 - pi)
        # Left to right: how the stream is cut changes no bit.
        for name, steps in (("sum_psi", psi), ("sum_h", h), ("v", psi * psi)):
            setattr(self, name, float(np.add.accumulate(np.append(getattr(self, name), steps))[-1]))
        ones = int(z.sum())
        self.n0, self.n1 = self.n0 + len(z) - ones, self.n1 + ones

    def interval(self, alpha: float) -> tuple[float, float, float]:
        """Lower bound, estimate and upper bound, in standard deviations; infinite without units."""
        if not (self.n0 and self.n1):
            return -np.inf, 0.0, np.inf
        radius = normal_boundary(self.v, alpha, rho=normal_rho(V_OPT, alpha)) / self.sum_h
        estimate = self.sum_psi / self.sum_h
        return estimate - radius, estimate, estimate + radius

    def state(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> MeanCell:
        return cls(**state)
