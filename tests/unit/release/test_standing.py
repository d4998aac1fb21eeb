"""What a node serves from while the leader has not yet written what the file asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gateway.plan import Slot
from gateway.release.artifacts import Artifacts
from gateway.release.reconcile import reconcile
from gateway.release.standing import Standing, standing
from gateway.release.state import ReleaseState
from tests.unit.release.configs import experiment, fixed, loaded

HALF = 1 << 63


def stand(folder: Path, endpoint: dict[str, Any], stored: dict[str, ReleaseState]) -> Standing:
    config = loaded(folder, rank=endpoint)
    known: dict[str, Any] = {}
    wanted = reconcile("f", config.config, {}, known, Artifacts(), lambda *_: None, 5).states
    return standing(config.config, stored, wanted)


def begun(folder: Path, endpoint: dict[str, Any]) -> ReleaseState:
    config = loaded(folder, rank=endpoint)
    return reconcile("f", config.config, {}, {}, Artifacts(), lambda *_: None, 5).states["rank"]


def test_of_what_nobody_has_begun_everything_is_the_champions_and_nothing_is_counted(tmp_path: Path) -> None:
    found = stand(tmp_path, experiment(), {})
    assert found.pinned == {"rank"}
    assert found.states["rank"].slots == (Slot(start=0, variant="a"),)
    assert found.states["rank"].experiment == ""


def test_what_has_happened_is_served_where_the_file_still_knows_it(tmp_path: Path) -> None:
    stored = replace(begun(tmp_path, experiment()), stage="traffic-10%", stage_since_us=99)
    found = stand(tmp_path, experiment(max_duration="20d"), {"rank": stored})
    assert found == Standing({"rank": stored}, frozenset())


def test_another_experiment_waits_with_the_plan_of_before(tmp_path: Path) -> None:
    stored = begun(tmp_path, experiment("one"))
    assert stand(tmp_path, experiment("two"), {"rank": stored}).pinned == {"rank"}


def test_a_variant_that_the_file_has_dropped_is_not_served_from_it(tmp_path: Path) -> None:
    stored = ReleaseState(
        endpoint="rank",
        champion="a",
        status="fixed",
        slots=(Slot(start=0, variant="a"), Slot(start=HALF, variant="b")),
    )
    assert stand(tmp_path, fixed(a="100%"), {"rank": stored}).pinned == {"rank"}
    assert stand(tmp_path, fixed(a="70%", b="30%"), {"rank": stored}).states["rank"] == stored


def test_endpoints_of_other_files_are_remembered(tmp_path: Path) -> None:
    other = ReleaseState(endpoint="other", champion="x", slots=(Slot(start=0, variant="x"),), status="fixed")
    assert stand(tmp_path, experiment(), {"other": other}).states["other"] == other
