"""The one gate for units (z, pi, g): whatever passes is finite and in range."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


def checked_units(z: ArrayLike, pi: ArrayLike, g: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """The arguments as float arrays of shape (n,).

    Raises ValueError unless z holds booleans (or 0 and 1), 0 < pi < 1, 0 <= g <= 1 and all are 1-d of one length.
    """
    arms = np.asarray(z)
    if arms.dtype != np.bool_ and not np.isin(arms, (0, 1)).all():
        raise ValueError("z must hold booleans (or 0 and 1)")
    z_ = arms.astype(np.float64)
    pi_ = np.asarray(pi, dtype=np.float64)
    g_ = np.asarray(g, dtype=np.float64)
    if z_.ndim != 1 or not z_.shape == pi_.shape == g_.shape:
        raise ValueError(f"z, pi and g must be 1-d of one length, not {z_.shape}, {pi_.shape}, {g_.shape}")
    # Written so that NaN fails: every comparison with NaN is false.
    if not ((pi_ > 0.0) & (pi_ < 1.0)).all():
        raise ValueError("pi must lie strictly between 0 and 1")
    if not ((g_ >= 0.0) & (g_ <= 1.0)).all():
        raise ValueError("g must lie in [0, 1]")
    return z_, pi_, g_
