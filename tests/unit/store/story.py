"""A small experiment, told to a store: what its views and the queries of its README are tried on."""

from __future__ import annotations

from typing import Any

from gateway.events import Assignment, Completion, Outcome, Shadow, decision_id
from gateway.evidence.definition import Definition, MetricDefinition, encode
from gateway.store.base import Store, Vote

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


def tell(store: Store) -> None:
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
