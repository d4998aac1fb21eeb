"""A new model on its way to traffic: prepared by every worker first, while everything else goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.admin import samples, views
from gateway.admin.text import status_view
from gateway.backends.onnx import keep
from gateway.clock import FakeClock, SystemClock
from gateway.config.load import load
from gateway.control_plane import LAST_GOOD, ControlPlane, started
from gateway.plan import PreparedPlan
from gateway.release import reader
from gateway.release.intake import READ_AGAIN, ReloadStatus
from gateway.release.models import check_models
from gateway.telemetry import metrics
from gateway.telemetry.status_page import LOAD_FAILURES, StatusPage, Word, progress
from tests.unit.admin.printing import printed
from tests.unit.release.configs import MODELS, copied, experiment, fixed, loaded, write
from tests.unit.release.rig import Rig, Rigs, plain


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def models(folder: Path, endpoint: dict[str, Any], **files: str) -> dict[str, Any]:
    """The endpoint with models in place of its upstreams."""
    for name, file in files.items():
        endpoint["variants"][name]["onnx"] = str(copied(folder, f"{name}-{file}", file))
        del endpoint["variants"][name]["url"]
    return endpoint | {"protocol": "oip"}


class Workers:
    """What two workers say on their status pages."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.pages = [rig.page, StatusPage(rig.data / "status" / "00000002-cd.page")]
        for spool, page in enumerate(self.pages, 1):
            page.words[Word.SPOOL] = spool

    @property
    def prepare(self) -> tuple[PreparedPlan, ...]:
        return self.rig.plan.prepare

    def say(self, *loaded: str, worker: int) -> None:
        names = [one.variant.name in loaded for one in self.prepare]
        self.pages[worker - 1].words[Word.PREPARED] = progress(self.rig.plan.revision, names)

    def fail(self, name: str, why: str, worker: int) -> None:
        page = self.pages[worker - 1]
        (one,) = (one for one in self.prepare if one.variant.name == name)
        page.words[page.slot(LOAD_FAILURES, (one.endpoint, name, one.variant.digest, why))] += 1
        failed = [one.variant.name == name for one in self.prepare]
        page.words[Word.PREPARE_FAILED] = progress(self.rig.plan.revision, failed)

    def status(self) -> dict[str, Any]:
        self.rig.control.health.look()
        told = views.status(self.rig.control, ReloadStatus(0), self.rig.clock.wall_us())
        document: dict[str, Any] = orjson.loads(orjson.dumps(told))
        return document

    def samples(self) -> dict[tuple[str, ...], float]:
        told = samples.samples(self.rig.control, ReloadStatus(0), self.rig.clock.wall_us())
        return {labels: value for metric, labels, value in plain(told) if metric is metrics.PREPARING}


@pytest.fixture
def rig(rigs: Rigs) -> Rig:
    return rigs(endpoint=experiment())


@pytest.fixture
def workers(rig: Rig) -> Iterator[Workers]:
    made = Workers(rig)
    yield made
    made.pages[1].close()


def follow_with(rig: Rig, folder: Path, **stages: Any) -> None:
    """Experiment two takes over: the same champion, a model as challenger."""
    endpoint = models(folder, experiment("two", "a", "m"), a="logistic", m="boosted")
    endpoint["experiment"]["stages"][0] |= stages
    rig.endpoint = endpoint
    rig.control.take(rig.load())


def test_traffic_moves_when_every_worker_has_the_model(rig: Rig, workers: Workers, tmp_path: Path) -> None:
    follow_with(rig, tmp_path)
    assert (rig.state.experiment, rig.split) == ("two", {"a": 1.0}), "of experiment one nobody judges b any more"
    assert [one.variant.name for one in workers.prepare] == ["a", "m"]
    workers.say("a", "m", worker=1)
    rig.tick(0.1)
    workers.say("a", worker=2)
    rig.tick(0.1)
    assert rig.plan.endpoints[0].experiment == "one"
    workers.say("a", "m", worker=2)
    rig.tick(0.1)
    assert (rig.plan.endpoints[0].experiment, rig.split) == ("two", {"a": 0.99, "m": 0.01})
    assert workers.prepare == ()


def test_a_worker_that_drains_keeps_nobody_waiting(rig: Rig, workers: Workers, tmp_path: Path) -> None:
    follow_with(rig, tmp_path)
    workers.pages[1].words[Word.DRAINING] = 1
    workers.say("a", "m", worker=1)
    rig.tick(0.1)
    assert rig.split == {"a": 0.99, "m": 0.01}


