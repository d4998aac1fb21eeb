"""The champion's own units with new coins: read from a real store, dealt anew, and never called better for long."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from gateway.assignment.ranges import whole
from gateway.errors import StoreError
from gateway.forecast.past import LEAST, LogError, read
from gateway.forecast.simulation import Runs, from_log
from gateway.forecast.trial import START_US
from gateway.release.stages import enter
from gateway.release.state import ReleaseState, StageRule
from gateway.store.open import open_store
from gateway.store.sqlite import SqliteStore
from tests.postgres import fresh_database, migrated, postgres
from tests.unit.forecast.logs import logged
from tests.unit.forecast.subjects import configured

__all__ = ["fresh_database", "migrated", "postgres"]


def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store with a log of 600 units, on either engine."""
    if request.param == "sqlite":
        return url(logged(tmp_path, 600))
    there: str = request.getfixturevalue("fresh_database")
    logged(tmp_path, 600, store=open_store(there))
    return there


def test_only_the_champions_units_come_back_in_order_with_their_values(store: str, tmp_path: Path) -> None:
    log = read(store, configured(tmp_path), None)
    assert (len(log), log.experiment) == (300, "exp")
    rng = np.random.default_rng(1)
    first = log.arrive(rng, 200, _state(), START_US)
    assert first is not None
    rest = log.arrive(rng, 200, _state(), int(first.batch.at[-1]))
    assert rest is not None
    assert (len(first), len(rest)) == (200, 100)
    assert log.arrive(rng, 1, _state(), int(rest.batch.at[-1])) is None
    assert (np.diff(first.batch.at) > 0).all()
    assert np.isnan(first.values["brier"]).sum() == 8  # units 0, 50, ..., 350 had no outcome
    assert set(first.values["errors"]) == {0.0}
    assert 0.2 < first.batch.arms.mean() < 0.8  # new coins


def _state() -> ReleaseState:
    begun = ReleaseState(
        endpoint="rank", champion="a", slots=whole("a"), status="running", experiment="exp", challenger="b"
    )
    half = StageRule(name="half", share=Decimal("0.5"), min_duration_us=0, min_units=0, min_challenger_units=0)
    return enter(begun, half, START_US)


def test_whatever_the_challenger_did_nothing_is_found(tmp_path: Path) -> None:
    """The real challenger was perfect (loss 0); its units are not dealt."""
    path = logged(tmp_path, 1200)
    found = from_log(configured(tmp_path), url(path), None, Runs(count=20, seed=2), lambda: None)
    row = found.rows[0]
    assert (found.source, found.log_units) == ("exp", 600)
    assert row.promoted.count <= 3
    assert row.expelled.count <= 3
    assert row.unfinished.count + row.inconclusive.count >= 16
    assert "traffic-50%" in row.stages


def test_looking_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    path = logged(tmp_path, 500)
    before = path.read_bytes()
    read(url(path), configured(tmp_path), "exp")
    assert path.read_bytes() == before
    with pytest.raises(StoreError, match="readonly"):
        SqliteStore(path, read_only=True).write("DELETE FROM vote")


def test_too_few_units_are_refused_with_the_number(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=f"has 150 units .* {LEAST} are the least"):
        read(url(logged(tmp_path, 300)), configured(tmp_path), None)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    one = configured(tmp_path)
    with pytest.raises(StoreError, match="there is no store yet"):
        read(url(tmp_path / "nothing.db"), one, None)
    with pytest.raises(LogError, match="knows no experiment other; it knows exp"):
        read(url(logged(tmp_path, 10)), one, "other")
