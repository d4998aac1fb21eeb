"""Event streams over arbitrary cuts: the same events wherever the network has cut, and no byte lost or changed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serving.wire.sse import LARGEST, Event, EventEditor, EventReader

STREAM = (
    b": keep-alive\n\n"
    b'data: {"model": "small", "n": 1}\n\n'
    b'event: delta\r\nid: 7\r\ndata:{"model":\r\ndata: "small"}\r\n\r\n'
    b"retry: 10\r\rdata\rdata: two\r\r"
    b"\n\n\n"
    b'data: {"x": {"model": "small"}, "model": "small", "model": "\\"s"}\n\n'
    b"data: [DONE]\n\n"
)
EVENTS = [
    Event(b"", b'{"model": "small", "n": 1}'),
    Event(b"delta", b'{"model":\n"small"}'),
    Event(b"", b"\ntwo"),
    Event(b"", b'{"x": {"model": "small"}, "model": "small", "model": "\\"s"}'),
    Event(b"", b"[DONE]"),
]
MASKED = (
    STREAM.replace(b'{"model": "small", "n"', b'{"model": "chat", "n"')
    .replace(b'data: "small"}', b'data: "chat"}')
    .replace(b'"model": "small", "model": "\\"s"', b'"model": "chat", "model": "chat"')
)

CUTS = st.lists(st.integers(0, len(STREAM)), max_size=12)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    return [stream[start:end] for start, end in pairwise([0, *sorted(cuts), len(stream)])]


def events(stream: list[bytes]) -> list[Event]:
    reader = EventReader()
    found = [event for piece in stream for event in reader.feed(piece)]
    return found + reader.rest()


def masked(stream: list[bytes]) -> bytes:
    editor = EventEditor(b"model", b'"chat"')
    return b"".join([editor.feed(piece) for piece in stream]) + editor.rest()


@given(CUTS)
def test_events_are_the_same_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    assert events(pieces(STREAM, cuts)) == EVENTS


def test_events_are_the_same_byte_by_byte() -> None:
    assert events(pieces(STREAM, list(range(len(STREAM))))) == EVENTS


@given(CUTS)
def test_the_key_is_replaced_and_nothing_else_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    assert masked(pieces(STREAM, cuts)) == MASKED


@given(st.lists(st.sampled_from([b"\r", b"\n", b"data: a", b"data:", b":", b"\r\n\r\n", b"\n\n"]), max_size=14))
def test_line_ends_of_all_kinds_may_be_mixed(parts: list[bytes]) -> None:
    stream = b"".join(parts)
    assert events([stream]) == events(parts)
    assert masked(parts) == stream


def test_an_event_is_there_as_soon_as_its_blank_line_is() -> None:
    reader, editor = EventReader(), EventEditor(b"model", b"1")
    assert reader.feed(b'data: {"model": 2}\n') == []
    assert reader.feed(b"\n") == [Event(b"", b'{"model": 2}')]
    assert editor.feed(b'data: {"model": 2}\r\n') == b""
    assert editor.feed(b"\r") == b'data: {"model": 1}\r\n\r'
    assert editor.feed(b"\n") == b""
    assert editor.rest() == b"\n"


def test_a_stream_may_end_without_a_blank_line() -> None:
    assert events([b"data: a\n\nda", b"ta: b"]) == [Event(b"", b"a"), Event(b"", b"b")]
    assert masked([b'data: {"model": "a", "cut": "of']) == b'data: {"model": "chat", "cut": "of'


@pytest.mark.parametrize("size", [LARGEST, 1000])
def test_an_event_that_is_too_large_is_passed_on_and_not_read(size: int) -> None:
    large = b'data: {"model": "small", "text": "' + b"x" * LARGEST + b'"}\n\n'
    stream = b"data: a\n\n" + large + b'data: {"model": "small"}\n\n'
    parts = [stream[start : start + size] for start in range(0, len(stream), size)]
    reader, editor = EventReader(), EventEditor(b"model", b'"chat"')
    read: list[Event] = []
    out = bytearray()
    for number, part in enumerate(parts, start=1):
        read += reader.feed(part)
        out += editor.feed(part)
        assert number * size - len(out) <= LARGEST + size
    assert read == [Event(b"", b"a"), Event(b"", b'{"model": "small"}')]
    assert reader.oversized == 1
    assert bytes(out) + editor.rest() == b"data: a\n\n" + large + b'data: {"model": "chat"}\n\n'
