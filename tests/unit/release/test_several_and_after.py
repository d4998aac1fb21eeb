"""The control loop with several challengers, in a trial of equals, and after a promotion."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from gateway.plan import KeptPlan, Slot
from gateway.release.stages import IllegalMove
from gateway.release.state import Kind
from tests.unit.release.configs import experiment, fixed
from tests.unit.release.rig import Rig, Rigs

B, C = "http://127.0.0.1:9001", "http://127.0.0.1:9002"


def staged(endpoint: dict[str, Any]) -> dict[str, Any]:
    """Stages at which a few hundred units say something."""
    shares = ("10%", "20%", "30%")
    endpoint["experiment"]["stages"] = [{"traffic": share, "min_challenger_units": 5} for share in shares]
    return endpoint


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@pytest.fixture
def several(rigs: Rigs) -> Rig:
    return rigs(endpoint=staged(experiment("one", "a", "b", "c")))


def advance_to_the_end(rig: Rig) -> None:
    for stage in [rule.name for rule in rig.control.rules("rank").stages][1:]:
        rig.units(100, fair=True)
        rig.tick()
        assert rig.state.stage == stage


def last_row(rig: Rig) -> dict[str, Any]:
    return rig.sqlite.ledger()[-1].body


def test_a_harmful_one_of_several_leaves_and_the_other_is_promoted(several: Rig) -> None:
    assert several.split == {"a": 0.8, "b": 0.1, "c": 0.1}
    several.units(300, better={"b": -0.4}, fair=True)
    several.tick()
    assert several.split == {"a": 0.9, "c": 0.1}
    assert (several.state.challenger, several.state.challengers) == ("c", ("c",))
    assert (last_row(several)["reason"], last_row(several)["variant"]) == ("harm_score", "b")
    assert several.sqlite.quarantined("rank", B) == "one"
    assert several.sqlite.quarantined("rank", C) is None
    several.restart()
    for _ in range(3):
        several.units(400, better={"c": 0.4}, fair=True)
        several.tick()
    several.tick(0.1)
    assert (several.status, several.split) == ("promoted", {"c": 1.0})
    assert several.kinds == ["start", "drop", "advance", "advance", "promote"]
    assert several.state.challenger == "c"


def test_a_futile_one_of_several_leaves_without_blame(several: Rig) -> None:
    advance_to_the_end(several)
    while several.status == "running":
        several.units(200, better={"c": 0.15}, fair=True)
        several.tick()
        several.tick(0.1)
    drop, promote = several.sqlite.ledger()[-2:]
    assert (drop.kind, drop.body["variant"]) == ("drop", "b")
    assert drop.body["reason"] in ("futility", "equivalent")
    assert several.sqlite.quarantined("rank", B) is None
    assert (promote.kind, promote.body["variant"]) == ("promote", "c")


def test_the_kill_rule_takes_out_whoever_fails(several: Rig) -> None:
    several.failures("a", 100, 0)
    several.tick()
    several.failures("c", 1, 5)
    several.tick(0.1)
    assert (several.split, last_row(several)["reason"]) == ({"a": 0.9, "b": 0.1}, "kill_rule")
    several.failures("b", 1, 5)
    several.tick(0.1)
    assert (several.status, several.split) == ("rolled_back", {"a": 1.0})
    assert several.kinds == ["start", "drop", "rollback"]
    assert several.sqlite.quarantined("rank", B) == several.sqlite.quarantined("rank", C) == "one"


@pytest.mark.parametrize(("automation", "split"), [("rollback_only", {"a": 0.9, "c": 0.1}), ("recommend", None)])
def test_automation_bounds_a_drop_like_a_rollback(rigs: Rigs, automation: str, split: dict[str, float] | None) -> None:
    endpoint = staged(experiment("one", "a", "b", "c"))
    endpoint["experiment"]["automation"] = automation
    rig = rigs(endpoint=endpoint)
    rig.units(300, better={"b": -0.4}, fair=True)
    rig.tick()
    assert rig.split == (split or {"a": 0.8, "b": 0.1, "c": 0.1})


def test_people_say_whom_they_mean(several: Rig) -> None:
    kinds: tuple[Kind, ...] = ("promote", "drop")
    for kind in kinds:
        with pytest.raises(IllegalMove, match="which challenger of rank: b or c"):
            several.control.command("rank", kind, "ada", "")
        with pytest.raises(IllegalMove, match="x is not in the running"):
            several.control.command("rank", kind, "ada", "", "x")
    several.control.command("rank", "drop", "ada", "too slow", "c")
    assert several.sqlite.quarantined("rank", C) == "one"
    several.control.command("rank", "promote", "ada", "")
    assert (several.split, several.state.champion) == ({"b": 1.0}, "b")


def test_a_persons_rollback_sends_all_of_them_back(several: Rig) -> None:
    several.control.command("rank", "rollback", "ada", "")
    assert several.split == {"a": 1.0}
    assert several.sqlite.quarantined("rank", B) == several.sqlite.quarantined("rank", C) == "one"
    several.endpoint = staged(experiment("two", "a", "b", "c"))
    several.control.take(several.load())
    assert several.state.hold == "quarantined: experiment one rolled the artifact of b back; `resume` tries it again"
    several.control.command("rank", "resume", "ada", "we know")
    assert several.split == {"a": 0.8, "b": 0.1, "c": 0.1}
    assert several.sqlite.quarantined("rank", B) is several.sqlite.quarantined("rank", C) is None


def test_every_plan_is_written_down_with_its_slots(several: Rig) -> None:
    several.control.command("rank", "drop", "ada", "", "b")
    row = several.sqlite.last_plan()
    assert row is not None
    slots = several.plan.endpoints[0].slots
    assert json.loads(row.slots) == {"rank": [[slot.start, slot.variant] for slot in slots]}
    assert several.sqlite.plan_slots(row.revision, "rank") == slots
    assert len(several.sqlite.plan_slots(1, "rank")) >= 4
    assert all(isinstance(slot, Slot) for slot in several.sqlite.plan_slots(1, "rank"))


def watched_experiment(**holdback: Any) -> dict[str, Any]:
    endpoint = staged(experiment())
    endpoint["experiment"]["holdback"] = {"traffic": "10%", "watch": "1d", "run_length": 1000} | holdback
    return endpoint


@pytest.fixture
def watched(rigs: Rigs) -> Rig:
    rig = rigs(endpoint=watched_experiment())
    advance_to_the_end(rig)
    rig.units(300, better=0.4, fair=True)
    rig.tick()
    rig.tick(0.1)
    assert rig.kinds[-1] == "promote"
    return rig


def test_a_promotion_with_a_holdback_is_watched_to_its_end(watched: Rig) -> None:
    assert (watched.status, watched.split) == ("promoted", {"a": 0.1, "b": 0.9})
    endpoint = watched.plan.endpoints[0]
    assert (endpoint.champion.name, endpoint.stage, endpoint.salt) == ("b", "watch", "one")
    watched.units(200, better=0.4, fair=True)
    watched.tick()
    watched.restart()
    watched.tick(23 * 3600.0)
    assert watched.control.run("one").decision.reason == "watching"  # type: ignore[union-attr]
    assert watched.split == {"a": 0.1, "b": 0.9}
    watched.tick(3600.0)
    assert (watched.status, watched.split, watched.state.former) == ("promoted", {"b": 1.0}, "")
    assert watched.kinds[-2:] == ["promote", "complete"]
    watched.tick()
    watched.control.command("rank", "rollback", "ada", "we know better")
    assert watched.split == {"a": 1.0}


def test_an_alarm_in_the_watch_goes_back(watched: Rig) -> None:
    watched.units(900, better=-0.3, fair=True)
    watched.tick()
    assert (watched.status, watched.split) == ("rolled_back", {"a": 1.0})
    assert (last_row(watched)["reason"], last_row(watched)["variant"]) == ("watch_score", "b")
    assert last_row(watched)["from"] == {"status": "promoted", "stage": "watch", "champion": "b"}
    assert watched.sqlite.quarantined("rank", B) == "one"


def test_failures_of_the_new_champion_alarm_too(watched: Rig) -> None:
    watched.units(600, errors="b", better=0.4, fair=True)
    watched.tick()
    assert (watched.status, last_row(watched)["reason"]) == ("rolled_back", "watch_errors")


@pytest.mark.parametrize(("automation", "after"), [("rollback_only", "rolled_back"), ("recommend", "promoted")])
def test_automation_bounds_the_watch(rigs: Rigs, automation: str, after: str) -> None:
    endpoint = watched_experiment()
    endpoint["experiment"]["automation"] = automation
    harmed, fine = rigs(endpoint=endpoint), rigs(endpoint=endpoint)
    for rig in (harmed, fine):
        rig.control.command("rank", "promote", "ada", "")
    harmed.units(900, better=-0.3, fair=True)
    harmed.tick()
    assert harmed.status == after
    fine.tick(25 * 3600.0)
    assert fine.state.watching
    assert fine.control.run("one").decision.kind == "complete"  # type: ignore[union-attr]
    fine.control.command("rank", "complete", "ada", "fine")
    assert fine.split == {"b": 1.0}


def test_a_watch_that_an_edit_ends_is_in_the_ledger(watched: Rig) -> None:
    watched.endpoint = fixed(b="100%", a="0%")
    watched.control.take(watched.load())
    assert watched.split == {"b": 1.0}
    assert (watched.kinds[-1], last_row(watched)["text"]) == (
        "withdraw",
        "the config no longer has experiment one; the watch ends, a keeps no holdback",
    )


def restricted_experiment() -> dict[str, Any]:
    endpoint = staged(experiment(segment_harm="restrict"))
    endpoint["segments"] = {"origin": {"from": "header:x-origin", "values": ["EWR", "JFK"]}}
    return endpoint


@pytest.mark.parametrize("by_hand", [False, True])
def test_harmed_segments_stay_with_the_old_champion(rigs: Rigs, by_hand: bool) -> None:
    rig = rigs(endpoint=restricted_experiment())
    advance_to_the_end(rig)
    rig.units(900, better=0.4, segments=("JFK",), fair=True)
    rig.units(300, better=-0.2, segments=("EWR",), fair=True)
    if by_hand:
        rig.endpoint["experiment"]["automation"] = "recommend"
        rig.control.take(rig.load())
    rig.tick()
    rig.tick(0.1)
    if by_hand:
        assert rig.status == "running"
        rig.restart()  # which forgets every report
        rig.control.command("rank", "promote", "ada", "as advised")
    assert (rig.status, rig.split) == ("promoted", {"b": 1.0})
    assert rig.state.kept == rig.plan.endpoints[0].kept == (KeptPlan(segment="origin", value="EWR", variant="a"),)
    assert last_row(rig)["text"].endswith("; origin=EWR stays with a")
    rig.restart()
    assert rig.plan.endpoints[0].kept
    rig.control.command("rank", "rollback", "ada", "")
    assert not rig.plan.endpoints[0].kept


def trial() -> dict[str, Any]:
    endpoint = staged(experiment())
    endpoint["experiment"]["aa"] = True
    endpoint["variants"]["b"]["url"] = endpoint["variants"]["a"]["url"]
    return endpoint


def test_a_trial_of_equals_counts_its_false_alarms_and_advances_all_the_same(rigs: Rigs) -> None:
    rig = rigs(endpoint=trial())
    rig.units(300, better=-0.4, fair=True)
    rig.tick()
    rig.tick(0.1)
    rig.restart()
    for _ in range(3):
        rig.units(100, fair=True)
        rig.tick()
    rows = [(row.kind, row.body["reason"]) for row in rig.sqlite.ledger()]
    assert rows == [
        ("start", "config"),
        ("continue", "aa_rollback"),
        ("advance", "stage_passed"),
        ("advance", "stage_passed"),
    ]
    assert rig.split == {"a": 0.7, "b": 0.3}
    assert rig.control.run("one").decision.text.startswith("would roll b back: score is worse")  # type: ignore[union-attr]
    rig.failures("b", 1, 5)
    rig.tick(0.1)
    assert (rig.status, last_row(rig)["reason"]) == ("rolled_back", "kill_rule")


def test_a_failing_store_neither_loses_nor_repeats_a_false_alarm(rigs: Rigs) -> None:
    moment = 0
    while True:
        moment += 1
        rig = rigs(endpoint=trial())
        rig.units(100, better=-0.4, fair=True)
        rig.store.fail(at=moment)
        for seconds in (61.0, 0.1, 0.1):
            rig.tick(seconds)
        rows = [row.body["reason"] for row in rig.sqlite.ledger()]
        assert rows == ["config", "aa_rollback", "stage_passed"], f"failed at call {moment}"
        if rig.store.calls < moment:
            break
        rigs.close()
    assert moment > 30


def test_nobody_is_promoted_by_hand_in_a_trial_of_equals_and_nothing_of_it_is_a_suspect(rigs: Rigs) -> None:
    rig = rigs(endpoint=trial())
    with pytest.raises(IllegalMove, match="nobody to promote"):
        rig.control.command("rank", "promote", "me", "")
    rig.control.command("rank", "rollback", "me", "enough")
    champion, challenger = (rig.endpoint["variants"][name]["url"] for name in ("a", "b"))
    assert champion == challenger
    assert rig.sqlite.quarantined("rank", champion) is None
