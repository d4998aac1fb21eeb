"""What becomes of a release whose model brings workers down: rolled back, spared on this node, or neither."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import ends
from gateway.backends.onnx import ModelError, digest
from gateway.errors import GatewayError
from gateway.release import judging
from gateway.release.attempts import attempt, forget, settle
from gateway.release.guard import Guard
from gateway.release.health import Preparation
from gateway.release.policy import decide
from gateway.release.state import Decision
from gateway.release.view import View
from gateway.telemetry.native import Marks
from gateway.telemetry.status_page import StatusPage, Word, progress
from tests.unit.release.configs import copied, experiment, fixed
from tests.unit.release.rig import Rig, Rigs

Crash = Callable[..., None]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def with_files(folder: Path, endpoint: dict[str, Any]) -> dict[str, Any]:
    found = endpoint | {"protocol": "oip"}
    for name, model in (("a", "logistic"), ("b", "boosted")):
        found["variants"][name]["onnx"] = str(copied(folder, name, model))
        del found["variants"][name]["url"]
    return found


@pytest.fixture
def crash(tmp_path: Path) -> Crash:
    """A worker dies in native code while the models of these variants run; nothing else happens within a second.

    Or it did so some time `ago`, and nobody looks yet.
    """
    spool = 10

    def crash(rig: Rig, variants: str, how: str = "SIGSEGV", ago: float | None = None) -> None:
        nonlocal spool
        spool += 1
        page = StatusPage(rig.data / "status" / f"{spool:08d}-ff.page")
        page.words[Word.SPOOL] = spool
        page.words[Word.HEARTBEAT_US] = rig.clock.wall_us() - round((ago or 0) * 1e6)
        for variant in variants:  # a letter each
            Marks(page).of("rank", variant, digest(tmp_path / f"{variant}.onnx"))[1].__enter__()
        page.close()
        ends.tell(rig.data / "status", spool, how)
        if ago is None:
            rig.tick(1.0)

    return crash


def running(rigs: Rigs, folder: Path, automation: str = "full") -> Rig:
    endpoint = with_files(folder, experiment())
    endpoint["experiment"]["automation"] = automation
    return rigs(endpoint=endpoint)


def why(rig: Rig) -> list[Preparation]:
    return rig.control.health.preparations(rig.control.plan)


def test_two_crashes_roll_a_challenger_back_and_its_file_is_quarantined(
    rigs: Rigs, tmp_path: Path, crash: Crash
) -> None:
    rig = running(rigs, tmp_path)
    crash(rig, "b")
    assert rig.status == "running"
    crash(rig, "b")
    assert rig.status == "rolled_back"
    assert rig.split == {"a": 1.0}
    assert [one.name for one in rig.plan.endpoints[0].variants] == ["a"], "nobody loads it any more"
    assert rig.sqlite.ledger()[-1].body["reason"] == "crashes"
    assert rig.sqlite.quarantined("rank", digest(tmp_path / "b.onnx")) == "one"


def test_where_nothing_moves_by_itself_the_node_does_without_the_challenger(
    rigs: Rigs, tmp_path: Path, crash: Crash
) -> None:
    rig = running(rigs, tmp_path, "recommend")
    before = rig.state
    for _ in range(2):
        crash(rig, "b")
    assert rig.state == before
    assert rig.split == {"a": 1.0}
    decision = rig.control.run("one").decision
    assert decision is not None
    assert (decision.kind, decision.reason) == ("rollback", "crashes")
    (told,) = why(rig)
    assert (told.variant, told.loaded) == ("b", 0)
    assert "2 workers crashed within 60 s" in told.errors[0]
    assert len(told.errors) == told.workers == 1


def test_who_promotes_by_hand_takes_the_blame(rigs: Rigs, tmp_path: Path, crash: Crash) -> None:
    rig = running(rigs, tmp_path, "off")
    for _ in range(2):
        crash(rig, "b")
    rig.control.command("rank", "promote", "ada", "")
    assert [one.errors for one in why(rig)] == [()]
    assert [one.endpoint for one in rig.plan.prepare] == ["rank"], "it is loaded again"


def test_the_champion_stays_and_a_kill_blames_nobody(rigs: Rigs, tmp_path: Path, crash: Any) -> None:
    rig = running(rigs, tmp_path)
    before = rig.split
    for _ in range(3):
        crash(rig, "a")
        crash(rig, "b", "SIGKILL")
    assert rig.status == "running"
    assert rig.split == before
    assert why(rig) == []


def test_crashes_count_from_when_they_were_and_not_from_when_they_are_seen(
    rigs: Rigs, tmp_path: Path, crash: Crash
) -> None:
    """Nobody was there to look, and the pages of the dead lie where they were."""
    far, near = running(rigs, tmp_path), running(rigs, tmp_path)
    crash(far, "b", ago=1.0)
    crash(far, "b", ago=3600.0)
    far.tick(1.0)
    assert far.status == "running"
    crash(near, "b", ago=3600.0)
    crash(near, "b", ago=3650.0)
    near.tick(1.0)
    assert near.status == "rolled_back"


def test_a_champion_that_crashes_can_be_edited(rigs: Rigs, tmp_path: Path, crash: Crash) -> None:
    """It serves on, so whoever looks for a cure must be able to try one."""
    rig = rigs(endpoint=with_files(tmp_path, fixed(a="60%", b="40%")))
    for _ in range(2):
        crash(rig, "a")
    rig.endpoint["variants"]["a"]["threads"] = 2
    copied(tmp_path, "b", "twin")
    rig.control.take(rig.load())
    assert [(one.variant.name, one.variant.threads) for one in rig.plan.prepare] == [("a", 2), ("b", 1)]
    assert [one.variant for one in why(rig)] == ["a", "b"]


def test_a_new_champion_that_crashes_who_loads_it_is_told(rigs: Rigs, tmp_path: Path, crash: Crash) -> None:
    rig = rigs(endpoint=with_files(tmp_path, fixed(a="60%", b="40%")))
    copied(tmp_path, "a", "twin")
    rig.control.take(rig.load())
    for _ in range(2):
        crash(rig, "a")
    assert rig.plan.prepare == ()
    (told,) = why(rig)
    assert "2 workers crashed within 60 s" in told.errors[0]


def test_a_winner_that_crashes_while_it_is_watched_goes_back(rigs: Rigs, tmp_path: Path, crash: Crash) -> None:
    endpoint = with_files(tmp_path, experiment())
    endpoint["experiment"]["holdback"] = {"traffic": "10%", "watch": "1d"}
    rig = rigs(endpoint=endpoint)
    rig.control.command("rank", "promote", "ada", "")
    assert rig.state.watching
    for _ in range(2):
        crash(rig, "b")
    assert rig.status == "rolled_back"
    assert rig.split == {"a": 1.0}


def test_who_was_champion_beside_a_challenger_that_crashed_is_there_to_compare_the_next_with(
    rigs: Rigs, tmp_path: Path, crash: Crash
) -> None:
    rig = running(rigs, tmp_path)
    for _ in range(2):
        crash(rig, "ab")
    assert rig.status == "rolled_back"
    copied(tmp_path, "b", "twin")
    rig.endpoint["experiment"] |= {"id": "two", "holdback": {"traffic": "10%", "watch": "1d"}}
    rig.control.take(rig.load())
    spool = rig.page.words
    spool[Word.PREPARED] = progress(rig.control.plan_revision, [True])
    rig.tick(1.0)
    rig.control._releases.apply("rank", Decision(kind="promote", reason="better", text="better"), "gateway")
    rig.control._publisher.due = True
    rig.tick(1.0)
    assert rig.state.watching
    assert rig.split == pytest.approx({"a": 0.1, "b": 0.9})


def test_a_resume_tries_again_whatever_state_a_crash_has_left(rigs: Rigs, tmp_path: Path, crash: Crash) -> None:
    """Rolled back, a fixed split, or neither held nor moved."""
    one = running(rigs, tmp_path)
    two = running(rigs, tmp_path, "recommend")
    three = rigs(endpoint=with_files(tmp_path, fixed(a="60%", b="40%")))
    for rig in (one, two, three):
        for _ in range(2):
            crash(rig, "b")
        assert why(rig)[0].errors
        rig.control.command("rank", "resume", "ada", "")
        assert [one.errors for one in why(rig)] == [()]
        assert [one.variant.name for one in rig.plan.prepare] == ["b"]
        with pytest.raises(GatewayError, match=r"resume|is no experiment"):
            rig.control.command("rank", "resume", "ada", "")


def test_without_a_store_the_guard_spares_it(rigs: Rigs, tmp_path: Path, crash: Crash) -> None:
    rig = running(rigs, tmp_path)
    rig.tick()
    guard = Guard(rig.load().config, rig.clock)
    assert rig.split == {"a": 0.99, "b": 0.01}
    for ago in (2.0, 1.0):
        crash(rig, "b", ago=ago)
    guard.tick()
    assert rig.split == {"a": 1.0}


def test_a_stopped_challenger_that_nobody_moves_is_not_looked_at_all_the_time(
    rigs: Rigs, tmp_path: Path, crash: Crash, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = running(rigs, tmp_path, "recommend")
    for _ in range(2):
        crash(rig, "b")
    looks: list[View] = []

    def counted(view: View) -> Decision:
        looks.append(view)
        return decide(view)

    monkeypatch.setattr(judging, "decide", counted)
    for _ in range(20):
        rig.tick(0.1)
    assert 1 <= len(looks) <= 3


def test_a_fixed_split_takes_the_challenger_back_with_another_file(rigs: Rigs, tmp_path: Path, crash: Crash) -> None:
    rig = rigs(endpoint=with_files(tmp_path, fixed(a="60%", b="40%")))
    for _ in range(2):
        crash(rig, "b")
    assert rig.split == {"a": 1.0}
    rig.control.take(rig.load())
    assert rig.split == {"a": 1.0}, "it is the same file"
    copied(tmp_path, "b", "twin")
    rig.control.take(rig.load())
    assert why(rig)[0].errors == ()
    assert [one.variant.name for one in rig.plan.prepare] == ["b"]


Die = Callable[[bool], None]


@pytest.fixture
def die(tmp_path: Path) -> Iterator[Die]:
    """A control process ends while it reads, by a crash or not, and another starts."""
    under_way = []

    def die(crashed: bool) -> None:
        under_way.append(attempt(tmp_path, "ab"))
        under_way[-1].__enter__()
        settle(tmp_path, crashed)

    yield die
    under_way.clear()


def test_a_file_that_nobody_survives_is_read_twice(tmp_path: Path, die: Die) -> None:
    for _ in range(2):
        die(True)
    for _ in range(2):
        with pytest.raises(ModelError, match="brought down the control process 2 times"), attempt(tmp_path, "ab"):
            pass
        settle(tmp_path, True)  # it died of something else
    forget(tmp_path, {"cd"})
    assert len(list(tmp_path.iterdir())) == 1, "or whoever looks at the file again would read it"


def test_a_file_that_was_being_read_when_somebody_stopped_the_node_is_read_again(tmp_path: Path, die: Die) -> None:
    for _ in range(5):
        die(False)
    assert list(tmp_path.iterdir()) == []
    die(True)
    die(False)
    with attempt(tmp_path, "ab"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_crash_while_a_file_was_read_is_forgotten_with_the_file(tmp_path: Path, die: Die) -> None:
    die(True)
    forget(tmp_path, {"ab"})
    assert len(list(tmp_path.iterdir())) == 1
    forget(tmp_path, {"cd"})
    assert list(tmp_path.iterdir()) == []
