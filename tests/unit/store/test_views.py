"""The views for people: what they say is what the facts say, in the same words in every engine."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.events import Assignment, Completion, Outcome, Shadow, decision_id
from gateway.evidence.definition import Definition, MetricDefinition, encode
from gateway.store.base import Settled, Store, Vote
from gateway.store.facts import FactTables

SECOND = 1_000_000
START = 1_700_000_000_123_000  # 2023-11-14T22:13:20.123Z
WINDOW = 60 * SECOND
_OUTCOME: dict[str, Any] = {"source": "outcome", "increase": True, "window_us": WINDOW}
METRICS = (
    MetricDefinition(name="errors", type="binary", source="gateway", increase=False),
    MetricDefinition(name="latency", type="latency", source="gateway", increase=False, limit_us=5),
    MetricDefinition(name="rating", type="bounded", **_OUTCOME),
    MetricDefinition(name="clicks", type="count", aggregate="sum", missing="zero", **_OUTCOME),
    MetricDefinition(name="visits", type="count", aggregate="count", **_OUTCOME),
    MetricDefinition(name="best", type="bounded", aggregate="max", **_OUTCOME),
    MetricDefinition(name="per_visit", type="ratio", numerator="clicks", denominator="visits", **_OUTCOME),
    MetricDefinition(name="brier", type="score", **_OUTCOME),
    MetricDefinition(name="distance", type="score", loss="absolute_error", **_OUTCOME),
)
DEFINITION = Definition(
    id="exp",
    endpoint="rank",
    champion="a",
    challengers=("b",),
    metrics=METRICS,
    objective="rating",
    expected_effect=0.1,
    min_effect=0.0,
    segments=("origin", "device"),
    segment_values=(("EWR", "JFK"), ("phone",)),
    answer_within_us=2 * SECOND,
)


def ask(store: Store, sql: str) -> list[tuple[Any, ...]]:
    assert isinstance(store, FactTables)
    return store.rows(sql)


def at(number: int) -> int:
    return START + number * SECOND


def assignment(number: int, variant: str, origin: str) -> Assignment:
    segments = (origin, "phone")
    decision = decision_id(1, number)
    return Assignment(decision, at(number), "rank", "exp", "s1", variant, 0.5, number, bytes(16), segments, 3)


def completion(number: int, variant: str, error: str = "", prediction: float | None = None) -> Completion:
    end = at(number) + 5_000
    return Completion(
        decision_id(1, number), end, variant, "answered", 200, 4_000, 5_000, error, prediction, assigned_at=at(number)
    )


def outcome(number: int, metric: str, value: float, *, after: int = SECOND, id: str = "") -> Outcome:
    return Outcome(id, at(number) + after, decision_id(1, number), "rank", "exp", metric, value, at(number))


def vote(ordinal: int, variant: str, origin: str, *, complete: bool = True) -> Vote:
    segments, arm = (origin, "phone"), "ab".index(variant)
    return Vote(
        "exp", ordinal, decision_id(1, ordinal), at(ordinal), "s1", variant, arm, segments, (0.5, 0.5), complete
    )


@pytest.fixture
def filled(store: Store) -> Store:
    """Four votes: 1 and 3 of a, 2 and 4 of b; 4 is not folded yet. Decision 9 is a later request of vote 2's unit."""
    with store.transaction():
        store.add_experiment("exp", "rank", encode(DEFINITION), at(0))
        store.add_assignments(
            1,
            [
                assignment(1, "a", "EWR"),
                assignment(2, "b", "JFK"),
                assignment(3, "a", "JFK"),
                assignment(4, "b", "EWR"),
                assignment(9, "b", "JFK"),
            ],
        )
        store.add_completions(1, [completion(1, "a", "", 0.75), completion(2, "a", "deadline", 0.5)])
        store.add_votes([vote(1, "a", "EWR"), vote(2, "b", "JFK"), vote(3, "a", "JFK"), vote(4, "b", "EWR")])
        store.add_revisits([("exp", decision_id(1, 2), decision_id(1, 9))])
        for metric in METRICS:
            store.save_cursor("exp", metric.name, 3)
        store.add_outcomes(
            1,
            [
                outcome(1, "rating", 0.25, after=2 * SECOND),
                outcome(1, "rating", 0.5, id="later", after=3 * SECOND),
                outcome(2, "rating", 1.0, after=WINDOW),  # too late
                outcome(3, "rating", 0.75),
                outcome(4, "rating", 0.0),
                outcome(1, "clicks", 2.0),
                outcome(1, "clicks", 3.0, id="more"),
                outcome(9, "clicks", 4.0),
                outcome(1, "visits", 1.0),
                outcome(2, "visits", 1.0),
                outcome(9, "visits", 1.0),
                outcome(2, "best", 0.5),
                outcome(9, "best", 0.25),
                outcome(1, "brier", 1.0),
                outcome(1, "distance", 1.0),
                outcome(2, "brier", 0.0),
            ],
        )
        store.add_shadows(1, [Shadow(decision_id(1, 1), at(1), "b", 5, "", 0.5, at(1))])
    return store


def test_results_are_means_over_units(filled: Store) -> None:
    rows = ask(filled, "SELECT metric, variant, units, mean FROM result WHERE segment = '' ORDER BY metric, variant")
    assert rows == [
        ("best", "b", 1, 0.5),
        ("brier", "a", 1, 0.0625),
        ("brier", "b", 1, 0.25),
        ("clicks", "a", 2, 2.5),
        ("clicks", "b", 1, 4.0),
        ("distance", "a", 1, 0.25),
        ("errors", "a", 2, 0.5),  # the one without an end has failed
        ("errors", "b", 1, 1.0),
        ("latency", "a", 1, 4.0),  # milliseconds
        ("per_visit", "a", 2, 5.0),
        ("per_visit", "b", 1, 2.0),
        ("rating", "a", 2, 0.5),
        ("visits", "a", 1, 1.0),
        ("visits", "b", 1, 2.0),
    ]


