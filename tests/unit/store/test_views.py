"""The views for people: what they say is what the facts say, in the same words in every engine."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.events import decision_id
from gateway.evidence.definition import encode
from gateway.store.base import Settled, Store
from gateway.store.facts import FactTables
from tests.unit.store.story import DEFINITION, METRICS, WINDOW, assignment, at, tell, vote


def ask(store: Store, sql: str) -> list[tuple[Any, ...]]:
    assert isinstance(store, FactTables)
    return store.rows(sql)


@pytest.fixture
def filled(store: Store) -> Store:
    tell(store)
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
