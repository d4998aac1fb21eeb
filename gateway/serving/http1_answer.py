"""The head of an answer as bytes, and how its body is framed (RFC 9112 section 6). Pure.

The names of an answer's fields are the same from one answer to the next, so what depends on them alone is worked
out once, into a `_Form`; only the values differ.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from gateway.serving.asgi import Headers

CHUNKED = -1  # lengths of bodies that have none
UNTIL_CLOSE = -2
_BODILESS = (204, 304)
_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"  # of a field name; ASGI wants it in lower case
_CONNECTION = b"connection"
_FRAMING = b"transfer-encoding"
_FORMS = 512  # kept at most: names come from upstreams, so they need not be few


class AnswerHead(NamedTuple):
    data: bytes
    length: int  # of the body in bytes, or CHUNKED or UNTIL_CLOSE
    bodiless: bool  # whatever body is given does not travel
    persistent: bool  # another answer may follow on the connection


class _Form(NamedTuple):
    """What the names of the fields say."""

    lines: bytes  # a format for the values
    length_at: int  # where content-length is, or -1
    ours: bool  # there are fields that only the server may set
    names: frozenset[bytes]


_forms: dict[tuple[bytes, ...], _Form] = {}


def render(
    status: int, headers: Headers, defaults: Headers, *, head_only: bool, chunkable: bool, persistent: bool
) -> AnswerHead:
    """`defaults` are fields for an answer that does not have them. `head_only` answers HEAD; `chunkable` is what the
    client understands. Raises RuntimeError for what cannot be the head of an answer: the application has it wrong."""
    names: tuple[bytes, ...]
    values: tuple[bytes, ...]
    names, values = zip(*headers, strict=True) if headers else ((), ())
    form = _forms.get(names) or _form(names)
    if form.ours:  # framing is not the application's business, but it may ask for the end
        persistent = persistent and not _says_close(headers)
        kept = [field for field in headers if field[0] not in (_CONNECTION, _FRAMING)]
        return render(status, kept, defaults, head_only=head_only, chunkable=chunkable, persistent=persistent)
    joined = b"".join(values)
    if b"\n" in joined or b"\r" in joined or b"\0" in joined:
        raise RuntimeError(f"the value of a header field would end it: {headers}")
    bodiless = head_only or status in _BODILESS
    size, end = CHUNKED, b"\r\n"
    if form.length_at >= 0:
        size = _length(values[form.length_at])
    elif not bodiless and chunkable:
        end = b"transfer-encoding: chunked\r\n\r\n"
    elif not bodiless:
        size, persistent = UNTIL_CLOSE, False
    if not persistent:
        end = b"connection: close\r\n" + end
    given = b"".join([b"%b: %b\r\n" % field for field in defaults if field[0] not in form.names])
    return AnswerHead(_STATUS_LINES[status] + given + form.lines % values + end, size, bodiless, persistent)


def chunk(body: bytes, *, last: bool) -> bytes:
    """RFC 9112 7.1. Nothing for an empty piece in the middle: it would end the body."""
    piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return piece + b"0\r\n\r\n" if last else piece


def _form(names: tuple[bytes, ...]) -> _Form:
    if not all(names) or b"".join(names).translate(None, _TOKEN):
        raise RuntimeError(f"not names of header fields: {names}")
    if names.count(b"content-length") > 1:
        raise RuntimeError("an answer has one content-length")
    form = _Form(
        lines=b"".join([name.replace(b"%", b"%%") + b": %b\r\n" for name in names]),
        length_at=names.index(b"content-length") if b"content-length" in names else -1,
        ours=_CONNECTION in names or _FRAMING in names,
        names=frozenset(names),
    )
    if len(_forms) < _FORMS:
        _forms[names] = form
    return form


def _length(value: bytes) -> int:
    if not value.isdigit():
        raise RuntimeError(f"content-length must be a number of bytes, not {value!r}")
    return int(value)


def _says_close(headers: Headers) -> bool:
    return any(name == _CONNECTION and b"close" in value.lower() for name, value in headers)


def _status_line(status: int) -> bytes:
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


_STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}
