"""Reading a replay: what comes back, and what is refused with a reason."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models.flight_delay import replay
from models.flight_delay.features import CARRIERS, COLUMN, NAMES, ORIGINS
from models.flight_delay.replay import ReplayError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def members() -> dict[str, Any]:
    with np.load(replay.DEFAULT_PATH, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_the_shipped_replay_has_sixteen_thousand_different_flights() -> None:
    flights = replay.load()
    assert len(flights) == 16_000
    assert len(np.unique(flights.flight)) == 16_000
    assert flights.features.dtype == np.float32
    assert flights.late.dtype == np.bool_
    assert 0.2 < flights.late.mean() < 0.3


def test_the_replay_is_from_the_second_half_of_the_year_and_in_no_order_of_time() -> None:
    month = replay.load().features[:, COLUMN["month"]]
    assert set(np.unique(month)) == {7, 8, 9, 10, 11, 12}
    assert set(np.unique(month[:500])) == {7, 8, 9, 10, 11, 12}


def test_segments_agree_with_the_name_of_the_flight() -> None:
    flights = replay.load()
    assert set(flights.origin) == set(ORIGINS)
    assert set(flights.carrier) <= set(CARRIERS)
    for name, origin, carrier in zip(flights.flight, flights.origin, flights.carrier, strict=True):
        assert name.startswith(carrier)
        assert name.split("-")[1] == origin


def test_a_shuffle_keeps_rows_together_and_depends_on_the_seed() -> None:
    flights = replay.load()
    one, same, other = flights.shuffled(1), flights.shuffled(1), flights.shuffled(2)
    assert one.flight.tolist() == same.flight.tolist() != other.flight.tolist()
    order = np.argsort(one.flight)
    np.testing.assert_array_equal(one.features[order], flights.features[np.argsort(flights.flight)])
    np.testing.assert_array_equal(one.late[order], flights.late[np.argsort(flights.flight)])


def test_saving_writes_the_same_bytes_again(tmp_path: Path) -> None:
    copies = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for copy in copies:
        replay.save(copy, replay.load())
    assert copies[0].read_bytes() == copies[1].read_bytes()


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "replay.npz"
    path.write_bytes(pickle.dumps({"features": [1.0]}))
    with pytest.raises(ReplayError, match=r"replay\.npz: not readable as plain arrays"):
        replay.load(path)


def test_pickled_objects_inside_an_archive_are_refused_unread(tmp_path: Path, members: dict[str, Any]) -> None:
    path = tmp_path / "replay.npz"
    np.savez(path, **{**members, "flight": np.array([{}, []], dtype=object)})
    with pytest.raises(ReplayError, match="not readable as plain arrays"):
        replay.load(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"late,features\n"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "replay.npz"
    path.write_bytes(content)
    with pytest.raises(ReplayError, match="not readable as plain arrays"):
        replay.load(path)


def test_a_truncated_replay_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "replay.npz"
    path.write_bytes(replay.DEFAULT_PATH.read_bytes()[:-1000])
    with pytest.raises(ReplayError, match="not readable as plain arrays"):
        replay.load(path)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "replay.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(ReplayError, match="a single array"):
        replay.load(path)


def test_another_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, features=np.zeros((1, 16), dtype=np.float32))
    with pytest.raises(ReplayError, match="it lacks late, flight"):
        replay.load(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"feature_names": np.array(NAMES[::-1])}, "features are not the ones"),
        ({"origins": np.array(ORIGINS[::-1])}, "origin codes are not the ones"),
        ({"features": np.zeros((16_000, 3), dtype=np.float32)}, r"float32\[16000, 3\]"),
        ({"features": np.zeros((16_000, 16))}, r"float64\[16000, 16\]"),
        ({"late": np.zeros(5, dtype=np.bool_)}, "one label and one name"),
        ({"features": np.full((16_000, 16), np.nan, dtype=np.float32)}, "NaN or infinite"),
        ({"features": np.full((16_000, 16), 99, dtype=np.float32)}, "carrier or origin outside"),
    ],
)
def test_an_archive_that_does_not_fit_the_models_is_refused(
    tmp_path: Path, members: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "replay.npz"
    np.savez(path, **{**members, **change})
    with pytest.raises(ReplayError, match=reason):
        replay.load(path)


def test_a_missing_file_stays_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replay.load(tmp_path / "replay.npz")
