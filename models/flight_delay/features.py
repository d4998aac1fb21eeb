"""The request every model here accepts: which number stands where, in which unit.

Champion and challenger read one vector, so a gateway can send the same request to either. Every value
sits on a coarse binary grid (whole numbers, sixteenths of a mile for visibility): it is exact in
float32, it stays short in JSON, and the models are trained on the very numbers they are asked about.
Missing weather has a fixed stand-in, because a request must not carry NaN.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MPH_PER_KNOT = 1.15078

CARRIERS = ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV")
ORIGINS = ("EWR", "JFK", "LGA")


@dataclass(frozen=True, slots=True)
class Feature:
    """One position of the request vector.

    A raw value becomes ``round(raw * factor / step) * step``, or ``missing`` when there is none;
    ``missing`` is None where the data set always has a value. ``limit`` is the largest raw value
    taken for a measurement rather than a typing error.
    """

    name: str
    unit: str
    missing: float | None = None
    factor: float = 1.0
    step: float = 1.0
    limit: float | None = None


SCHEDULE = (
    Feature("hour", "scheduled departure, local hour, 0-23"),
    Feature("minute", "scheduled departure, minute of the hour, 0-59"),
    Feature("weekday", "0 Monday to 6 Sunday"),
    Feature("month", "1 January to 12 December"),
    Feature("distance", "miles"),
    Feature("carrier", "position in carriers"),
    Feature("origin", "position in origins"),
)

WEATHER = (
    Feature("temp", "degrees Fahrenheit", missing=56),
    Feature("dewp", "dew point, degrees Fahrenheit", missing=42),
    Feature("humid", "relative humidity, percent", missing=60),
    Feature("wind_dir", "degrees, 360 north, 0 calm or variable", missing=0),
    Feature("wind_speed", "knots", missing=10, factor=1 / MPH_PER_KNOT, limit=200),
    Feature("wind_gust", "knots, 0 no gust reported", missing=0, factor=1 / MPH_PER_KNOT),
    Feature("precip", "hundredths of an inch in the hour", missing=0, factor=100),
    Feature("pressure", "sea level, hectopascal", missing=1018),
    Feature("visib", "miles, in sixteenths, at most 10", missing=10, step=1 / 16),
)

FEATURES = SCHEDULE + WEATHER
NAMES = tuple(feature.name for feature in FEATURES)
COLUMN = {name: column for column, name in enumerate(NAMES)}


def on_grid(raw: NDArray[np.float64], feature: Feature) -> NDArray[np.float64]:
    """Convert, round and fill one raw column as its feature says."""
    unknown = np.isnan(raw)
    if feature.limit is not None:
        unknown |= raw > feature.limit
    value = np.round(raw * feature.factor / feature.step) * feature.step
    if feature.missing is None:
        if unknown.any():
            raise ValueError(f"{feature.name} is missing in {int(unknown.sum())} rows, and has no stand-in")
        return value
    return np.where(unknown, feature.missing, value)


def describe() -> str:
    """The vector as a JSON document, for clients that build requests."""
    document = {
        "tensor": "features",
        "dtype": "float32",
        "shape": ["batch", len(FEATURES)],
        "features": [
            {"index": index, "name": feature.name, "unit": feature.unit, "missing": feature.missing}
            for index, feature in enumerate(FEATURES)
        ],
        "carriers": list(CARRIERS),
        "origins": list(ORIGINS),
    }
    return json.dumps(document, indent=2) + "\n"
