"""The control plane around the controller: what it shows while the store is away, and how configs come and wait."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway import control_plane
from gateway.admin import samples
from gateway.clock import FakeClock
from gateway.config.load import load
from gateway.control_plane import LAST_GOOD, ControlPlane
from gateway.errors import ConfigError, StoreError
from gateway.numbers import SpoolNumbers
from gateway.plan import Plan
from gateway.release.health import Health, Preparation
from gateway.release.intake import ReloadStatus
from gateway.spool.reader import StreamId
from gateway.store.base import StreamCursor
from tests.unit.release.configs import experiment, fixed, write
from tests.unit.release.rig import Flaky, Rig, plain


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


class Plane:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.path = write(folder, rank=experiment(), other=fixed(x="100%"))
        monkeypatch.setattr(
            control_plane, "open_store", lambda url: self._remember(Path(url.removeprefix("sqlite:///")))
        )
        self.control = ControlPlane(load(self.path), self.clock)

    def _remember(self, path: Path) -> Any:
        from gateway.store.sqlite import SqliteStore

        self.store = Flaky(SqliteStore(path))
        return self.store

    def poll(self, seconds: float = 0.6) -> dict[str, Any]:
        self.clock.advance(seconds)
        self.control.poll()
        return self.control.snapshot

    def edit(self, **endpoints: dict[str, Any]) -> None:
        write(self.folder, **endpoints)


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    made = Plane(tmp_path, monkeypatch)
    yield made
    made.store.heal()
    made.control.close()


def test_the_snapshot_is_plain_data(plane: Plane) -> None:
    snapshot = plane.poll()
    assert json.loads(orjson.dumps(snapshot)).keys() == snapshot.keys()
    assert snapshot["store"] == {"ok": True, "error": ""}
    assert snapshot["plan_revision"] == 1
    rank = snapshot["endpoints"]["rank"]
    assert (rank["status"], rank["champion"]) == ("running", "a")
    assert rank["split"] == pytest.approx({"a": 0.99, "b": 0.01})
    assert rank["experiment"]["stage"] == "traffic-1%"
    assert rank["experiment"]["next"]["kind"] == "continue"
    assert snapshot["endpoints"]["other"] == {
        "status": "fixed",
        "champion": "x",
        "split": {"x": 1.0},
        "preparing": [],
    }


def test_workers_are_asked_once_about_the_models_of_all_endpoints(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparations, asked = Health.preparations, 0

    def noted(health: Health, plan: Plan | None) -> list[Preparation]:
        nonlocal asked
        asked += 1
        return preparations(health, plan)

    monkeypatch.setattr(Health, "preparations", noted)
    assert len(plane.poll()["endpoints"]) == 2
    assert asked == 1


def test_everything_is_shown_while_the_store_is_away(plane: Plane) -> None:
    plane.poll()
    plane.store.fail()
    snapshot = plane.poll()
    assert snapshot["store"] == {"ok": False, "error": "the disk is gone"}
    assert snapshot["endpoints"]["rank"]["experiment"]["report"]["verdict"] == "undecided"
    body, content_type = plane.control.exposition("")
    assert b"\ngateway_store_up 0.0\n" in body
    assert b'gateway_decisions_total{experiment="one",kind="start"} 1.0' in body
    assert content_type.startswith("text/plain")
    plane.store.heal()
    assert plane.poll()["store"]["ok"]


def test_the_metrics_say_what_the_evidence_says(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.units(600, better=0.2, fair=True)
    rig.tick()
    told = list(samples.samples(rig.control, ReloadStatus(0), rig.clock.wall_us()))
    assert len({(metric.name, labels) for metric, labels, _ in told}) == len(told), "no series twice"
    values = {(metric.name, *labels): value for metric, labels, value in plain(told)}
    assert values["gateway_workers",] == 1
    assert values["gateway_worker_plan_revision", "1"] == 0
    assert values["gateway_split_ratio", "rank", "b"] == pytest.approx(0.1)
    assert values["gateway_experiment_stage_info", "rank", "one", "running:traffic-10%"] == 1
    assert values["gateway_experiment_units", "one", "a"] == 594
    assert values["gateway_experiment_units", "one", "b"] == 6
    assert values["gateway_experiment_log_evidence", "one", "b", "score", "promote"] > 0
    assert values["gateway_experiment_effect", "one", "b", "score", "", "estimate"] == pytest.approx(0.2, abs=0.1)
    assert values["gateway_facts_shipped", "outcome"] == 600
    rig.close()


def test_several_challengers_have_series_of_their_own(tmp_path: Path) -> None:
    rig = Rig(tmp_path, endpoint=experiment("one", "a", "b", "c"))
    rig.units(600, better={"c": 0.2}, fair=True)
    rig.tick()
    told = list(samples.samples(rig.control, ReloadStatus(0), rig.clock.wall_us()))
    values = {(metric.name, *labels): value for metric, labels, value in plain(told)}
    assert len({(metric.name, labels) for metric, labels, _ in told}) == len(told), "no series twice"
    b, c = (values["gateway_experiment_log_evidence", "one", name, "score", "promote"] for name in "bc")
    assert b < 0 < c
    assert [values["gateway_experiment_units", "one", name] for name in "abc"] == [588, 6, 6]
    rig.close()


def test_an_edit_is_taken_within_two_looks(plane: Plane) -> None:
    plane.edit(rank=experiment(alpha=0.05), other=fixed(x="100%"))
    for _ in range(2):
        snapshot = plane.poll()
    assert snapshot["config"]["ok"]
    assert snapshot["config"]["digest"] == load(plane.path).digest


def test_an_edit_during_an_outage_waits(plane: Plane) -> None:
    plane.edit(rank=experiment(), other=fixed(x="50%", y="50%"))
    plane.store.fail()
    for _ in range(4):
        snapshot = plane.poll()
    assert snapshot["config"]["problems"] == ["the disk is gone"]
    plane.store.heal()
    for _ in range(2):
        snapshot = plane.poll()
    assert snapshot["config"]["ok"]
    assert snapshot["endpoints"]["other"]["split"] == {"x": 0.5, "y": 0.5}


def test_a_refused_edit_is_said_and_the_old_config_stays(plane: Plane) -> None:
    before = plane.control.snapshot["config"]["digest"]
    plane.edit(rank=experiment("two", champion="c"), other=fixed(x="100%"))
    for _ in range(8):
        snapshot = plane.poll()
    assert snapshot["config"]["digest"] == before
    assert "a is the champion now and must stay in the file" in snapshot["config"]["problems"][0]
    assert plane.control.reload().problems == snapshot["config"]["problems"]
    plane.edit(rank=experiment(), other=fixed(x="100%"))
    assert plane.control.reload().problems == []


def test_an_edit_that_must_wait_for_a_person_is_taken_once_she_has_acted(plane: Plane) -> None:
    plane.control.command("rank", "promote", "ada", "")
    plane.edit(rank=experiment("two"), other=fixed(x="100%"))
    for _ in range(8):
        snapshot = plane.poll()
    assert "roll back first" in snapshot["config"]["problems"][0]
    plane.control.command("rank", "rollback", "ada", "")
    for _ in range(2):
        snapshot = plane.poll()
    assert snapshot["config"]["ok"]
    assert snapshot["endpoints"]["rank"]["experiment"]["id"] == "two"


def test_an_edit_taken_back_after_a_reload_is_taken_back(plane: Plane) -> None:
    """The reload took it before the watcher had seen it."""
    before = plane.control.snapshot["config"]["digest"]
    plane.edit(rank=experiment(), other=fixed(x="50%", y="50%"))
    assert plane.control.reload().problems == []
    plane.edit(rank=experiment(), other=fixed(x="100%"))
    for _ in range(8):
        snapshot = plane.poll()
    assert snapshot["config"]["digest"] == before
    assert snapshot["endpoints"]["other"]["split"] == {"x": 1.0}


def test_an_edit_that_waits_outlives_a_slip_in_the_file(plane: Plane) -> None:
    plane.edit(rank=experiment(), other=fixed(x="50%", y="50%"))
    good = plane.path.read_bytes()
    plane.store.fail()
    for _ in range(3):
        plane.poll()
    plane.path.write_text("version: [")
    for _ in range(3):
        plane.poll()
    plane.path.write_bytes(good)
    for _ in range(3):
        snapshot = plane.poll()
    assert snapshot["config"]["problems"] == ["the disk is gone"]
    plane.store.heal()
    for _ in range(3):
        snapshot = plane.poll()
    assert snapshot["endpoints"]["other"]["split"] == {"x": 0.5, "y": 0.5}


def test_an_edit_that_waits_is_forgotten_when_it_is_taken_back(plane: Plane) -> None:
    before = plane.path.read_bytes()
    plane.edit(rank=experiment(), other=fixed(x="50%", y="50%"))
    plane.store.fail()
    for _ in range(3):
        plane.poll()
    plane.path.write_bytes(before)
    for _ in range(3):
        snapshot = plane.poll()
    assert snapshot["config"]["problems"] == []
    plane.store.heal()
    for _ in range(3):
        snapshot = plane.poll()
    assert snapshot["endpoints"]["other"]["split"] == {"x": 1.0}


def test_a_hold_by_an_edit_is_in_the_ledger(plane: Plane) -> None:
    changed = experiment()
    changed["experiment"]["stages"][0]["traffic"] = "2%"
    plane.edit(rank=changed, other=fixed(x="100%"))
    for _ in range(6):
        snapshot = plane.poll()
    last = plane.control.controller.ledger()[-1]
    assert (last.kind, last.body["actor"]) == ("hold", "config")
    assert last.body["text"] == snapshot["endpoints"]["rank"]["experiment"]["hold"]


def test_a_crash_in_front_of_a_refused_file_starts_with_the_last_good_one(plane: Plane) -> None:
    last_good = plane.folder / "data" / LAST_GOOD
    good = plane.control.snapshot["config"]["digest"]
    plane.edit(rank=experiment("two", champion="c"), other=fixed(x="100%"))
    again = control_plane.started(plane.path, last_good, plane.clock)
    assert again.controller.loaded.digest == good
    assert "must stay in the file" in again.intake.status.problems[0]
    again.close()
    plane.path.write_text("version: [")
    again = control_plane.started(plane.path, last_good, plane.clock)
    assert again.controller.loaded.digest == good
    again.close()
    last_good.unlink()
    with pytest.raises(ConfigError):
        control_plane.started(plane.path, last_good, plane.clock)


def test_commands_show_at_once(plane: Plane) -> None:
    plane.control.command("rank", "hold", "ada", "wait")
    assert plane.control.snapshot["endpoints"]["rank"]["experiment"]["hold"] == "wait"
    plane.store.fail()
    with pytest.raises(StoreError):
        plane.control.command("rank", "resume", "ada", "")


def test_a_failing_start_leaves_nothing_open(tmp_path: Path) -> None:
    path = write(tmp_path, rank=fixed(a="100%"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "keys.json").write_text("damaged")
    with pytest.raises(StoreError, match="keys"):
        ControlPlane(load(path), FakeClock())


def test_a_store_elsewhere_gives_out_numbers_that_no_other_data_directory_has_used(tmp_path: Path) -> None:
    """As where the directory goes with its container and the store stays."""
    path = write(tmp_path, rank=experiment())
    text = path.read_text()
    store = tmp_path / "elsewhere" / "gateway.db"
    taken: list[int] = []
    for life in ("first", "second"):
        data = tmp_path / life
        path.write_text(text.replace("data_dir: data", f"data_dir: {data}\nstore: sqlite:///{store}"))
        control = ControlPlane(load(path), FakeClock())
        taken += [SpoolNumbers(data).take(granted=True), SpoolNumbers(data).take(granted=True)]
        with control.store.transaction():
            for number in taken[-2:]:
                control.store.save_stream(StreamId(number, "requests"), None, StreamCursor())
        control.close()
    assert taken == [1, 2, 3, 4]
    shutil.copytree(tmp_path / "first", tmp_path / "second", dirs_exist_ok=True)  # an old copy is brought back
    ControlPlane(load(path), FakeClock()).close()
    assert SpoolNumbers(data).take(granted=True) == 5