def test_a_model_of_which_the_worker_dies_gets_no_traffic(rig: Rig, tmp_path: Path) -> None:
    follow_with(rig, tmp_path)
    rig.page.close()
    rig.tick(0.1)
    assert rig.split == {"a": 1.0}
    rig.page = StatusPage(rig.data / "status" / "00000002-cd.page")
    rig.tick(0.1)
    assert rig.split == {"a": 1.0}
    rig.page.words[Word.PREPARED] = progress(rig.plan.revision, [True, True])
    rig.tick(0.1)
    assert rig.split == {"a": 0.99, "m": 0.01}


def test_the_clocks_begin_when_traffic_does(rig: Rig, workers: Workers, tmp_path: Path) -> None:
    follow_with(rig, tmp_path, min_challenger_units=0, min_duration="60s")
    rig.tick(600)
    decision = rig.control.run("two").decision
    assert decision is not None
    assert decision.text == "before the next stage: its models in every worker"
    assert rig.state.stage == "traffic-1%"
    for worker in (1, 2):
        workers.say("a", "m", worker=worker)
    rig.tick(0.1)
    assert rig.state.started_at_us == rig.state.stage_since_us == rig.clock.wall_us()
    rig.tick(59)
    assert rig.state.stage == "traffic-1%"
    rig.tick(2)
    assert rig.state.stage == "traffic-10%"


def test_a_model_that_cannot_be_loaded_gets_no_traffic_and_is_named(rig: Rig, workers: Workers, tmp_path: Path) -> None:
    follow_with(rig, tmp_path)
    workers.say("a", "m", worker=1)
    workers.say("a", worker=2)
    workers.fail("m", "m.onnx: cannot be loaded: no memory", worker=2)
    rig.tick(600)
    assert (rig.state.status, rig.state.stage, rig.split) == ("running", "traffic-1%", {"a": 1.0})
    status = workers.status()
    assert status["endpoints"]["rank"]["split"] == {"a": 1.0}
    assert status["endpoints"]["rank"]["preparing"] == [
        {"variant": "a", "loaded": 2, "workers": 2, "errors": []},
        {"variant": "m", "loaded": 1, "workers": 2, "errors": ["worker 2: m.onnx: cannot be loaded: no memory"]},
    ]
    assert workers.samples()["rank", "m", "failed"] == 1
    said = printed(status_view(status))
    assert "m gets no traffic, loaded by 1 of 2 workers: worker 2: m.onnx: cannot be loaded: no memory" in said
    assert "a is prepared: loaded by 2 of 2 workers" in said


def test_a_rollback_is_published_while_models_are_being_loaded(rig: Rig, workers: Workers, tmp_path: Path) -> None:
    follow_with(rig, tmp_path)
    rig.control.command("rank", "rollback", "ada", "")
    assert (rig.status, rig.split) == ("rolled_back", {"a": 1.0})
    workers.say("a", worker=1)
    workers.say("a", worker=2)
    rig.tick(0.1)
    assert rig.plan.endpoints[0].experiment == "two"
    assert [one.variant.name for one in workers.prepare] == ["m"], "which nobody reaches, so nobody waits"


def test_another_endpoint_is_rolled_back_while_models_are_being_loaded(
    rig: Rig, workers: Workers, tmp_path: Path
) -> None:
    second = models(tmp_path, fixed(x="50%", y="50%"), x="logistic", y="twin")
    rig.control.take(loaded(rig.folder, rank=rig.endpoint, second=second))
    rig.failures("b", 0, 5)
    rig.tick(0.1)
    assert (rig.status, rig.split) == ("rolled_back", {"a": 1.0})
    assert [one.name for one in rig.plan.endpoints] == ["rank"]
    assert workers.status()["endpoints"]["second"]["split"] == {}


def test_a_control_process_that_starts_anew_goes_on_preparing(rig: Rig, workers: Workers, tmp_path: Path) -> None:
    follow_with(rig, tmp_path)
    revision = rig.plan.revision
    rig.restart()
    assert (rig.plan.revision, rig.split) == (revision, {"a": 1.0})
    for worker in (1, 2):
        workers.say("a", "m", worker=worker)
    rig.clock.advance(600)
    rig.restart()
    assert rig.split == {"a": 0.99, "m": 0.01}
    assert rig.state.stage_since_us == rig.clock.wall_us()


