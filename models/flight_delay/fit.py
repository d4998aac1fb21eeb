"""The recipes: what is fitted to the first half of the year, and with which settings.

Both recipes are fixed down to the seed and run on one thread, so that a second training gives the same
parameters. What comes out is plain numbers and one LightGBM booster; turning them into ONNX is the
business of ``export``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import lightgbm as lgb
import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from .features import CARRIERS, COLUMN, NAMES, ORIGINS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .replay import Replay

TWIN_SEED = 0
DISTANCE_BAND_MILES = 250
DISTANCE_BANDS = 20

LINEAR = ("hour", "minute", "weekday", "month", "distance")
ONE_HOT = {"carrier": len(CARRIERS), "origin": len(ORIGINS)}
LOGISTIC_SETTINGS = {"C": 1.0, "solver": "lbfgs", "max_iter": 1000, "tol": 1e-6}

# A tree cannot continue a trend past the last month it saw, so the boosted model goes without.
BOOSTED_INPUTS = tuple(name for name in NAMES if name != "month")
BOOSTED_ROUNDS = 200
BOOSTED_SETTINGS = {
    "objective": "binary",
    "num_leaves": 31,
    "learning_rate": 0.05,
    "min_data_in_leaf": 20,
    "seed": 0,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "use_missing": False,
    "verbosity": -1,
}


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """A logistic regression in raw units: log-odds = intercept + slopes + one offset per code."""

    intercept: float
    slopes: NDArray[np.float64]
    offsets: dict[str, NDArray[np.float64]]


def fit_logistic(flights: Replay) -> Logistic:
    """Schedule only: numbers standardised, carrier and origin one-hot, ridge penalty."""
    linear = flights.features[:, [COLUMN[name] for name in LINEAR]].astype(np.float64)
    mean, deviation = linear.mean(axis=0), linear.std(axis=0)
    indicators = [_one_hot(flights.features[:, COLUMN[name]], size) for name, size in ONE_HOT.items()]
    design = np.hstack([(linear - mean) / deviation, *indicators])
    with threadpool_limits(1):
        model = LogisticRegression(**LOGISTIC_SETTINGS).fit(design, flights.late)
    standardised, *offsets = np.split(model.coef_[0], np.cumsum([len(LINEAR), *ONE_HOT.values()])[:-1].tolist())
    slopes = standardised / deviation
    return Logistic(
        intercept=float(model.intercept_[0] - slopes @ mean),
        slopes=slopes,
        offsets=dict(zip(ONE_HOT, offsets, strict=True)),
    )


def fit_twin(flights: Replay) -> Logistic:
    """The same recipe on a bootstrap sample: a challenger that is no better and no worse."""
    rows = np.random.default_rng(TWIN_SEED).integers(0, len(flights), len(flights))
    return fit_logistic(flights.take(rows))


def fit_boosted(flights: Replay) -> lgb.Booster:
    """Schedule and weather: gradient-boosted trees."""
    inputs = flights.features[:, [COLUMN[name] for name in BOOSTED_INPUTS]]
    data = lgb.Dataset(inputs, label=flights.late, feature_name=list(BOOSTED_INPUTS))
    return lgb.train(BOOSTED_SETTINGS, data, num_boost_round=BOOSTED_ROUNDS)


def fit_distance_bands(flights: Replay) -> NDArray[np.float64]:
    """How far the log-odds of each distance band lie from those of all flights."""
    band = (flights.features[:, COLUMN["distance"]] // DISTANCE_BAND_MILES).astype(np.intp)
    rate = flights.late.mean()
    seen = np.bincount(band, minlength=DISTANCE_BANDS)
    late = np.bincount(band, weights=flights.late, minlength=DISTANCE_BANDS)
    smoothed = (late + 100 * rate) / (seen + 100)
    offsets: NDArray[np.float64] = np.log(smoothed / (1 - smoothed)) - np.log(rate / (1 - rate))
    return offsets


def _one_hot(codes: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    indicators: NDArray[np.float64] = (codes[:, None] == np.arange(size)).astype(np.float64)
    return indicators
