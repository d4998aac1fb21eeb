"""What a node stops by itself while nobody can write it down, and how the ledger hears of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli.main import main
from gateway.release.halts import FOLDER, Halt, Halts, write
from gateway.store.base import LedgerRow
from tests.unit.release.configs import experiment
from tests.unit.release.rig import Rig, Rigs


def failing(rig: Rig, variant: str = "b") -> None:
    rig.store.fail()
    rig.failures(variant, ok=0, error=9)
    rig.tick(0.1)


def last(rig: Rig) -> LedgerRow:
    return rig.sqlite.ledger()[-1]


def test_the_kill_rule_needs_no_store(rigs: Rigs) -> None:
    rig = rigs()
    rig.tick()
    assert rig.split == {"a": 0.99, "b": 0.01}
    failing(rig)
    assert rig.split == {"a": 1.0}
    assert rig.status == "running", "nobody has written anything"
    assert rig.plan.revision > 1
    rig.store.heal()
    rig.tick(0.1)
    assert rig.status == "rolled_back"
    assert last(rig).kind == "rollback"
    assert last(rig).body["reason"] == "kill_rule"
    assert "stopped on one node since" in last(rig).body["text"]
    assert list((rig.data / FOLDER).iterdir()) == []
    assert rig.split == {"a": 1.0}


def test_a_plan_of_the_outage_gets_its_row_when_the_store_is_back(rigs: Rigs) -> None:
    rig = rigs()
    rig.tick()
    failing(rig)
    revision = rig.plan.revision
    assert rig.sqlite.plan_slots(revision, "rank") == ()
    rig.store.heal()
    rig.tick(0.1)
    assert rig.sqlite.plan_slots(revision, "rank") == rig.plan.endpoints[0].slots
    assert rig.plan.revision > revision, "the experiment has left it"


def test_a_halt_survives_a_restart_with_the_store_away_and_its_plan_gets_a_row(rigs: Rigs) -> None:
    rig = rigs()
    rig.tick()
    failing(rig)
    revision = rig.plan.revision
    rig.store.heal()
    rig.restart()
    assert rig.split == {"a": 1.0}
    rig.tick(0.1)
    assert rig.status == "rolled_back"
    assert rig.sqlite.plan_slots(revision, "rank") != ()


def test_one_of_several_is_dropped(rigs: Rigs) -> None:
    rig = rigs(endpoint=experiment("one", "a", "b", "c"))
    rig.tick()
    failing(rig, "c")
    assert rig.split.keys() == {"a", "b"}
    rig.store.heal()
    rig.tick(0.1)
    assert rig.status == "running"
    assert rig.state.contenders == ("b",)
    assert last(rig).kind == "drop"


def test_without_automation_nobody_is_halted(rigs: Rigs) -> None:
    endpoint: dict[str, Any] = experiment()
    endpoint["experiment"]["automation"] = "recommend"
    rig = rigs(endpoint=endpoint)
    rig.tick()
    failing(rig)
    assert rig.split == {"a": 0.99, "b": 0.01}


def test_a_person_on_the_spot_stops_it_before_anything_else(rigs: Rigs) -> None:
    rig = rigs()
    rig.tick()
    rig.store.fail()
    state = rig.state
    halt = Halt(
        endpoint="rank",
        experiment=state.experiment,
        variant="",
        reason="manual",
        text="fire",
        actor="ada",
        at=rig.clock.wall_us(),
    )
    write(rig.data / FOLDER, halt)
    rig.tick(0.1)
    assert rig.split == {"a": 1.0}
    rig.store.heal()
    rig.tick(0.1)
    assert (last(rig).kind, last(rig).body["actor"], last(rig).body["reason"]) == ("rollback", "ada", "manual")


def test_the_command_does_without_a_control_process(rigs: Rigs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.cli.local.PATIENCE", 0.0)
    rig = rigs()
    rig.tick()
    revision = rig.plan.revision
    config = str(rig.folder / "gateway.yaml")
    done = CliRunner().invoke(main, ["rollback", "--local", "--config", config, "--reason", "fire", "rank"])
    assert done.exit_code == 0, done.output
    assert "the plan was written without it" in done.output
    assert rig.split == {"a": 1.0}
    assert rig.plan.revision > revision
    rig.restart()
    rig.tick(0.1)
    assert rig.status == "rolled_back"
    assert last(rig).body["text"].startswith("fire")


def test_the_command_leaves_it_to_a_control_process_that_lives(rigs: Rigs, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rigs()
    rig.tick()
    monkeypatch.setattr("gateway.cli.local.time.sleep", lambda _: rig.tick(0.1))
    config = str(rig.folder / "gateway.yaml")
    done = CliRunner().invoke(main, ["rollback", "--local", "--config", config, "rank"])
    assert done.output == "rank: all traffic of this node goes to a\n"
    assert rig.status == "rolled_back"


def test_the_command_refuses_what_it_cannot_do(rigs: Rigs) -> None:
    rig = rigs()
    rig.tick()
    config = str(rig.folder / "gateway.yaml")
    done = CliRunner().invoke(main, ["rollback", "--local", "--config", config, "nobody"])
    assert done.exit_code == 1
    assert "this node serves no 'nobody'" in done.output


def test_a_halt_that_cannot_be_read_is_set_aside_and_said(rigs: Rigs, caplog: pytest.LogCaptureFixture) -> None:
    rig = rigs()
    (rig.data / FOLDER).mkdir(exist_ok=True)
    (rig.data / FOLDER / "x.json").write_text(json.dumps({"endpoint": "rank"}))
    rig.tick()
    assert "not a halt" in caplog.text
    assert rig.split == {"a": 0.99, "b": 0.01}


def test_a_person_who_resumes_or_an_experiment_that_has_ended_ends_a_halt(rigs: Rigs) -> None:
    rig = rigs()
    rig.tick()
    rig.control.command("rank", "rollback", "ada", "")
    halt = Halt(
        endpoint="rank",
        experiment="one",
        variant="b",
        reason="manual",
        text="late",
        actor="bob",
        at=rig.clock.wall_us(),
    )
    write(rig.data / FOLDER, halt)
    rows = len(rig.sqlite.ledger())
    rig.tick(0.1)
    assert list((rig.data / FOLDER).iterdir()) == []
    assert len(rig.sqlite.ledger()) == rows


def test_after_a_promotion_it_is_the_new_champion_that_stops(rigs: Rigs) -> None:
    endpoint: dict[str, Any] = experiment()
    endpoint["experiment"]["holdback"] = {"traffic": "10%", "watch": "1h"}
    rig = rigs(endpoint=endpoint)
    rig.tick()
    rig.control.command("rank", "promote", "ada", "")
    rig.tick()
    assert rig.split == {"a": 0.1, "b": 0.9}
    rig.store.fail()
    halt = Halt(
        endpoint="rank",
        experiment="one",
        variant="",
        reason="manual",
        text="worse",
        actor="ada",
        at=rig.clock.wall_us(),
    )
    write(rig.data / FOLDER, halt)
    rig.tick(0.1)
    assert rig.split == {"a": 1.0}
    assert rig.plan.endpoints[0].champion.name == "a"
    rig.store.heal()
    rig.tick(0.1)
    assert rig.status == "rolled_back"
    assert rig.split == {"a": 1.0}


def test_a_halt_from_before_a_persons_decision_says_nothing(rigs: Rigs) -> None:
    rig = rigs()
    rig.tick()
    state = rig.state
    early = rig.clock.wall_us()
    rig.clock.advance(5.0)
    rig.control.command("rank", "hold", "ada", "wait")
    rig.control.command("rank", "resume", "ada", "go on")
    write(
        rig.data / FOLDER,
        Halt(
            endpoint="rank", experiment=state.experiment, variant="b", reason="manual", text="x", actor="bob", at=early
        ),
    )
    rig.tick(0.1)
    assert rig.status == "running"
    assert list((rig.data / FOLDER).iterdir()) == []


def test_the_halt_of_a_loser_does_not_stop_the_winner(rigs: Rigs) -> None:
    endpoint: dict[str, Any] = experiment("one", "a", "b", "c")
    endpoint["experiment"]["holdback"] = {"traffic": "10%", "watch": "1h"}
    rig = rigs(endpoint=endpoint)
    rig.tick()
    rig.control.command("rank", "promote", "ada", "", "b")
    rig.tick()
    assert rig.split == {"a": 0.1, "b": 0.9}
    at = rig.clock.wall_us() + 1
    write(
        rig.data / FOLDER,
        Halt(endpoint="rank", experiment="one", variant="c", reason="kill_rule", text="x", actor="gateway", at=at),
    )
    rig.tick(0.1)
    assert rig.split == {"a": 0.1, "b": 0.9}
    assert rig.status == "promoted"


def test_halts_of_names_that_look_alike_are_two(tmp_path: Path) -> None:
    halts = Halts(tmp_path)
    for endpoint, variant in (("a", "b-c"), ("a-b", "c"), ("a.b", "c")):
        halt = Halt(
            endpoint=endpoint, experiment="one", variant=variant, reason="kill_rule", text="x", actor="gateway", at=1
        )
        assert halts.add(halt)
    assert len(halts.all) == 3


def test_a_plan_of_the_outage_is_recorded_once_whenever_the_store_failed(rigs: Rigs) -> None:
    rig = rigs()
    rig.store.fail()
    rig.failures("b", ok=0, error=9)
    rig.tick(0.1)
    rig.tick(0.1)
    rig.store.heal()
    rig.tick(0.1)
    rig.tick(0.1)
    assert rig.control.store_error == ""
    assert rig.status == "rolled_back"


def test_a_plan_written_on_the_spot_is_taken_over_with_its_number(rigs: Rigs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control process lives, but it hangs."""
    monkeypatch.setattr("gateway.cli.local.PATIENCE", 0.0)
    rig = rigs()
    rig.tick()
    config = str(rig.folder / "gateway.yaml")
    done = CliRunner().invoke(main, ["rollback", "--local", "--config", config, "rank"])
    assert done.exit_code == 0, done.output
    theirs = rig.plan
    rig.tick(0.1)
    assert rig.plan.revision > theirs.revision
    assert rig.status == "rolled_back"
    rig.tick(0.1)
    assert rig.sqlite.plan_slots(theirs.revision, "rank") == theirs.endpoints[0].slots


def test_a_round_that_fails_in_any_way_is_begun_again(rigs: Rigs, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rigs()
    rig.tick()

    def full(*_: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("gateway.spool.reader.discover", full)
        rig.tick(0.1)
        assert "Too many open files" in rig.control.store_error
    rig.tick(0.1)
    assert rig.control.store_error == ""