def test_rows_describe_plans_as_published(rig: Rig, workers: Workers, tmp_path: Path) -> None:
    follow_with(rig, tmp_path)
    plan = rig.plan
    assert plan.endpoints[0].slots != rig.state.slots
    assert rig.sqlite.plan_slots(plan.revision, "rank") == plan.endpoints[0].slots


class Slow:
    """Model files that are read as slowly as the test likes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self.begun = 0
        monkeypatch.setattr(reader, "check_models", self._slowly)

    def _slowly(self, *arguments: Any) -> None:
        self.begun += 1
        assert self.go_on.wait(5)
        check_models(*arguments)


class Stuck:
    """A model file, `y-logistic`, whose copy takes as long as the test likes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on, self.stuck = threading.Event(), threading.Event()
        self.begun: list[Path] = []
        monkeypatch.setattr("gateway.release.artifacts.keep", self._keep)

    def _keep(self, path: Path, *more: Any) -> Path:
        if path.stem == "y-logistic":
            self.begun.append(path)
            self.stuck.set()
            assert self.go_on.wait(5)
        return keep(path, *more)


class Plane:
    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, FakeClock()
        self.control = ControlPlane(load(write(folder, rank=experiment())), self.clock)

    def poll(self, rounds: int = 3) -> dict[str, Any]:
        for _ in range(rounds):
            self.clock.advance(0.6)
            self.control.poll()
        return self.control.snapshot

    def when_read(self) -> dict[str, Any]:
        for thread in threading.enumerate():
            if thread.name == "read models":
                thread.join(5)
        return self.poll(1)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path)
    yield made
    made.control.close()


