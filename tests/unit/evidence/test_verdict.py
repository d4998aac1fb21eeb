"""The report: which tests there are, which levels they must reach, what latches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from msgspec.structs import replace

from gateway.evidence.batch import Units
from gateway.evidence.cells import Evidence
from gateway.evidence.report import OVERALL, WORST, Report
from gateway.evidence.verdict import judge
from tests.unit.evidence.world import BRIER, ERRORS, LATENCY, THRESHOLDS, definition


def fold(
    evidence: Evidence, champion: float, challenger: float, units: int, metric: str = "brier", arm: int = 1
) -> None:
    """Units with constant scores in both arms, alternating."""
    z = np.arange(units) % 2 == 0
    g = np.where(z, challenger, champion)
    cell = evidence.definition.metric(metric)
    pi = np.full(units, 0.5)
    evidence.fold(arm, cell, OVERALL, Units(z, pi, g))
    if metric == evidence.definition.objective:
        evidence.fold(arm, cell, WORST, Units(z, pi, g))
        evidence.tally(["s1"] * units, z.astype(int).tolist())


def fold_coins(evidence: Evidence, pi: float, champion: int, challenger: int) -> None:
    arms = [0] * champion + [1] * challenger
    evidence.fold_coins(arms, [(1.0 - pi, pi)] * len(arms))


def report(evidence: Evidence) -> Report:
    return judge(evidence, THRESHOLDS, 7, 5)


@pytest.fixture
def evidence() -> Evidence:
    return Evidence(definition())


def test_without_data_nothing_is_known(evidence: Evidence) -> None:
    known = report(evidence)
    assert known.verdict == "undecided"
    assert {test.log_e for test in known.tests} == {0.0}
    assert not any(test.met for test in known.tests)
    assert known.estimates == ()
    assert known.assigned == (0, 0)
    assert known.missing == (0.0, 0.0)
    assert (known.units, known.folded) == (7, 5)


def test_each_role_has_its_hypotheses_and_levels(evidence: Evidence) -> None:
    fold(evidence, 0.5, 0.5, 2)
    fold_coins(evidence, 0.5, 0, 1)
    needed = {(t.metric, t.name, t.segment): round(math.exp(t.needed)) for t in report(evidence).tests}
    assert needed == {
        ("brier", "promote", ""): 100,
        ("brier", "harm", ""): 100,
        ("brier", "futility", ""): 20,
        ("brier", "not_worse", ""): 20,
        ("brier", "promote", "worst"): 100,
        ("errors", "non_inferior", ""): 20,
        ("errors", "harm", ""): 1000,
        ("latency", "non_inferior", ""): 20,
        ("latency", "harm", ""): 100,
        ("assigned", "sample_ratio", ""): 1000,
    }


def test_a_metric_without_role_decides_nothing() -> None:
    evidence = Evidence(definition(BRIER, ERRORS, replace(LATENCY, margin=None)))
    fold(evidence, 0.9, 0.1, 400, "latency")
    known = report(evidence)
    assert "latency" not in {test.metric for test in known.tests}
    assert known.estimate("latency") is not None
    assert known.verdict == "undecided"


def test_better_and_worse(evidence: Evidence) -> None:
    fold(evidence, 0.4, 0.8, 200)
    known = report(evidence)
    assert known.verdict == "better"
    estimate = known.estimate("brier")
    assert estimate is not None
    assert estimate.better
    assert -0.8 < estimate.lower < estimate.estimate < estimate.upper < 0, "in the metric's unit, less is better"
    assert estimate.units == (100, 100)
    assert known.test("brier", "promote").progress == 1.0  # type: ignore[union-attr]
    worse = Evidence(definition())
    fold(worse, 0.8, 0.4, 200)
    assert report(worse).verdict == "worse"


def test_harm_latches_while_its_present_value_may_pass(evidence: Evidence) -> None:
    fold(evidence, 0.8, 0.4, 200)
    before = report(evidence).test("brier", "harm")
    fold(evidence, 0.4, 0.8, 600)
    after = report(evidence).test("brier", "harm")
    assert before is not None
    assert after is not None
    assert after.log_e >= before.log_e > before.needed
    assert after.met
    assert after.now < 0
    assert report(evidence).verdict == "worse"
    promote = report(evidence).test("brier", "promote")
    assert promote is not None
    assert promote.log_e == promote.now


def test_a_wrong_split_makes_everything_invalid(evidence: Evidence) -> None:
    fold(evidence, 0.4, 0.8, 200)
    fold_coins(evidence, 0.5, 120, 280)
    known = report(evidence)
    assert known.sample_ratio_alarm
    assert known.verdict == "invalid"
    assert known.assigned == (120, 280)


def test_segment_harm_is_measured_against_the_whole_family(evidence: Evidence) -> None:
    z = np.arange(400) % 2 == 0
    evidence.fold(1, BRIER, "origin=EWR", Units(z, np.full(400, 0.5), np.where(z, 0.4, 0.8)))
    test = report(evidence).test("brier", "harm", "origin=EWR")
    assert test is not None
    assert math.exp(test.needed) == pytest.approx(3 / 0.01)  # EWR, JFK and other
    assert test.met
    assert report(evidence).verdict == "undecided", "a harmed segment vetoes, it does not roll back"


def test_evidence_is_kept_and_restored_exactly(evidence: Evidence) -> None:
    fold(evidence, 0.4, 0.8, 77)
    evidence.fold(1, BRIER, "origin=EWR", Units(np.array([True]), np.array([0.01]), np.array([0.3])))
    fold_coins(evidence, 0.01, 0, 1)
    evidence.fold_presence(BRIER, np.array([0, 0, 1, 1]), np.full((4, 2), 0.5), np.array([True, False, False, False]))
    states = evidence.take_changes()
    assert sorted(states) == [
        "cell/1/brier/",
        "cell/1/brier/origin=EWR",
        "cell/1/brier/worst",
        "coins/1",
        "ratio/1/brier",
        "tally",
    ]
    assert evidence.take_changes() == {}
    other = Evidence.restore(evidence.definition, states)
    assert report(other) == report(evidence)
    fold(other, 0.4, 0.8, 10)
    fold(evidence, 0.4, 0.8, 10)
    assert other.take_changes() == evidence.take_changes()
