"""The status as a person reads it: what a release is about, its verdicts, its watch, and no more than is known."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.admin import views
from gateway.admin.text import duration, estimates_table, not_counted, number, status_view
from gateway.release.intake import ReloadStatus
from tests.unit.admin.printing import printed
from tests.unit.release.configs import experiment
from tests.unit.release.rig import Rig, Rigs


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@pytest.fixture
def rigs(tmp_path: Path) -> Iterator[Rigs]:
    made = Rigs(tmp_path)
    yield made
    made.close()


def endpoint(*challengers: str, **more: Any) -> dict[str, Any]:
    made = experiment("one", "a", *(challengers or ("b",)))
    made["segments"] = {"origin": {"from": "header:x-origin", "values": ["EWR", "JFK"]}}
    made["experiment"]["stages"] = [{"traffic": "20%", "min_challenger_units": 5}]
    made["experiment"].update(more)
    return made


def snapshot(rig: Rig) -> dict[str, Any]:
    """As it goes over the wire."""
    reload = ReloadStatus(rig.clock.wall_us())
    document: dict[str, Any] = orjson.loads(orjson.dumps(views.status(rig.control, reload, rig.clock.wall_us())))
    return document


def text(rig: Rig) -> str:
    return printed(status_view(snapshot(rig)))


def test_one_challenger(rigs: Rigs) -> None:
    rig = rigs(endpoint=endpoint(decision={"futility": "off"}))
    rig.units(300, segments=("EWR",), fair=True)
    rig.tick()
    said = text(rig)
    assert "rank  running  ·  champion a  ·  a 80 %  b 20 %" in said
    assert "experiment one: [traffic-20%]" in said
    assert "continue: before promotion: evidence for score" in said
    assert "b: equivalent; by segment" not in said
    assert "b: equivalent" in said
    assert "challenger minus champion, with anytime-valid 95 % intervals" in said
    lines = said.splitlines()
    (head,) = (line.split() for line in lines if line.startswith(" metric"))
    assert head == ["metric", "segment", "units", "interval", "estimate"]
    assert any("score is better" in line for line in lines)
    assert any("score cannot be much worse" in line for line in lines)
    (ewr,) = (line for line in lines if "origin=EWR" in line)
    assert ewr.split()[:3] == ["score", "origin=EWR", "240"], "of the objective, not of every metric"


def test_several_challengers_get_a_column_and_a_verdict_each(rigs: Rigs) -> None:
    rig = rigs(endpoint=endpoint("b", "c", decision={"futility": "off"}))
    rig.units(400, better={"b": -0.4}, segments=("JFK",), fair=True)
    rig.tick()
    rig.tick(0.1)
    said = text(rig)
    assert "b: worse (no longer in the running); by segment: origin=JFK worse" in said
    assert "last decision: drop by gateway: b: score is worse" in said
    assert "c: equivalent" in said
    lines = said.splitlines()
    assert any(line.split()[:3] == ["challenger", "metric", "segment"] for line in lines)
    assert any(line.split()[:2] == ["c", "score"] for line in lines)
    assert any(line.startswith(" b ") and "score is worse, at its highest (origin=JFK)" in line for line in lines)


def test_the_watch_and_what_was_kept(rigs: Rigs) -> None:
    made = endpoint(holdback={"traffic": "10%", "watch": "10d"}, decision={"segment_harm": "restrict"})
    rig = rigs(endpoint=made)
    rig.units(900, better=0.4, segments=("JFK",), fair=True)
    rig.units(300, better=-0.2, segments=("EWR",), fair=True)
    rig.tick()
    rig.tick(0.1)
    rig.units(100, better=0.4, segments=("JFK",), fair=True)
    rig.tick()
    said = text(rig)
    assert "rank  promoted  ·  champion b  ·  a 10 %  b 90 %" in said
    assert "experiment one: traffic-20% → [watch]" in said
    assert "watched against a, which keeps 10 % for another 10 d" in said
    assert "origin=EWR stays with a" in said
    assert "continue: no sign of harm so far" in said
    assert "last decision: promote by gateway: score is better by [" in said
    assert "estimates at stopping (biased upwards); since the promotion, the honest later one" in said
    assert any("score" in line and "since the promotion" in line for line in said.splitlines())
    experiment_view = snapshot(rig)["endpoints"]["rank"]["experiment"]
    assert experiment_view["watch"] == {
        "former": "a",
        "share": 0.1,
        "seconds_left": pytest.approx(10 * 86_400, abs=100),
    }
    assert experiment_view["kept"] == [{"segment": "origin", "value": "EWR", "variant": "a"}]


def test_without_a_holdback_nothing_honest_comes_later(rigs: Rigs) -> None:
    rig = rigs(endpoint=endpoint())
    rig.units(300, better=-0.4, fair=True)
    rig.tick()
    rig.tick()
    said = text(rig)
    assert "estimates at stopping (biased upwards)\n" in said
    assert "holdback" not in said
    assert "continue" not in said, "what the policy would say is over"


def test_advice_that_is_not_followed_is_called_a_recommendation(rigs: Rigs) -> None:
    rig = rigs(endpoint=endpoint(automation="rollback_only"))
    rig.units(900, better=0.4, fair=True)
    rig.tick()
    rig.tick(0.1)
    assert "recommended, not done (automation: rollback_only): promote: score is better by [" in text(rig)


def test_a_trial_of_equals_says_so(rigs: Rigs) -> None:
    made = endpoint(aa=True)
    made["variants"]["b"]["url"] = made["variants"]["a"]["url"]
    rig = rigs(endpoint=made)
    rig.units(600, better=-0.4, fair=True)
    rig.tick()
    said = text(rig)
    assert "a trial of equals: nothing is promoted, every false alarm is written down" in said
    assert "continue: would roll b back: score is worse" in said


def test_business_cycles_are_counted(rigs: Rigs) -> None:
    rig = rigs(endpoint=endpoint(decision={"cycle": "1h"}))
    for _ in range(3):
        rig.units(20, fair=True)
        rig.tick(3600.0)
    said = text(rig)
    assert "whole business cycles of 1 h so far: 2" in said
    assert "last cycle" in said


def row(**more: Any) -> dict[str, Any]:
    plain = {"challenger": "b", "metric": "revenue", "segment": "", "increase": True, "units": [5, 5]}
    return plain | {"lower": -1.0, "estimate": 0.5, "upper": 2.0, "method": "exact"} | more


def test_an_asymptotic_mean_is_called_that_and_no_comparison_is_made_up() -> None:
    estimates = [
        row(),
        row(method="asymptotic"),
        row(metric="errors", units=[0, 5]),
        row(metric="errors", segment="x=y"),
    ]
    shown = {"challengers": ["b"], "objective": "revenue", "holdback": False, "report": {"estimates": estimates}}
    lines = printed(estimates_table(shown, ended=False)).splitlines()[2:]
    lines = [" ".join(line.split()) for line in lines]
    assert lines[0] == "revenue all 5 + 5 [-1.0000, +2.0000] +0.5000 higher is better"
    assert lines[1] == "revenue (mean, asymptotic) all 5 + 5 [-1.0000, +2.0000] +0.5000"
    assert lines[2] == "errors all 0 + 5 - - higher is better"
    assert len(lines) == 3, "segments of the objective only"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0, "0 s"), (59.0, "59 s"), (90.0, "1.5 min"), (7200.0, "2 h"), (604_800.0, "7 d")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_numbers_beyond_floats() -> None:
    assert number(0.0) == "1"
    assert number(2302.5850929940457) == "1e+1000"


def test_what_counts_for_nothing_is_shown_by_variant() -> None:
    counters = [
        {"variant": "b", "name": "rejected", "value": 1200},
        {"variant": "", "name": "duplicate", "value": 1},
    ]
    assert not_counted(counters) == ("came, but count for nothing: b rejected 1,200, unknown variant duplicate 1")


def test_before_the_first_window_has_closed_the_metric_says_what_it_waits_for(rigs: Rigs) -> None:
    rig = rigs(endpoint=endpoint())
    window = snapshot(rig)["endpoints"]["rank"]["experiment"]["window_seconds"]["score"]
    rig.tick()
    rig.units(20, fair=True)
    rig.tick(0.1)
    waits = f"score: no window has closed yet; a unit counts {duration(window)} after its request"
    assert waits in text(rig)
    rig.tick(2 * window)
    rig.tick()
    assert waits not in text(rig)


def test_a_log_with_holes_is_told_with_its_reason(rigs: Rigs) -> None:
    rig = rigs(endpoint=endpoint())
    rig.tick()
    assert "not whole" not in text(rig)
    rig.control.engine.damaged = "spool/x: checksum at byte 7"
    assert "not whole, nobody is promoted: a spool cannot be read: spool/x: checksum at byte 7" in text(rig)
