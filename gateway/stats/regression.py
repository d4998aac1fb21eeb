"""CUPED inside D1: a guess m(x) for each unit from what was known before its coin.

psi = (Z - pi)(g - m) has mean h tau for *any* m that is fixed before the coin, so a regression of past outcomes
on covariates x that precede the assignment may be as wrong as it likes: it changes how fast evidence grows
(the residual variance takes the place of the variance of g), never its validity. What is fixed before the coin is
x itself and, per bet epoch, the coefficients (Deng et al. 2013, WSDM, for the idea; Lindon, Ham, Tingley & Bojinov
2022 for anytime-valid regression). A covariate measured after the assignment voids everything: the caller's duty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

MAX_COVARIATES: Final = 4
MAX_VALUE: Final = 1e9
_RIDGE: Final = 10.0
"""The penalty weighs as much as ten units in which the covariates explained nothing."""
_MARGIN: Final = 1 / 32
"""m(x) stays in [m/32, 1 - (1 - m)/32] around the pooled mean m: away from 0 and 1, where stakes would vanish."""


class Regression:
    """Sums for a ridge regression of g on p <= 4 covariates, and its coefficients as of the last epoch start.

    Raises ValueError unless 1 <= p <= 4.
    """

    __slots__ = ("_beta", "_centre", "_level", "_n", "_offset", "_p", "_sums")

    def __init__(self, p: int) -> None:
        if not 1 <= p <= MAX_COVARIATES:
            raise ValueError(f"there must be 1 to {MAX_COVARIATES} covariates, not {p!r}")
        self._p = p
        self._n = 0
        self._offset = np.zeros(p)
        self._sums = np.zeros(p + 1 + p * p + p)
        self._beta, self._centre, self._level = np.zeros(p), np.zeros(p), 0.5

    @property
    def p(self) -> int:
        return self._p

    def checked(self, x: ArrayLike | None, n: int) -> Floats:
        """Covariates of n units as floats, shape (n, p). Raises ValueError unless finite and within +-1e9."""
        x_ = np.asarray([] if x is None else x, dtype=np.float64)
        if x_.shape != (n, self._p) and not (n == 0 and x_.size == 0):
            raise ValueError(f"x must have the shape {(n, self._p)}, not {x_.shape}")
        if not (np.abs(x_) <= MAX_VALUE).all():
            raise ValueError("x must be finite and lie within +-1e9")
        return x_.reshape(n, self._p)

    def advance(
        self, x: Floats, g: Floats, starts: NDArray[np.intp], lengths: NDArray[np.intp], pooled: Floats
    ) -> Floats:
        """Fold n units and return their guesses m(x), shape (n,), with coefficients frozen per epoch.

        ``starts`` are the offsets at which epochs begin, ``lengths`` the units of each epoch with the open one
        first, ``pooled`` the pooled mean of each of them.
        """
        if self._n == 0:
            self._offset = x[0].copy()
        d = x - self._offset
        outer = (d[:, :, None] * d[:, None, :]).reshape(len(d), -1)
        steps = np.concatenate([d, g[:, None], outer, d * g[:, None]], axis=1)
        path = np.add.accumulate(np.concatenate([self._sums[None], steps]), axis=0)
        fits = [self._fit(path[start], self._n + int(start)) for start in starts]
        beta = np.repeat([self._beta, *(fit[0] for fit in fits)], lengths, axis=0)
        centre = np.repeat([self._centre, *(fit[1] for fit in fits)], lengths, axis=0)
        level = np.repeat([self._level, *pooled[1:]], lengths)
        if fits:
            (self._beta, self._centre), self._level = fits[-1], float(pooled[-1])
        self._n += len(g)
        self._sums = path[-1].copy()
        guess = level.copy()
        for j in range(self._p):
            guess += (d[:, j] - centre[:, j]) * beta[:, j]
        clipped: Floats = np.clip(guess, level * _MARGIN, 1.0 - (1.0 - level) * _MARGIN)
        return clipped

    def state(self) -> dict[str, Any]:
        """Plain lists, ints and floats; exact round trip."""
        arrays = {"offset": self._offset, "sums": self._sums, "beta": self._beta, "centre": self._centre}
        return {"n": self._n, "level": self._level, **{name: array.tolist() for name, array in arrays.items()}}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Regression:
        """Inverse of `state`. Raises ValueError when a length does not fit."""
        new = cls(len(state["beta"]))
        new._n, new._level = int(state["n"]), float(state["level"])
        for name in ("offset", "sums", "beta", "centre"):
            array = np.array(state[name], dtype=np.float64)
            if array.shape != getattr(new, f"_{name}").shape:
                raise ValueError(f"the state holds {array.size} numbers of {name}")
            setattr(new, f"_{name}", array)
        return new

    def _fit(self, sums: Floats, n: int) -> tuple[Floats, Floats]:
        """Ridge coefficients and centre of the covariates; no slope before 4 (p + 1) units."""
        p = self._p
        if n < 4 * (p + 1):
            return np.zeros(p), np.zeros(p)
        centre, level = sums[:p] / n, sums[p] / n
        covariance = sums[p + 1 : p + 1 + p * p].reshape(p, p) / n - centre[:, None] * centre
        shared = sums[p + 1 + p * p :] / n - centre * level
        penalty = np.maximum(covariance.diagonal(), 0.0) * (_RIDGE / n + 1e-9) + 1e-12
        beta = np.linalg.solve(covariance + np.diag(penalty), shared)
        return (beta if np.isfinite(beta).all() else np.zeros(p)), centre
