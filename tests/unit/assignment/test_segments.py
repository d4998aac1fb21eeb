"""Segment labels stay bounded whatever clients send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.assignment.segments import OTHER, SegmentReader
from gateway.plan import SegmentPlan

READER = SegmentReader.of(SegmentPlan(name="origin", header="x-origin", values=("EWR", "Zürich")))


def test_a_listed_value_is_its_own_label() -> None:
    assert READER.read({b"x-origin": b"EWR"}) == "EWR"
    assert READER.read({b"x-origin": "Zürich".encode()}) == "Zürich"


def test_case_and_space_make_another_value() -> None:
    assert READER.read({b"x-origin": b"ewr"}) == OTHER
    assert READER.read({b"x-origin": b" EWR"}) == OTHER


def test_an_absent_header_is_other() -> None:
    assert READER.read({b"x-orig": b"EWR"}) == OTHER


@given(st.binary())
def test_any_bytes_give_a_bounded_label(value: bytes) -> None:
    assert READER.read({b"x-origin": value}) in {"EWR", "Zürich", OTHER}
