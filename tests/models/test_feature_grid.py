"""Raw measurements become request values: converted, on the grid, and never NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.flight_delay.features import COLUMN, FEATURES, SCHEDULE, WEATHER, on_grid

if TYPE_CHECKING:
    from models.flight_delay.features import Feature


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("temp", 39.02, 39),
        ("wind_speed", 10.35702, 9),
        ("wind_speed", 1048.36058, 10),
        ("precip", 0.03, 3),
        ("visib", 0.06, 0.0625),
        ("visib", 0.12, 0.125),
        ("pressure", 1012.4, 1012),
    ],
)
def test_a_measurement_is_converted_and_rounded(name: str, raw: float, value: float) -> None:
    assert on_grid(np.array([raw]), FEATURES[COLUMN[name]]).tolist() == [value]


@pytest.mark.parametrize("feature", WEATHER, ids=lambda feature: feature.name)
def test_missing_weather_has_a_stand_in(feature: Feature) -> None:
    assert on_grid(np.array([np.nan]), feature).tolist() == [feature.missing]


@pytest.mark.parametrize("feature", SCHEDULE, ids=lambda feature: feature.name)
def test_a_missing_schedule_is_an_error(feature: Feature) -> None:
    with pytest.raises(ValueError, match=f"{feature.name} is missing in 1 rows"):
        on_grid(np.array([5.0, np.nan]), feature)
