"""The store, or the disk below it, fails for a while under load: requests are answered, nothing acknowledged is lost.

The short form of `make prove ARGS="--only outage"`; what each outage is, `benchmarks.outage` says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import outage

pytestmark = pytest.mark.process
LOCKED = 6.0  # seconds: SQLite itself waits for five


def test_s4_a_store_that_another_process_has_locked_is_caught_up_with(tmp_path: Path) -> None:
    case = outage.measure("locked", tmp_path, LOCKED)
    assert case["problems"] == {}, case
    assert case["store_told_down"]
    assert case["longest_lag_s"] > 4, "nothing was shipped meanwhile"
    assert case["failed"] == {}
    assert case["unassigned"] == case["uncompleted"] == 0
    assert case["catch_up_s"] < 5


@pytest.mark.slow
def test_s5_a_reader_that_holds_an_old_snapshot_stops_nothing_and_is_made_up_for(tmp_path: Path) -> None:
    """The log grows beyond where it is usually copied back, and is copied back once the reader has gone."""
    case = outage.measure("pinned", tmp_path, 6.0)
    assert case["problems"] == {}, case
    assert not case["store_told_down"]
    assert case["failed"] == {}
    assert case["log_bytes_pinned"] > 5 << 20
    assert case["database_bytes_after"] > case["database_bytes_pinned"]


def test_s1_a_full_disk_drops_what_it_counts_and_acknowledges_no_outcome_that_it_cannot_keep(tmp_path: Path) -> None:
    case = _on_a_small_disk("full", tmp_path)
    assert case["problems"] == {}, case
    assert case["failed"].keys() == {"post: 503"}
    assert 0 < case["unassigned"] <= case["dropped"]


@pytest.mark.slow
def test_s1_where_only_the_disk_of_the_store_is_full_nothing_is_lost_at_all(tmp_path: Path) -> None:
    case = _on_a_small_disk("store-full", tmp_path)
    assert case["problems"] == {}, case
    assert case["store_told_down"]
    assert case["failed"] == {}
    assert case["unassigned"] == case["uncompleted"] == case["dropped"] == 0


@pytest.mark.parametrize("seed", [1])
def test_s2_s3_writes_and_syncs_that_fail_now_and_then_cost_what_they_hit_and_nothing_else(
    tmp_path: Path, seed: int
) -> None:
    case = outage.measure("faulty", tmp_path, 3.0, seed)
    assert case["problems"] == {}, f"seed {seed}: {case}"
    assert case["failed"].keys() == {"post: 503"}
    assert 0 < case["dropped"] < 0.2 * case["answered"]
    assert case["acknowledged"] > 100


def _on_a_small_disk(kind: str, folder: Path) -> dict[str, Any]:
    try:
        return outage.measure(kind, folder, 2.0)
    except outage.NotHere as error:
        pytest.skip(str(error))
