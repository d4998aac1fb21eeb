"""S8, S9, K1, L3: three nodes on one PostgreSQL. The short form of `make prove ARGS="--only cluster"`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import cluster
from benchmarks.results_file import Case
from tests.postgres import NoServer

pytestmark = pytest.mark.process
FAIL_OVER = 10.0  # seconds


def _played(scene: Callable[[], Case]) -> Case:
    """What a scene came to. Without PostgreSQL: a failure in CI, else a skip that says so."""
    try:
        return scene()
    except NoServer as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


def test_s8_a_store_that_is_stopped_or_crashes_is_missed_by_nobody_and_nothing_is_lost(tmp_path: Path) -> None:
    """Ten seconds, and then three seconds after a crash: everything is answered, kept, and caught up with."""
    acts: list[Callable[[cluster.Stage], Case]] = [
        lambda stage: stage.store_away(10.0, "fast"),
        lambda stage: stage.store_away(3.0, "immediate"),
    ]
    case = _played(lambda: cluster.staged(tmp_path, 1, acts))
    assert case["problems"] == {}, case
    assert case["failed"] == {}
    assert case["fast"]["store_told_down"]
    assert case["fast"]["answered_during"] > 500
    assert case["immediate"]["answered_during"] > 100
    assert case["late"] == 0, "nobody was given up"


def test_l3_nodes_that_are_restarted_in_turn_lose_no_request_and_a_leader_that_is_killed_is_followed(
    tmp_path: Path,
) -> None:
    """No unit is moved by any of it."""
    acts: list[Callable[[cluster.Stage], Case]] = [
        lambda stage: stage.restarted(0.5),
        lambda stage: stage.leader_killed(1),
    ]
    case = _played(lambda: cluster.staged(tmp_path, 1, acts, killed=1))
    assert case["problems"] == {}, case
    assert case["failed_by_restarts"] == {}
    assert case["unassigned"] == 0
    assert max(case["fail_over_s"]) < FAIL_OVER


def test_k1_a_leader_that_is_stopped_in_the_midst_of_a_decision_is_not_heard_when_it_wakes_up(tmp_path: Path) -> None:
    """Another one leads and decides meanwhile, though the first holds the rows; one decision is in the ledger."""
    case = _played(lambda: cluster.measure("paused", tmp_path, 10.0))
    assert case["problems"] == {}, case
    assert case["decisions"] == ["rollback"]
    assert case["decided_after_s"] < FAIL_OVER + 2.0
