"""One value of a JSON object replaced in place: every other byte stays as the client or the model wrote it.

The text is not parsed. Outside of strings JSON has no backslashes, and a closing quote is never followed by a name,
so the bytes `"name"` with no backslash before them are a string of their own; a colon makes it a key, and the
brackets before it tell how deep it lies. Text that is no valid JSON is never an error, and comes out as it falls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from gateway.errors import RequestError

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+'  # without its end
_SIMPLE = re.compile(_STRING + rb'"|[^\s"{}\[\],:]++', re.DOTALL)  # a string, a number, true, false or null
# A string without an end is taken whole, or one would be looked for at each escaped quote in it.
_MARKS = re.compile(_STRING + rb'(?:"|\\?\Z)|[{}\[\]]', re.DOTALL)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+")


class Span(NamedTuple):
    """The bytes [start, end) of a text."""

    start: int
    end: int


def top_level(body: bytes, key: bytes) -> Span | None:
    """Where the value of a key of the outermost object is, None if it has no such key.

    `key` has letters, digits and underscores only. Raises RequestError if the key is there twice.
    """
    spans = every_top_level(body, key)
    if len(spans) > 1:
        raise RequestError(f"the key {key.decode()!r} must not be repeated: which one counts?")
    return spans[0] if spans else None


def replaced(body: bytes, spans: list[Span], value: bytes) -> bytes:
    """The body with another value, itself JSON, in the place of each span; spans ascend."""
    pieces: list[bytes] = []
    done = 0
    for start, end in spans:
        pieces += (body[done:start], value)
        done = end
    return b"".join([*pieces, body[done:]]) if pieces else body


def every_top_level(body: bytes, key: bytes) -> list[Span]:
    """As `top_level`, for text whose writer cannot be asked: however often the key is there."""
    spans: list[Span] = []
    depth = read = done = 0
    for found in _finder(key).among(body):
        at = found.start()
        if at < done:
            continue  # inside of the value before
        # Brackets are counted from where the depth is known, if that is not further away than the end, where it is 0.
        depth = depth + _opened(body[read:at]) if at - read <= len(body) - at else -_opened(body[at:])
        read = at
        if depth == 1:
            end = _value_end(body, found.end())
            if end is None:
                break  # no JSON from here on
            spans.append(Span(found.end(), end))
            done = end
    return spans


class _Finder(NamedTuple):
    """Finds a key with all that stands before its value."""

    plain: re.Pattern[bytes]
    escaped: re.Pattern[bytes]  # also where letters are written as `\u006d`; some times slower

    def among(self, body: bytes) -> Iterator[re.Match[bytes]]:
        return (self.escaped if b"\\u00" in body else self.plain).finditer(body)


@lru_cache(maxsize=16)
def _finder(key: bytes) -> _Finder:
    text = key.decode()
    if not _PLAIN_NAME.fullmatch(text):
        raise ValueError(f"a key of letters, digits and underscores can be looked for, not {text!r}")
    letters = "".join(f"(?:{letter}|\\\\u00(?i:{ord(letter):02x}))" for letter in text)
    colon = r"[ \t\r\n]*+:[ \t\r\n]*+"
    # The search jumps to what the patterns begin with; only there it looks back for a backslash.
    return _Finder(
        re.compile(rf'"{text}"(?<!\\"{text}"){colon}'.encode()), re.compile(rf'"(?<!\\"){letters}"{colon}'.encode())
    )


def _opened(text: bytes) -> int:
    """How many more brackets are opened than closed in text that begins and ends outside of strings."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(text.split(b'"')[::2])
    return outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")


def _value_end(body: bytes, start: int) -> int | None:
    if simple := _SIMPLE.match(body, start):
        return simple.end()
    if body[start : start + 1] not in _OPENING:
        return None
    depth = 0
    for mark in _MARKS.finditer(body, start):
        depth += _STEPS.get(mark[0], 0)
        if depth == 0:
            return mark.end()
    return None


_OPENING = (b"{", b"[")
_STEPS = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}
