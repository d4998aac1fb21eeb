"""The kill rule: plain failures, whatever the rate of looks, and across restarts."""

from __future__ import annotations

import pytest

from gateway.release.kill import KillRule

HEALTHY = (10_000, 0)


def feed(rule: KillRule, *counts: tuple[int, int], champion: tuple[int, int] = HEALTHY) -> list[bool]:
    """Looks at running totals (requests, errors) of the challenger; whether it was stopped at each."""
    return [bool(rule.observe(champion, count)) for count in counts]


def test_five_failures_are_the_fewest() -> None:
    assert feed(KillRule(), *((n, n) for n in range(7))) == [False] * 5 + [True] * 2
    assert KillRule().observe(HEALTHY, (6, 5)) == "5 of the challenger's last 6 requests failed"


def test_a_fifth_of_the_last_fifty_is_needed() -> None:
    assert feed(KillRule(), (0, 0), (50, 9)) == [False, False]
    assert feed(KillRule(), (0, 0), (50, 10)) == [False, True]


def test_old_failures_are_forgotten() -> None:
    looks = [(4 * n, min(n, 9)) for n in range(40)]  # nine failures, a quarter of the requests, then none
    stopped = feed(KillRule(), *looks)
    assert stopped[5:10] == [True] * 5
    assert not any(stopped[25:])


def test_the_champions_own_failures_count_for_it() -> None:
    assert feed(KillRule(), (0, 0), (50, 20), champion=(100, 8)) == [False, True]
    assert feed(KillRule(), (0, 0), (50, 20), champion=(100, 9)) == [False, False]
    assert feed(KillRule(), (0, 0), (50, 20), champion=(0, 0)) == [False, True]


def test_at_a_high_rate_each_look_is_judged_as_a_whole() -> None:
    assert feed(KillRule(), (0, 0), (1000, 199), (2000, 398), (3000, 598)) == [False, False, False, True]
    assert feed(KillRule(), (0, 0), (100_000, 100), (200_000, 100_100)) == [False, False, True]


def test_a_restart_in_mid_experiment_starts_from_the_totals() -> None:
    assert feed(KillRule(), (1000, 500), (1004, 504), (1005, 505)) == [False, False, True]


def test_a_restart_early_on_forgets_nothing() -> None:
    assert feed(KillRule(), (30, 10)) == [True]


def test_lost_counts_begin_anew() -> None:
    rule = KillRule()
    assert feed(rule, (100, 0), (200, 15), (20, 0), (24, 4), (25, 5)) == [False, False, False, False, True]


@pytest.mark.parametrize("looks", [1, 7, 50])
def test_a_healthy_challenger_is_never_stopped(looks: int) -> None:
    assert not any(feed(KillRule(), *((n * 13, n // 4) for n in range(looks)), champion=(1000, 20)))
