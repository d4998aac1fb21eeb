"""How many retries there are, and when they come."""

from __future__ import annotations

import pytest

from gateway.backends.retries import RetryBudget, backoff, retry_after


def granted(budget: RetryBudget, asked: int, now: float) -> int:
    return sum(budget.spend(now) for _ in range(asked))


@pytest.mark.parametrize("rate", [50, 1000])
def test_a_fifth_of_the_requests_and_ten_a_second_on_top(rate: int) -> None:
    """Every request asks for a retry, for ten seconds."""
    budget = RetryBudget()
    got = 0
    for number in range(10 * rate):
        budget.earn()
        got += budget.spend(number / rate)
    expected = 0.2 * 10 * rate + 10 * 10
    assert expected - 15 <= got <= expected + 10  # ten are there at the start


def test_a_calm_time_saves_up_a_bounded_burst() -> None:
    budget = RetryBudget()
    for _ in range(1_000_000):
        budget.earn()
    assert granted(budget, 1000, now=1e6) == 110


def test_time_alone_gives_no_more_than_a_second_of_it() -> None:
    budget = RetryBudget()
    assert granted(budget, 100, now=1e6) == 10
    assert granted(budget, 100, now=1e6 + 0.5) == 5


def test_backoff_doubles_and_is_spread() -> None:
    assert [backoff(tries, 0.5) for tries in (1, 2, 3)] == [0.025, 0.05, 0.1]
    assert (backoff(1, 0.0), backoff(1, 0.9)) == pytest.approx((0.0125, 0.035))


DATE = b"Tue, 15 Nov 1994 08:12:31 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([(b"retry-after", b"7")], 7.0),
        ([(b"retry-after", b" 0 ")], 0.0),
        ([(b"retry-after", b"-1")], None),
        ([(b"retry-after", b"1.5")], None),
        ([(b"retry-after", b"9" * 400)], None),
        ([(b"retry-after", b"soon")], None),
        ([(b"retry-after", b"\xff")], None),
        ([(b"retry-after", b"Tue, 15 Nov 1994 08:12:41 GMT"), (b"date", DATE)], 10.0),
        ([(b"retry-after", b"Tue, 15 Nov 1994 08:12:01 GMT"), (b"date", DATE)], 0.0),
        ([(b"retry-after", b"Tue, 15 Nov 1994 08:12:41"), (b"date", DATE)], None),
        ([(b"retry-after", b"Tue, 15 Nov 1994 08:12:41 GMT")], None),
        ([(b"retry-after", b"Tue, 15 Nov 1994 08:12:41 +99999999999999999999"), (b"date", DATE)], None),
    ],
)
def test_when_the_upstream_wants_to_be_asked_again(headers: list[tuple[bytes, bytes]], seconds: float | None) -> None:
    assert retry_after(headers) == seconds