def test_a_rollback_does_not_wait_for_model_files_to_be_read(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    second = models(plane.folder, fixed(x="50%", y="50%"), x="logistic", y="twin")
    write(plane.folder, rank=experiment(), second=second)
    snapshot = plane.poll()
    assert (slow.begun, snapshot["config"]["reading_models"]) == (1, True)
    assert "second" not in snapshot["endpoints"]
    assert "the model files of a new config are being read" in printed(status_view(snapshot))
    plane.control.command("rank", "rollback", "ada", "")
    assert plane.control.snapshot["endpoints"]["rank"]["split"] == {"a": 1.0}
    slow.go_on.set()
    snapshot = plane.when_read()
    assert not snapshot["config"]["reading_models"]
    second = plane.poll(1)["endpoints"]["second"]
    assert second["split"] == {}, "no worker lives to tell that it has the models"
    assert [one["workers"] for one in second["preparing"]] == [0, 0]


def test_an_edit_that_comes_while_files_are_read_wins(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    write(plane.folder, rank=experiment(), second=models(plane.folder, fixed(x="100%"), x="logistic"))
    plane.poll()
    write(plane.folder, rank=experiment(), third=models(plane.folder, fixed(x="100%"), x="twin"))
    plane.poll(8)  # it takes something away, so it must stand for a while
    slow.go_on.set()
    plane.when_read()
    assert plane.when_read()["endpoints"].keys() == {"rank", "third"}


@pytest.fixture
def stuck(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    made = Stuck(monkeypatch)
    write(plane.folder, rank=experiment(), second=models(plane.folder, fixed(y="100%"), y="logistic"))
    plane.poll()
    assert made.stuck.wait(5)
    plane.clock.advance(reader.DEADLINE)
    (problem,) = plane.poll(1)["config"]["problems"]
    (file,) = made.begun
    assert f"endpoints: the model files are not read within 60 s: {file} takes too long" in problem
    yield made
    made.go_on.set()
    plane.when_read()


def test_a_file_that_hangs_keeps_no_later_config_waiting(plane: Plane, stuck: Stuck) -> None:
    assert plane.control.intake.idle
    plane.clock.advance(READ_AGAIN)
    assert plane.poll()["config"]["reading_models"], "that read is waited for, and none is added"
    write(plane.folder, rank=experiment(), third=models(plane.folder, fixed(z="100%"), z="twin"))
    deadline = time.monotonic() + 5
    while "third" not in plane.poll(1)["endpoints"]:
        assert time.monotonic() < deadline
    assert len(stuck.begun) == 1


def test_a_file_that_is_slow_comes_at_last(plane: Plane, stuck: Stuck) -> None:
    stuck.go_on.set()
    plane.when_read()
    plane.clock.advance(READ_AGAIN)
    plane.poll(2)
    assert "second" in plane.when_read()["endpoints"]
    assert len(stuck.begun) == 1, "what was read late is not read again"


def test_files_that_cannot_be_served_are_read_again_after_a_while(plane: Plane) -> None:
    second = models(plane.folder, fixed(x="100%"), x="logistic")
    file = Path(second["variants"]["x"]["onnx"])
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    write(plane.folder, rank=experiment(), second=second)
    plane.poll()
    (problem,) = plane.when_read()["config"]["problems"]
    assert "endpoints.second.variants.x.onnx" in problem
    file.write_bytes(whole)
    plane.clock.advance(READ_AGAIN)
    plane.poll(2)
    assert "second" in plane.when_read()["endpoints"]


@pytest.fixture
def copied_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the model files that were copied, which reads them whole."""
    names: list[str] = []

    def noted(path: Path, *more: Any) -> Path:
        names.append(path.stem)
        return keep(path, *more)

    monkeypatch.setattr("gateway.release.artifacts.keep", noted)
    return names


def test_the_files_of_a_config_that_waits_for_a_person_are_read_once(plane: Plane, copied_files: list[str]) -> None:
    plane.control.command("rank", "promote", "ada", "")
    second = models(plane.folder, fixed(x="50%", y="50%"), x="logistic", y="twin")
    write(plane.folder, rank=experiment("two"), second=second)
    plane.poll(8)
    for _ in range(3):
        plane.when_read()
    assert "roll back first" in plane.poll()["config"]["problems"][0]
    assert sorted(copied_files) == ["x-logistic", "y-twin"]
    plane.control.command("rank", "rollback", "ada", "")
    assert "second" in plane.poll()["endpoints"]
    assert len(copied_files) == 2


def test_beside_a_file_that_cannot_be_served_the_others_are_read_once(plane: Plane, copied_files: list[str]) -> None:
    second = models(plane.folder, fixed(x="50%", y="50%"), x="logistic", y="twin")
    file = Path(second["variants"]["y"]["onnx"])
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    write(plane.folder, rank=experiment(), second=second)
    plane.poll()
    plane.when_read()
    file.write_bytes(whole)
    plane.clock.advance(READ_AGAIN)
    plane.poll(2)
    assert "second" in plane.when_read()["endpoints"]
    assert copied_files == ["x-logistic", "y-twin", "y-twin"]


def test_a_reload_beside_the_watcher_reads_once(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    write(plane.folder, rank=experiment(), second=models(plane.folder, fixed(x="100%"), x="logistic"))
    assert plane.control.reload().reading_models
    plane.poll(4)
    slow.go_on.set()
    plane.when_read()
    assert "second" in plane.when_read()["endpoints"]
    assert slow.begun == 1


def served_from_a_file(plane: Plane) -> tuple[dict[str, Any], Path]:
    """With a second endpoint, whose one model is in the file."""
    second = models(plane.folder, fixed(x="100%"), x="logistic")
    write(plane.folder, rank=experiment(), second=second)
    plane.poll()
    plane.when_read()
    return plane.poll(1), Path(second["variants"]["x"]["onnx"])


def test_a_file_that_changes_on_disk_is_told_and_taken_by_a_reload(plane: Plane) -> None:
    before, file = served_from_a_file(plane)
    file.write_bytes((MODELS / "twin.onnx").read_bytes())
    snapshot = plane.poll()
    assert snapshot["config"]["changed_models"] == [str(file)]
    assert snapshot["plan_revision"] == before["plan_revision"]
    assert f"{file} has changed since it was taken: POST /-/reload takes it anew" in printed(status_view(snapshot))
    assert plane.control.reload().reading_models
    plane.poll(1)
    plane.when_read()
    snapshot = plane.poll()
    assert snapshot["plan_revision"] > before["plan_revision"]
    assert snapshot["config"]["changed_models"] == []
    assert [one["variant"] for one in snapshot["endpoints"]["second"]["preparing"]] == ["x"]


@pytest.mark.parametrize("content", [b"no model", None], ids=["broken", "gone"])
def test_a_crash_in_front_of_a_model_file_goes_on_with_what_is_served(plane: Plane, content: bytes | None) -> None:
    before, file = served_from_a_file(plane)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    again = started(plane.folder / "gateway.yaml", plane.folder / "data" / LAST_GOOD, SystemClock())
    assert again.snapshot["plan_revision"] == before["plan_revision"]
    assert "endpoints.second.variants.x.onnx" in again.intake.status.problems[0]
    again.intake.look()
    assert again.intake.status.changed_models == ([] if content is None else [file])
    again.close()
