"""Whatever clients send, a covariate is a finite number within its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.assignment.covariates import CovariateReader
from gateway.plan import CovariatePlan

READER = CovariateReader.of(CovariatePlan(name="spent", header="x-spent", low=-10.0, high=50.0))
MIDDLE = 20.0


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        (b"3.5", 3.5),
        (b"-10", -10.0),
        (b"+7", 7.0),
        (b"1e1", 10.0),
        (b" 4 ", 4.0),
        (b"0", 0.0),
        (b"-11", -10.0),
        (b"1e300", 50.0),
        (b"-1e300", -10.0),
    ],
)
def test_a_number_is_taken_and_clipped(sent: bytes, value: float) -> None:
    assert READER.read({b"x-spent": sent}) == value


@pytest.mark.parametrize(
    "sent", [b"", b" ", b"nan", b"-NaN", b"inf", b"-Infinity", b"1e999", b"-1e999", b"twelve", b"1,5", b"0x10", b"1_0"]
)
def test_what_is_no_number_is_the_middle(sent: bytes) -> None:
    assert READER.read({b"x-spent": sent}) == MIDDLE


def test_an_absent_header_is_the_middle() -> None:
    assert READER.read({b"x-spend": b"3"}) == MIDDLE


@given(st.binary() | st.floats().map(lambda number: str(number).encode()))
def test_any_bytes_give_a_number_within_the_bounds(sent: bytes) -> None:
    assert -10.0 <= READER.read({b"x-spent": sent}) <= 50.0
