"""The kill rule of a node that has no store to build its control plane on."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from gateway import plan as plans
from gateway.release.guard import Guard
from gateway.release.halts import FOLDER
from tests.unit.release.configs import experiment
from tests.unit.release.rig import Rig, Rigs


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def alone(rig: Rig) -> Guard:
    """The control process has started again, and its store is away."""
    guard = Guard(rig.load().config, rig.clock)
    guard.tick()
    return guard


def test_who_fails_plainly_gets_nothing_and_the_control_plane_writes_it_down(rigs: Rigs) -> None:
    rig = rigs()
    rig.tick()
    before = rig.plan
    guard = alone(rig)
    rig.failures("b", ok=20, error=1)
    guard.tick()
    assert rig.plan == before, "nothing is written where nobody has to go"
    rig.failures("b", ok=0, error=9)
    guard.tick()
    assert rig.split == {"a": 1.0}
    assert rig.plan.revision > before.revision
    assert [halt.variant for halt in guard.halts.all] == ["b"]
    stopped = rig.plan
    guard.tick()
    assert rig.plan == stopped
    rig.restart()
    rig.tick(0.1)
    assert rig.status == "rolled_back"
    row = rig.sqlite.ledger()[-1]
    assert (row.kind, row.body["reason"]) == ("rollback", "kill_rule")
    assert "stopped on one node since" in row.body["text"]
    assert list((rig.data / FOLDER).iterdir()) == []


def test_what_was_halted_before_stays_out_and_what_a_person_halts_now_goes(rigs: Rigs) -> None:
    rig = rigs()
    rig.tick()
    first = alone(rig)
    rig.failures("b", ok=0, error=9)
    first.tick()
    second = alone(rig)
    assert [halt.variant for halt in second.halts.all] == ["b"]
    assert rig.split == {"a": 1.0}


def test_one_of_several_goes_and_the_others_stay(rigs: Rigs) -> None:
    rig = rigs(endpoint=experiment("one", "a", "b", "c"))
    rig.tick()
    guard = alone(rig)
    rig.failures("c", ok=0, error=9)
    guard.tick()
    assert rig.split.keys() == {"a", "b"}


@pytest.mark.parametrize("automation", ["recommend", "off"])
def test_where_the_file_does_not_let_it_nobody_is_stopped(rigs: Rigs, automation: str) -> None:
    endpoint: dict[str, Any] = experiment()
    rig = rigs(endpoint=endpoint)
    rig.tick()
    guard = alone(rig)
    endpoint["experiment"]["automation"] = automation
    guard.take(rig.load().config)
    rig.failures("b", ok=0, error=9)
    guard.tick()
    assert rig.split == {"a": 0.99, "b": 0.01}
    endpoint["experiment"]["automation"] = "rollback_only"
    guard.take(rig.load().config)
    guard.tick()
    assert rig.split == {"a": 1.0}, "the last fifty still say so"


def test_without_a_plan_there_is_nothing_to_do_and_a_damaged_one_is_left(rigs: Rigs) -> None:
    rig = rigs()
    rig.tick()
    path = rig.data / "plan.json"
    path.unlink()
    guard = alone(rig)
    assert not path.exists()
    path.write_text("{")
    guard.tick()
    assert path.read_text() == "{"


def test_a_plan_that_cannot_be_written_is_tried_again(rigs: Rigs, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rigs()
    rig.tick()
    guard = alone(rig)
    rig.failures("b", ok=0, error=9)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(plans, "write", full)
        guard.tick()
    assert rig.split == {"a": 0.99, "b": 0.01}
    guard.tick()
    assert rig.split == {"a": 1.0}
