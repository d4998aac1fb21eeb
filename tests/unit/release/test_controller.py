"""The control loop over a real store: decisions once and recorded, outages survived, people obeyed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import ConfigError, StoreError, UnknownEndpoint
from gateway.release.stages import IllegalMove
from gateway.release.state import Kind
from gateway.telemetry import metrics
from tests.unit.release.configs import experiment, fixed
from tests.unit.release.rig import Rig, Rigs


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def advance_to_the_end(rig: Rig) -> None:
    for stage in ("traffic-10%", "traffic-50%"):
        rig.units(20)
        rig.tick()
        assert rig.state.stage == stage


def test_the_whole_way_to_promotion(rig: Rig) -> None:
    assert rig.split == {"a": 0.99, "b": 0.01}
    advance_to_the_end(rig)
    assert rig.split == {"a": 0.5, "b": 0.5}
    rig.units(300, better=0.4)
    rig.tick()
    rig.tick(0.1)
    assert rig.state.status == "promoted"
    assert rig.split == {"b": 1.0}
    assert rig.plan.endpoints[0].champion.name == "b"
    assert rig.kinds == ["start", "advance", "advance", "promote"]
    row = rig.sqlite.ledger()[-1]
    assert row.body["from"] == {"status": "running", "stage": "traffic-50%", "champion": "a"}
    assert row.body["to"] == {"status": "promoted", "stage": "traffic-50%", "champion": "b"}
    assert row.body["actor"] == "gateway"
    assert row.body["config_digest"] == rig.control.loaded.digest
    assert row.body["evidence"]["verdict"] == "better"
    assert row.step == rig.plan.as_of == rig.control.engine.step_number
    assert rig.sqlite.broken_link() is None


def test_promotion_waits_until_every_spool_is_past_the_verdict(rig: Rig) -> None:
    advance_to_the_end(rig)
    rig.units(300, better=0.4)
    rig.clock.advance(61.0)
    rig.requests.heartbeat()
    rig.outcomes.heartbeat()
    rig.clock.advance(0.5)
    rig.control.tick()
    assert rig.control.run("one").decision.reason == "promotion_waits"  # type: ignore[union-attr]
    assert rig.status == "running"
    rig.tick(0.1)
    assert rig.status == "promoted"


def test_harm_rolls_back_and_quarantines(rig: Rig) -> None:
    rig.units(300, better=-0.4)
    rig.tick()
    assert (rig.state.status, rig.state.champion) == ("rolled_back", "a")
    assert rig.split == {"a": 1.0}
    assert rig.sqlite.quarantined("rank", "http://127.0.0.1:9001") == "one"
    rig.endpoint = experiment("two")
    rig.control.take(rig.load())
    assert rig.state.hold == "quarantined: experiment one rolled this artifact back; `resume` tries it again"
    assert rig.split == {"a": 1.0}
    rig.tick()
    assert rig.split == {"a": 1.0}
    rig.control.command("rank", "resume", "ada", "fixed the upstream")
    assert rig.split == {"a": 0.99, "b": 0.01}
    assert rig.sqlite.quarantined("rank", "http://127.0.0.1:9001") is None


def test_plain_failures_stop_the_challenger_without_statistics(rig: Rig) -> None:
    rig.failures("a", 100, 0)
    rig.tick()
    rig.failures("b", 1, 5)
    rig.tick(0.1)
    assert rig.state.status == "rolled_back"
    assert rig.sqlite.ledger()[-1].body["reason"] == "kill_rule"
    assert rig.split == {"a": 1.0}


def test_the_kill_rule_survives_a_restart(rig: Rig) -> None:
    rig.failures("b", 0, 3)
    rig.tick()
    rig.restart()
    rig.failures("b", 0, 2)
    rig.tick(0.1)
    assert rig.state.status == "rolled_back"


def test_lost_facts_hold_what_goes_up(rig: Rig) -> None:
    rig.tick()
    rig.page.words[rig.page.slot(metrics.SPOOL_FAILURES.name, ("requests",))] += 1
    rig.units(20)
    rig.tick()
    assert rig.state.stage == "traffic-1%"
    assert rig.control.run("one").decision.reason == "facts_lost"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("automation", "rolls_back", "advances"),
    [("off", False, False), ("recommend", False, False), ("rollback_only", True, False), ("full", True, True)],
)
def test_automation_bounds_what_happens_by_itself(
    rigs: Rigs, automation: str, rolls_back: bool, advances: bool
) -> None:
    endpoint = experiment()
    endpoint["experiment"]["automation"] = automation
    harmed, fine = rigs(endpoint=endpoint), rigs(endpoint=endpoint)
    harmed.units(300, better=-0.4)
    harmed.tick()
    assert (harmed.state.status == "rolled_back") == rolls_back
    assert harmed.control.run("one").decision.kind == "rollback"  # type: ignore[union-attr]
    fine.units(20)
    fine.tick()
    assert (fine.state.stage == "traffic-10%") == advances


@pytest.mark.parametrize(("on", "split"), [("champion", {"a": 1.0}), ("hold", {"a": 0.99, "b": 0.01})])
def test_an_inconclusive_end(rigs: Rigs, on: str, split: dict[str, float]) -> None:
    rig = rigs(endpoint=experiment(max_duration="1h", on_inconclusive=on))
    for _ in range(3):
        rig.tick(3600.0)
    assert rig.split == split
    assert rig.kinds == ["start", "inconclusive" if on == "champion" else "hold"], "once, not at every tick"
    assert rig.state.status == ("inconclusive" if on == "champion" else "running")


def test_people_command(rig: Rig) -> None:
    rig.control.command("rank", "hold", "ada", "wait for legal")
    rig.units(20)
    rig.tick()
    assert (rig.state.stage, rig.state.hold) == ("traffic-1%", "wait for legal")
    rig.control.command("rank", "resume", "ada", "")
    rig.tick()
    assert rig.state.stage == "traffic-10%"
    rig.control.command("rank", "promote", "ada", "we know")
    assert rig.split == {"b": 1.0}
    rig.control.command("rank", "rollback", "ada", "we do not")
    assert rig.split == {"a": 1.0}
    assert rig.kinds == ["start", "hold", "resume", "advance", "promote", "rollback"]
    assert rig.sqlite.ledger()[-1].body["actor"] == "ada"
    assert rig.sqlite.ledger()[2].body["text"] == "asked for by ada"
    kinds: tuple[Kind, ...] = ("hold", "resume", "promote", "rollback")
    for kind in kinds:
        with pytest.raises(IllegalMove):
            rig.control.command("rank", kind, "ada", "")
    with pytest.raises(UnknownEndpoint):
        rig.control.command("nowhere", "hold", "ada", "")


def test_a_rollback_needs_a_champion_to_go_back_to(rig: Rig) -> None:
    rig.control.command("rank", "promote", "ada", "")
    rig.endpoint = fixed(b="100%")
    rig.control.take(rig.load())
    with pytest.raises(UnknownEndpoint):
        rig.control.command("rank", "rollback", "ada", "")
    assert rig.split == {"b": 1.0}


def test_a_held_release_with_a_lost_stage_ticks_on_and_resumes(rig: Rig) -> None:
    rig.endpoint["experiment"]["stages"] = [{"traffic": "5%"}, {"traffic": "50%"}]
    rig.control.take(rig.load())
    assert rig.state.hold.startswith("config changed")
    rig.units(20)
    rig.tick()
    assert rig.control.run("one").decision.reason == "held"  # type: ignore[union-attr]
    assert rig.split == {"a": 0.99, "b": 0.01}
    rig.control.command("rank", "resume", "ada", "")
    assert rig.split == {"a": 0.95, "b": 0.05}


def test_a_refused_config_changes_nothing(rig: Rig) -> None:
    before, revision = rig.control.loaded, rig.plan.revision
    rig.endpoint["metrics"]["score"]["window"] = "2m"
    with pytest.raises(ConfigError):
        rig.control.take(rig.load())
    assert rig.control.loaded is before
    assert rig.plan.revision == revision
    assert rig.kinds == ["start"]


def test_the_last_decision_is_known_after_a_restart_however_long_ago_it_was(rig: Rig) -> None:
    for number in range(200):
        rig.sqlite.append_ledger(number, 1, "other", "busy", "hold", {"text": "", "reason": "", "actor": "ada"})
    rig.restart()
    rig.tick()
    last = rig.control.run("one").last
    assert last is not None
    assert (last.experiment, last.kind) == ("one", "start")


def test_a_withdrawn_experiment_is_in_the_ledger(rig: Rig) -> None:
    rig.units(20)
    rig.tick()
    rig.endpoint = experiment("two")
    rig.control.take(rig.load())
    rows = rig.sqlite.ledger()
    assert [(row.kind, row.experiment) for row in rows[1:]] == [
        ("advance", "one"),
        ("withdraw", "one"),
        ("start", "two"),
    ]
    assert rows[2].body["evidence"]["units"] == 20
    assert (
        rows[3].body["from"]
        == rows[2].body["from"]
        == {
            "status": "running",
            "stage": "traffic-10%",
            "champion": "a",
        }
    )


def test_an_outage_pauses_decisions_and_leaves_the_plan(rig: Rig) -> None:
    rig.units(20)
    served = rig.plan
    rig.store.fail()
    for _ in range(3):
        rig.tick()
    assert rig.control.store_error == "the disk is gone"
    assert rig.plan == served
    assert rig.state.stage == "traffic-1%"
    with pytest.raises(StoreError):
        rig.control.command("rank", "promote", "ada", "")
    assert rig.plan == served
    rig.store.heal()
    rig.tick()
    assert rig.control.store_error == ""
    assert rig.state.stage == "traffic-10%"
    assert rig.kinds == ["start", "advance"]


def journey(rig: Rig, *, disturb: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """To promotion; `disturb` is called before every tick."""
    for better in (0.0, 0.0, 0.6):
        rig.units(120 if better else 12, better=better)
        for seconds in (61.0, 0.1, 0.1, 0.1):
            disturb()
            rig.tick(seconds)
    return {
        "kinds": rig.kinds,
        "split": rig.split,
        "evidence": rig.sqlite.evidence("one"),
        "state": rig.state.status,
        "counts": (rig.control.engine.units("one"), rig.control.engine.folded("one")),
    }


def test_a_failure_at_any_call_of_the_store_is_made_good_by_the_next_ticks(rigs: Rigs) -> None:
    calm = journey(rigs())
    assert calm["kinds"] == ["start", "advance", "advance", "promote"]
    moment = 0
    while True:
        moment += 1
        rig = rigs()
        rig.store.fail(at=moment)
        assert journey(rig) == calm, f"failed at call {moment}"
        assert rig.sqlite.broken_link() is None
        last = rig.sqlite.last_plan()
        assert last is not None
        assert rig.plan.revision == last.revision
        assert rig.plan.as_of == last.as_of
        if rig.store.calls < moment:
            break
        rigs.close()
    assert moment > 100


def test_restarts_between_all_ticks_change_no_decision(rigs: Rigs) -> None:
    calm, rig = journey(rigs()), rigs()

    def restart() -> None:
        rig.restart()

    assert journey(rig, disturb=restart) == calm


def test_a_plan_that_could_not_be_written_follows_with_the_next_tick(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gateway.plan.write", full)
    rig.control.command("rank", "rollback", "ada", "now")
    assert rig.state.status == "rolled_back"
    assert rig.split == {"a": 0.99, "b": 0.01}
    assert "No space left" in rig.control.store_error
    rig.tick(0.1)
    monkeypatch.undo()
    rig.tick(0.1)
    assert rig.split == {"a": 1.0}
    assert rig.control.store_error == ""
    assert rig.kinds == ["start", "rollback"]
    assert rig.plan.revision == rig.sqlite.last_plan().revision  # type: ignore[union-attr]


def test_a_crash_between_the_move_and_the_plan_is_made_good_at_the_start(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.release.controller.Controller._publish_or_fail", lambda _: None)
    rig.control.command("rank", "rollback", "ada", "now")
    monkeypatch.undo()
    assert rig.split == {"a": 0.99, "b": 0.01}
    rig.restart()
    assert rig.split == {"a": 1.0}
    assert rig.kinds == ["start", "rollback"]


def test_a_deleted_plan_is_written_again(rig: Rig) -> None:
    before = rig.plan
    (rig.data / "plan.json").unlink()
    rig.tick(0.1)
    assert rig.plan == before


def test_a_config_that_comes_during_an_outage_can_be_taken_again(rig: Rig) -> None:
    rig.endpoint = experiment("two")
    for moment in range(1, 8):
        rig.store.fail(at=moment)
        with pytest.raises(StoreError):
            rig.control.take(rig.load())
        rig.store.heal()
        rig.tick(0.1)
        assert rig.state.experiment == "one"
        assert rig.kinds == ["start"]
    rig.control.take(rig.load())
    assert rig.state.experiment == "two"
    assert rig.kinds == ["start", "withdraw", "start"]


def test_a_second_decider_loses(rig: Rig) -> None:
    other = rig.restart
    first = rig.control
    second = other()
    second.command("rank", "hold", "ada", "mine")
    with pytest.raises(StoreError, match="changed by somebody else"):
        first.command("rank", "rollback", "bob", "")
    rig.control = first
    first._fail(StoreError("stale"))
    rig.tick(0.1)
    assert rig.state.hold == "mine"
    assert rig.kinds == ["start", "hold"]
