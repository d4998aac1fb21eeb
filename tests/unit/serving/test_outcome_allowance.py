"""Nobody posts without end about one decision: counted within a window, in a bounded memory."""

from __future__ import annotations

import pytest

from gateway.errors import TooMany
from gateway.serving.outcomes.callers import KNOWN, MOST, WINDOW, Allowance


def refused(allowance: Allowance, about: int) -> bool:
    try:
        allowance.take(about)
    except TooMany:
        return True
    return False


def flooded() -> Allowance:
    """Decision 1 has had all that it may within this window, which began at 0."""
    allowance = Allowance()
    allowance.renew(0.0)
    for _ in range(MOST):
        allowance.take(1)
    return allowance


def test_so_many_are_taken_and_no_more() -> None:
    allowance = flooded()
    with pytest.raises(TooMany, match=f"more than {MOST} outcomes of one decision or unit within 60 s"):
        allowance.take(1)
    assert not refused(allowance, 2)


def test_a_new_window_takes_as_many_again() -> None:
    allowance = flooded()
    allowance.renew(WINDOW - 1)
    assert refused(allowance, 1)
    allowance.renew(WINDOW)
    assert not refused(allowance, 1)


def test_who_floods_is_remembered_however_many_others_come() -> None:
    allowance = flooded()
    for about in range(2, 3 * KNOWN):
        allowance.take(about)
    assert refused(allowance, 1)
    assert len(allowance._counts) <= KNOWN


def test_where_very_many_come_often_the_memory_stays_bounded() -> None:
    allowance = Allowance()
    allowance._counts.update((about, MOST // 2) for about in range(KNOWN))
    allowance.take(-1)
    assert len(allowance._counts) == 1
