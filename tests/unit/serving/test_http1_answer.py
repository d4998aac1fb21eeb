"""Heads of answers: what the application says, what the server adds, and what neither may."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.serving.asgi import Headers
from gateway.serving.http1.answer import BODILESS, CHUNKED, UNTIL_CLOSE, Defaults, chunk, render

DATE = Defaults([(b"date", b"now")])
NONE = Defaults([])
LENGTH = (b"content-length", b"5")


def head(
    *headers: tuple[bytes, bytes],
    status: int = 200,
    defaults: Defaults = NONE,
    bodiless: bool = False,
    chunkable: bool = True,
    persistent: bool = True,
) -> tuple[bytes, int, bool]:
    fields = list(headers)
    return render(status, fields, defaults, bodiless, chunkable, persistent)


def test_the_head_is_what_was_said_in_its_order() -> None:
    data, length, persistent = head((b"b", b"1"), LENGTH, (b"a%", b"%2"), status=404)
    assert data == b"HTTP/1.1 404 Not Found\r\nb: 1\r\ncontent-length: 5\r\na%: %2\r\n\r\n"
    assert (length, persistent) == (5, True)


def test_a_status_without_a_name_has_none() -> None:
    assert head(LENGTH, status=599)[0].startswith(b"HTTP/1.1 599 \r\n")


def test_repeated_fields_are_all_sent() -> None:
    assert b"\r\nset-cookie: 1\r\nset-cookie: 2\r\n" in head((b"set-cookie", b"1"), (b"set-cookie", b"2"))[0]


@pytest.mark.parametrize(
    ("headers", "options", "length", "persistent"),
    [
        ([LENGTH], {}, 5, True),
        ([LENGTH], {"persistent": False}, 5, False),
        ([], {}, CHUNKED, True),
        ([], {"chunkable": False}, UNTIL_CLOSE, False),
        ([LENGTH], {"bodiless": True}, BODILESS, True),
        ([], {"bodiless": True, "chunkable": False}, BODILESS, True),
        ([], {"status": 204}, BODILESS, True),
        ([LENGTH], {"status": 304}, BODILESS, True),
        ([LENGTH, (b"connection", b"keep-alive, Close")], {}, 5, False),
        ([LENGTH, (b"connection", b"keep-alive")], {"persistent": False}, 5, False),
        ([(b"transfer-encoding", b"chunked")], {}, CHUNKED, True),
    ],
)
def test_the_body_ends_where_the_head_says(
    headers: Headers, options: dict[str, Any], length: int, persistent: bool
) -> None:
    data, found, kept = head(*headers, **options)
    assert (found, kept) == (length, persistent)
    assert data.count(b"connection: close\r\n") == (not persistent)
    assert data.count(b"connection:") == (not persistent)
    assert data.count(b"transfer-encoding: chunked\r\n") == (length == CHUNKED)


def test_the_servers_fields_are_added_where_the_application_has_none() -> None:
    assert head(LENGTH, defaults=DATE)[0].startswith(b"HTTP/1.1 200 OK\r\ndate: now\r\n")
    both = Defaults([(b"date", b"now"), (b"server", b"x")])
    assert head((b"date", b"then"), LENGTH, defaults=both)[0].split(b"\r\n")[1:4] == [
        b"server: x",
        b"date: then",
        b"content-length: 5",
    ]


@pytest.mark.parametrize(
    "field",
    [(b"a", b"x\r\ny: z"), (b"a", b"x\ny"), (b"a", b"x\0"), (b"a:", b"x"), (b"", b"x"), (b"a b", b"x"), (b"A", b"x")]
    + [(b"content-length", value) for value in (b"", b"-1", b"+5", b"5, 5", b"x")],
)
def test_what_would_be_read_as_something_else_is_an_error(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(RuntimeError):
        head(field)


def test_a_value_that_cannot_be_sent_is_not_told_either() -> None:
    with pytest.raises(RuntimeError, match=r"^the value of the header field x-a would end it$"):
        head((b"set-cookie", b"session=secret"), (b"x-a", b"secret\n"))


def test_two_lengths_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="one content-length"):
        head(LENGTH, LENGTH)


@pytest.mark.parametrize("status", [100, 101, 199, 600])
def test_only_final_answers_are_sent(status: int) -> None:
    with pytest.raises(RuntimeError, match="status"):
        head(LENGTH, status=status)


def test_chunks() -> None:
    assert chunk(b"x" * 26, last=False) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert chunk(b"x", last=True) == b"1\r\nx\r\n0\r\n\r\n"
    assert chunk(b"", last=True) == b"0\r\n\r\n"
    assert chunk(b"", last=False) == b""
