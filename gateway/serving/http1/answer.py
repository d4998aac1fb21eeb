"""The head of an answer as bytes, and how its body is framed (RFC 9112 section 6). Pure.

The names of an answer's fields are the same from one answer to the next, so what depends on them alone is worked
out once, into a `_Form`; only the values differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from gateway.serving.asgi import Headers

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = -1  # in the place of a length: a body of pieces, a body up to the end of the connection, and none
UNTIL_CLOSE = -2
BODILESS = -3
_BODILESS = (204, 304)
_CONNECTION = b"connection"
_FRAMING = b"transfer-encoding"
_LENGTH = b"content-length"
_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"  # of a field name; ASGI wants it in lower case
_LF, _CR, _NUL = b"\n\r\0"  # as numbers: looked for at a seventh of the cost
_FORMS = 512  # kept at most: names come from upstreams, so they need not be few


class Defaults:
    """Fields for answers that do not have them, rendered once."""

    __slots__ = ("lines", "names", "of")

    def __init__(self, of: Headers) -> None:
        self.of = of
        self.names = frozenset([name for name, _ in of])
        self.lines = b"".join([b"%b: %b\r\n" % field for field in of])

    def without(self, names: frozenset[bytes]) -> bytes:
        return b"".join([b"%b: %b\r\n" % field for field in self.of if field[0] not in names])


@dataclass(frozen=True, slots=True)
class _Form:
    """What the names of the fields say."""

    lines: bytes  # a format for the values
    answer: bytes  # a format for status line, default fields, values, length of the body and body
    plain: bool  # the server need not look at the values: neither framing nor connection are among them
    ours: bool  # there are fields that only the server may set
    names: frozenset[bytes]


_forms: dict[tuple[bytes, ...], _Form] = {}


def render(
    status: int, headers: Headers, defaults: Defaults, bodiless: bool, chunkable: bool, persistent: bool
) -> tuple[bytes, int, bool]:
    """Head, length of the body (or how it ends), and whether another answer may follow. `bodiless` answers HEAD;
    `chunkable` is what the client understands. Raises RuntimeError for what cannot be the head of an answer: the
    application has it wrong."""
    status_line = _STATUS_LINES.get(status)
    if status_line is None:
        raise RuntimeError(f"not the status of a final answer: {status}")
    fields = dict(headers)
    if len(fields) == len(headers):
        names, values = tuple(fields), tuple(fields.values())
    else:
        names, values = tuple([name for name, _ in headers]), tuple([value for _, value in headers])
    form = _forms.get(names) or _form(names)
    if form.ours:  # framing is not the application's business, but it may ask for the end
        persistent = persistent and not _says_close(headers)
        kept = [field for field in headers if field[0] not in (_CONNECTION, _FRAMING)]
        return render(status, kept, defaults, bodiless, chunkable, persistent)
    if _end_a_field(values):
        broken = next(name for name, value in headers if _end_a_field((value,)))
        raise RuntimeError(f"the value of the header field {broken.decode()} would end it")  # it may be a secret
    end = b"\r\n"
    if bodiless or status in _BODILESS:
        length = BODILESS
    elif _LENGTH in fields:
        length = _number(fields[_LENGTH])
    elif chunkable:
        length, end = CHUNKED, b"transfer-encoding: chunked\r\n\r\n"
    else:
        length, persistent = UNTIL_CLOSE, False
    if not persistent:
        end = b"connection: close\r\n" + end
    others = defaults.lines if form.names.isdisjoint(defaults.names) else defaults.without(form.names)
    return b"".join((status_line, others, form.lines % values, end)), length, persistent


def whole(status: int, headers: Headers, defaults: Defaults, body: bytes) -> bytes | None:
    """A whole answer with its content-length, after which another may follow; None unless it is one of the common
    kind, with a field or more: `render` takes any. Raises RuntimeError as `render` does."""
    if not headers:
        return None
    names, values = zip(*headers, strict=True)
    form = _forms.get(names) or _form(names)
    if not form.plain or not form.names.isdisjoint(defaults.names):
        return None
    status_line = _STATUS_LINES.get(status)
    if status_line is None or status in _BODILESS or _end_a_field(values):
        return None
    return form.answer % (status_line, defaults.lines, *values, len(body), body)


def chunk(body: bytes, *, last: bool) -> bytes:
    """RFC 9112 7.1. Nothing for an empty piece in the middle: it would end the body."""
    piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return piece + b"0\r\n\r\n" if last else piece


def _form(names: tuple[bytes, ...]) -> _Form:
    if not all(names) or b"".join(names).translate(None, _TOKEN):
        raise RuntimeError(f"not names of header fields: {names}")
    if names.count(_LENGTH) > 1:
        raise RuntimeError("an answer has one content-length")
    lines = b"".join([name.replace(b"%", b"%%") + b": %b\r\n" for name in names])
    ours = _CONNECTION in names or _FRAMING in names
    form = _Form(
        lines=lines,
        answer=b"%b%b" + lines + b"content-length: %d\r\n\r\n%b",
        plain=not ours and _LENGTH not in names,
        ours=ours,
        names=frozenset(names),
    )
    if len(_forms) < _FORMS:
        _forms[names] = form
    return form


def _end_a_field(values: tuple[bytes, ...]) -> bool:
    joined = b"".join(values)
    return _LF in joined or _CR in joined or _NUL in joined


def _number(value: bytes) -> int:
    if not value.isdigit():
        raise RuntimeError(f"content-length must be a number of bytes, not {value!r}")
    return int(value)


def _says_close(headers: Headers) -> bool:
    return any(name == _CONNECTION and b"close" in value.lower() for name, value in headers)


def _status_line(status: int) -> bytes:
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


_STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}