def test_results_are_cut_by_segments(filled: Store) -> None:
    rows = ask(
        filled,
        "SELECT segment, segment_value, variant, units, mean FROM result WHERE metric = 'rating' AND segment <> ''"
        " ORDER BY segment, segment_value, variant",
    )
    assert rows == [
        ("device", "phone", "a", 2, 0.5),
        ("origin", "EWR", "a", 1, 0.25),
        ("origin", "JFK", "a", 1, 0.75),
    ]


def test_what_is_settled_counts_whatever_facts_there_are(filled: Store) -> None:
    with filled.transaction():
        filled.settle("exp", "rating", [Settled(1, 0.0, None, ""), Settled(2, 1.0, None, "")])
        filled.settle("exp", "brier", [Settled(1, 1.0, None, json.dumps(["a", 0.5, 0, "{}"]))])
        filled.settle("exp", "latency", [Settled(1, 7_000.0, None, ""), Settled(2, float("inf"), None, "")])
    sql = "SELECT metric, ordinal, value FROM vote_value WHERE metric IN ('rating', 'brier', 'latency') ORDER BY 1, 2"
    assert ask(filled, sql) == [
        ("brier", 1, 0.25),
        ("brier", 2, 0.25),
        ("brier", 3, None),
        ("latency", 1, 7.0),
        ("latency", 2, None),
        ("latency", 3, None),
        ("rating", 1, 0.0),
        ("rating", 2, 1.0),
        ("rating", 3, 0.75),
    ]


def test_a_vote_beside_an_open_window_counts_for_the_gateways_metrics_only(filled: Store) -> None:
    with filled.transaction():
        filled.add_votes([vote(5, "a", "EWR", complete=False)])
        for metric in METRICS:
            filled.save_cursor("exp", metric.name, 5)
    rows = ask(filled, "SELECT metric FROM vote_value WHERE ordinal = 5 ORDER BY metric")
    assert rows == [("errors",), ("latency",)]


def test_exposures_stand_beside_their_outcomes(filled: Store) -> None:
    rows = ask(
        filled,
        "SELECT decision, time, variant, served, status, error, metric, value, outcome_id, outcome_time"
        " FROM exposure_outcome WHERE metric IS NULL OR metric = 'rating' ORDER BY decision, outcome_at",
    )
    first, second, third = (decision_id(1, number) for number in (1, 2, 3))
    assert rows[:4] == [
        (first, "2023-11-14T22:13:21.123Z", "a", "a", 200, "", "rating", 0.25, "", "2023-11-14T22:13:23.123Z"),
        (first, "2023-11-14T22:13:21.123Z", "a", "a", 200, "", "rating", 0.5, "later", "2023-11-14T22:13:24.123Z"),
        (second, "2023-11-14T22:13:22.123Z", "b", "a", 200, "deadline", "rating", 1.0, "", "2023-11-14T22:14:22.123Z"),
        (third, "2023-11-14T22:13:23.123Z", "a", None, None, None, "rating", 0.75, "", "2023-11-14T22:13:24.123Z"),
    ]


def test_an_exposure_without_outcomes_is_one_row(store: Store) -> None:
    with store.transaction():
        store.add_assignments(1, [assignment(1, "a", "EWR")])
    rows = ask(store, "SELECT decision, at, metric, value, outcome_at, outcome_time FROM exposure_outcome")
    assert rows == [(decision_id(1, 1), at(1), None, None, None, None)]


def test_decisions_in_words(store: Store) -> None:
    body = {
        "from": {"status": "running", "stage": "traffic-1%", "champion": "a"},
        "to": {"status": "running", "stage": "traffic-10%", "champion": "a"},
        "actor": "gateway",
        "reason": "minimums",
        "text": "the stage has had its time",
        "variant": "",
        "config_digest": "abc",
        "evidence": None,
    }
    store.append_ledger(at(1), 7, "rank", "exp", "start", body | {"from": None, "actor": "ä"})
    store.append_ledger(at(2), 8, "rank", "exp", "advance", body)
    columns = "id, time, endpoint, experiment, kind, variant, from_stage, to_stage, actor, reason, text, step"
    assert ask(store, f"SELECT {columns} FROM decision ORDER BY id") == [
        (
            *(1, "2023-11-14T22:13:21.123Z", "rank", "exp", "start", "", None, "traffic-10%", "ä", "minimums"),
            *("the stage has had its time", 7),
        ),
        (
            *(2, "2023-11-14T22:13:22.123Z", "rank", "exp", "advance", "", "traffic-1%", "traffic-10%", "gateway"),
            *("minimums", "the stage has had its time", 8),
        ),
    ]


def test_a_definition_of_an_earlier_version_is_read_as_it_was_meant(store: Store) -> None:
    """It says nothing of what did not exist then."""
    old = json.loads(encode(DEFINITION))
    old["metrics"] = [
        {key: metric[key] for key in ("name", "type", "source", "increase", "window_us")}
        for metric in old["metrics"][2:3]
    ]
    store.add_experiment("exp", "rank", msgspec.json.encode(old).decode(), 1)
    rows = ask(store, "SELECT metric, aggregate, missing, within_us FROM metric_definition")
    assert rows == [("rating", "first", "exclude", WINDOW)]
