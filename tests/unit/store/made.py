"""Facts and votes by number: what the tests of the stores are about."""

from __future__ import annotations

from gateway.events import Assignment, Completion, Outcome, UnitOutcome, decision_id
from gateway.spool.reader import StreamId
from gateway.store.base import UnitKey, Vote

SECOND = 1_000_000
REQUESTS = StreamId(1, "requests")


def assignment(number: int, *, at: int = 0, variant: str = "b", bucket: int = 7, unit: bytes = b"u" * 16) -> Assignment:
    segments = ("EWR", "other")
    return Assignment(decision_id(1, number), at, "rank", "exp", "s1", variant, 0.1, bucket, unit, segments, 3, 1)


def completion(number: int, *, at: int = 1, error: str = "", first_byte: int = 500, total: int = 600) -> Completion:
    return Completion(decision_id(1, number), at, "b", "answered", 200, first_byte, total, error)


def outcome(number: int, value: float, *, id: str = "", at: int = 1, metric: str = "brier") -> Outcome:
    return Outcome(id, at, decision_id(1, number), "rank", "exp", metric, value)


def vote(ordinal: int, *, at: int = 0, arm: int = 1, complete: bool = True) -> Vote:
    decision = decision_id(1, ordinal)
    return Vote("exp", ordinal, decision, at, "s1", "ab"[arm], arm, ("EWR",), (0.9, 0.1), complete, (1.5, -2.0))


UNIT, ELSE = UnitKey("exp", 7, b"u" * 16), UnitKey("exp", 7, b"v" * 16)


def unit_outcome(at: int, *, unit: bytes = b"u" * 16, id: str = "", value: float = 0.5) -> UnitOutcome:
    return UnitOutcome(id, at, "rank", "exp", 2**63 + 7, unit, "brier", value, 3)
