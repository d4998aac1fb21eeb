"""When an outcome happened: what is understood, what cannot be, and what is said then."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ValueRejected
from gateway.serving.outcomes.moments import TOLERANCE_US, happened

NOW = 1_772_366_400_000_000  # 2026-03-01T12:00:00Z
SECOND = 1_000_000


@pytest.mark.parametrize(
    ("at", "microseconds"),
    [
        (None, 0),
        (1_772_366_400, NOW),
        (1_772_366_400.25, NOW + SECOND // 4),
        ("2026-03-01T12:00:00Z", NOW),
        ("2026-03-01T12:00:00.25Z", NOW + SECOND // 4),
        ("2026-03-01 13:00:00+01:00", NOW),
        ("2026-03-01T07:30-04:30", NOW),
        ("20260301T120000Z", NOW),
        (NOW / 1e6 + 300, NOW + TOLERANCE_US),
        (0.001, 1000),
        (1e-9, 1),  # 0 says nothing
    ],
)
def test_a_time_is_understood(at: Any, microseconds: int) -> None:
    assert happened(at, NOW) == microseconds


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("2026-03-01T12:00:00", "a time with its zone"),
        ("2026-03-01", "a time with its zone"),
        ("yesterday", "'yesterday'"),
        ("", "seconds since 1970"),
        ("1772366400", "seconds since 1970"),
        ("2026-02-30T00:00:00Z", "'2026-02-30T00:00:00Z'"),
        ("2026-03-01T12:00:00Z" + " " * 100, "..."),
        ("x" * 100_000, "..."),
        ("0001-01-01T00:00:00+14:00", "a time with its zone"),
        (True, "not True"),
        ([1], "not [1]"),
        ({}, "not {}"),
        (0, "not 0"),
        (-5, "not -5"),
        (NOW / 1000, "is it in milliseconds?"),
        (NOW, "is it in milliseconds?"),
        (1e300, "is it in milliseconds?"),
        (10**30, "is it in milliseconds?"),
        (NOW / 1e6 + 301, "5.0 minutes ahead of the gateway's clock"),
        ("2036-03-01T12:00:00Z", "minutes ahead of the gateway's clock: '2036-03-01T12:00:00Z'"),
    ],
)
def test_what_is_none_or_still_to_come_is_refused(at: Any, words: str) -> None:
    with pytest.raises(ValueRejected) as refused:
        happened(at, NOW)
    assert words in str(refused.value)
    assert len(str(refused.value)) < 250


def test_what_lies_before_the_decision_is_refused_unless_clocks_may_differ_so_much() -> None:
    exposed = NOW - 3600 * SECOND
    assert happened((exposed - TOLERANCE_US) / 1e6, NOW, exposed) == exposed - TOLERANCE_US
    with pytest.raises(ValueRejected, match=r"5\.1 minutes before the decision"):
        happened((exposed - TOLERANCE_US - 6 * SECOND) / 1e6, NOW, exposed)


@given(st.datetimes(datetime(1990, 1, 1), datetime(2026, 3, 1)), st.integers(0, 23))
def test_whatever_iso_format_writes_is_read(moment: datetime, hours: int) -> None:
    at = moment.replace(tzinfo=UTC)
    assert abs(happened(at.isoformat(), NOW) - round(at.timestamp() * 1e6)) <= 1


@given(st.text(max_size=40) | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.none())
def test_whatever_is_sent_is_a_time_that_can_be_or_refused(at: Any) -> None:
    with suppress(ValueRejected):
        assert 0 <= happened(at, NOW) <= NOW + TOLERANCE_US
