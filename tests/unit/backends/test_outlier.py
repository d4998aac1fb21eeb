"""When a replica is left out of rotation, and for how long."""

from __future__ import annotations

import pytest

from gateway.backends.outlier import Outlier
from gateway.backends.probe import Health


def fail(outlier: Outlier, times: int, now: float = 0.0) -> list[bool]:
    return [outlier.failure(now) for _ in range(times)]


def test_five_failures_in_a_row_and_not_four() -> None:
    outlier = Outlier()
    assert fail(outlier, 4) == [False] * 4
    outlier.success()
    assert fail(outlier, 5) == [False] * 4 + [True]
    assert outlier.until == 5.0


def test_failures_during_the_pause_do_not_lengthen_it() -> None:
    outlier = Outlier()
    fail(outlier, 5)
    assert fail(outlier, 20, now=4.9) == [False] * 20
    assert outlier.until == 5.0


def test_on_probation_one_failure_is_enough_and_the_pause_doubles_up_to_a_minute() -> None:
    outlier = Outlier()
    fail(outlier, 5)
    lengths = []
    for _ in range(6):
        now = outlier.until
        assert outlier.failure(now)
        lengths.append(outlier.until - now)
    assert lengths == [10, 20, 40, 60, 60, 60]


def test_a_success_ends_probation() -> None:
    outlier = Outlier()
    fail(outlier, 5)
    outlier.success()
    assert fail(outlier, 4, now=5.0) == [False] * 4
    assert outlier.failure(5.0)
    assert outlier.until == 10.0


@pytest.mark.parametrize("good", [True, False])
def test_the_first_check_decides_alone(good: bool) -> None:
    health = Health()
    health.heard(good)
    assert health.healthy is good


def test_three_failures_and_two_successes_in_a_row_move_it() -> None:
    health = Health()
    seen = []
    for good in (True, False, False, True, False, False, False, True, False, True, True):
        health.heard(good)
        seen.append(health.healthy)
    assert seen == [True] * 6 + [False] * 4 + [True]
