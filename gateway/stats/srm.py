"""Sample-ratio mismatch: do as many units arrive in the challenger as the logged coins promise? (S2)

Under a sound coin, n1 (units of the challenger) grows by a Bernoulli(pi_i) at each unit given the past, and
``exp(eta n1 - sum_i log(1 - pi_i + pi_i e^eta))`` is a martingale of mean 1 for every tilt eta, under any
schedule of splits (Lindon & Malek 2022, NeurIPS, with the logged propensity in place of a fixed one). The
average over twelve tilts is an e-process: an alarm at ``log_e >= log(1/alpha)`` is false with probability
<= alpha, looked at after every unit. The state is a pair of integers per distinct pi: exactly mergeable.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike

_SIZES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_TILTS: Final = tuple(sign * size for size in _SIZES for sign in (1.0, -1.0))


class SampleRatio:
    """Counts of units and of challenger units per logged propensity.

    Count at the coin (every assignment) to test the assignment itself, and once more over units with an
    outcome to test missingness. Above two arms: one object per challenger, one against the rest, and
    `multiplicity.bonferroni_threshold`.
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[float, tuple[int, int]] = {}

    def add(self, pi: ArrayLike, z: ArrayLike) -> None:
        """Count units: ``pi`` in (0, 1) and ``z`` (challenger?) of shape (n,), or one ``pi`` for all.

        Raises ValueError for any other value or shape, before anything changed.
        """
        arms = np.atleast_1d(np.asarray(z))
        if arms.ndim != 1 or not np.isin(arms, (0, 1)).all():
            raise ValueError("z must be a 1-d array of booleans (or 0 and 1)")
        shares = np.asarray(pi, dtype=np.float64)
        if shares.ndim > 0 and shares.shape != arms.shape:
            raise ValueError(f"pi and z must have one length, not {shares.shape} and {arms.shape}")
        if not ((shares > 0.0) & (shares < 1.0)).all():
            raise ValueError("pi must lie strictly between 0 and 1")
        distinct, index = np.unique(np.broadcast_to(shares, arms.shape), return_inverse=True)
        n = np.bincount(index, minlength=len(distinct))
        n1 = np.bincount(index[arms.astype(np.bool_)], minlength=len(distinct))
        for share, total, ones in zip(distinct.tolist(), n.tolist(), n1.tolist(), strict=True):
            self._add(share, total, ones)

    def add_counts(self, pi: float, n: int, n1: int) -> None:
        """Count ``n`` units assigned with propensity ``pi``, of which ``n1`` went to the challenger.

        Raises ValueError unless 0 < pi < 1 and 0 <= n1 <= n.
        """
        if not 0.0 < pi < 1.0:
            raise ValueError(f"pi must lie strictly between 0 and 1, not {pi!r}")
        if not 0 <= n1 <= n:
            raise ValueError(f"counts must satisfy 0 <= n1 <= n, not n1={n1!r}, n={n!r}")
        if n:
            self._add(float(pi), int(n), int(n1))

    @property
    def n(self) -> int:
        """Units counted."""
        return sum(n for n, _ in self._counts.values())

    @property
    def observed(self) -> int:
        """Units of the challenger."""
        return sum(n1 for _, n1 in self._counts.values())

    @property
    def expected(self) -> float:
        """Units that the coins promised to the challenger: ``sum_i pi_i``."""
        return math.fsum(n * pi for pi, (n, _) in self._counts.items())

    def log_e(self) -> float:
        """Natural log of the e-value against "every coin fell as logged"; 0 without data.

        The same counts give the same bits in whatever order they came: fsum rounds once, at the end.
        """
        exponents = np.array([eta * self.observed - self._cumulant(eta) for eta in _TILTS])
        top = float(exponents.max())
        return top + math.log(float(np.exp(exponents - top).mean()))

    def merge(self, other: SampleRatio) -> SampleRatio:
        """The counts of both as a new object; associative and commutative, an empty object is neutral."""
        merged = SampleRatio()
        for part in (self, other):
            for pi, (n, n1) in part._counts.items():
                merged._add(pi, n, n1)
        return merged

    def state(self) -> dict[str, list[list[float]]]:
        """``{"counts": [[pi, n, n1], ...]}``, sorted by pi; plain floats and ints, exact round trip."""
        return {"counts": [[pi, *self._counts[pi]] for pi in sorted(self._counts)]}

    @classmethod
    def restore(cls, state: Mapping[str, Iterable[Sequence[float]]]) -> SampleRatio:
        """Inverse of `state`. Raises ValueError when a count is out of range."""
        ratio = cls()
        for pi, n, n1 in state["counts"]:
            ratio.add_counts(pi, int(n), int(n1))
        return ratio

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SampleRatio) and self._counts == other._counts

    __hash__ = None  # type: ignore[assignment]

    def _cumulant(self, eta: float) -> float:
        """``sum_i log(1 - pi_i + pi_i e^eta)``."""
        return math.fsum(n * math.log1p(pi * math.expm1(eta)) for pi, (n, _) in self._counts.items())

    def _add(self, pi: float, n: int, n1: int) -> None:
        total, ones = self._counts.get(pi, (0, 0))
        self._counts[pi] = (total + n, ones + n1)
