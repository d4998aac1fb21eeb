"""Bytes of upstreams: cut anywhere they are the same answer, and what is no answer is a BackendError, never more."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.answer import AnswerReader, Limits
from gateway.backends.base import Headers
from gateway.errors import BackendError
from tests.fuzz.mutations import CUTS, cut, edited
from tests.fuzz.profile import FUZZ, frugal

# The head's limit is that of what is held unfinished: a large trailer that is whole at once is let pass.
LIMITS = Limits(head=1 << 20, body=10_000)
VALID = [
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
]
TOKENS = (
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b"\xff", b":", b"\r\n\r\n", b"0\r\n\r\n", b"5\r\n", b"-1", b"99999"),
    *(b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"RTSP/1.0", b"ICE/1.0", b"Content-Length: 3\r\n", b"1xx", b"600"),
    *(b"Content-Length: +3\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
    *(b"Connection: close\r\n", b"Upgrade: h2c\r\n", b"ffffffffffffffffffff\r\n", b"X: y\r\n" * 30, b"x" * 300),
)
ANSWER = edited(VALID, TOKENS)


class Heard(NamedTuple):
    status: int = 0
    headers: Headers = []  # noqa: RUF012 - never changed
    body: bytes = b""
    whole: bool = False
    fault: type[BackendError] | None = None


def heard(pieces: list[bytes], *, bodiless: bool = False, streamed: bool = False) -> Heard:
    """What came of the bytes up to the end of the answer, or of what the upstream sent."""
    reader = AnswerReader(LIMITS)
    reader.begin(bodiless=bodiless, whole=not streamed)
    body = b""
    with frugal():
        try:
            whole = False
            for piece in pieces:
                whole = reader.feed(piece)
                assert isinstance(reader.progress, str)
                if streamed and reader.streams:
                    body += reader.take()
                if whole:
                    reader.renew()
                    break
            whole = whole or reader.feed_eof()
        except BackendError as error:
            return Heard(fault=type(error))
    answer = reader.answer()
    reader.dispose()
    assert streamed or len(answer.body) <= LIMITS.body
    return Heard(answer.status, answer.headers, body + answer.body, whole)


@FUZZ
@given(st.sampled_from(VALID), CUTS, st.booleans(), st.booleans())
def test_an_answer_is_the_same_however_it_is_cut(
    answer: bytes, cuts: list[int], bodiless: bool, streamed: bool
) -> None:
    at_once = heard([answer], bodiless=bodiless, streamed=streamed)
    assert heard(cut(answer, cuts), bodiless=bodiless, streamed=streamed) == at_once


@FUZZ
@given(ANSWER, CUTS, st.booleans(), st.booleans())
def test_what_is_no_answer_is_the_upstreams_fault(
    answer: bytes, cuts: list[int], bodiless: bool, streamed: bool
) -> None:
    at_once = heard([answer], bodiless=bodiless, streamed=streamed)
    pieces = heard(cut(answer, cuts), bodiless=bodiless, streamed=streamed)
    assert pieces.whole == at_once.whole or pieces.fault or at_once.fault
    if pieces.whole and at_once.whole:
        assert pieces == at_once


@FUZZ
@given(ANSWER)
def test_bytes_one_by_one_are_the_same_answer(answer: bytes) -> None:
    at_once, bytewise = heard([answer]), heard(cut(answer, range(len(answer))))
    if at_once.whole:
        assert bytewise == at_once


@FUZZ
@given(st.binary(max_size=200), CUTS)
def test_random_bytes_are_no_answer(data: bytes, cuts: list[int]) -> None:
    assert not heard(cut(data, cuts)).whole


@pytest.mark.parametrize("answer", VALID)
def test_an_answer_cut_at_every_place(answer: bytes) -> None:
    at_once = heard([answer])
    for place in range(1, len(answer)):
        assert heard([answer[:place], answer[place:]]) == at_once
