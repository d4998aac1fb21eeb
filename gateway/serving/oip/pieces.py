"""JSON with long lists of numbers, flat or in rows, parsed piece by piece: one call of the parser stops all threads,
the event loop's among them.

A long list is cut out of the text, which is parsed without it, and is parsed by itself, a few elements at a time.
Wherever that is in doubt the text is parsed as a whole: what is JSON, and what it says, is the parser's to tell.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import orjson

PIECE = 1 << 16  # bytes; of the shortest numbers half as many: a millisecond
_NAME = secrets.token_hex(16)  # which nobody else can write
_CUT_OUT = b'["%b"]' % _NAME.encode()  # with quotes: where it is put into a text, that is no JSON any more


def loads(text: bytes) -> Any:
    """Raises orjson.JSONDecodeError."""
    lists = list(_long_lists(text))
    if lists:
        try:
            document = orjson.loads(_short(text, lists))
            inputs = _that_lost_their_data(document)
            if len(inputs) == len(lists):  # else one was at some other place
                for item, (start, end) in zip(inputs, lists, strict=True):
                    item["data"] = _elements(text, start + 1, end)
                return document
        except orjson.JSONDecodeError:
            pass  # said below, with its place
    return orjson.loads(text)


def without_lists(text: bytes) -> bytes:
    """All keys of a JSON text, and less of its numbers; it need not be JSON itself."""
    return _short(text, list(_long_lists(text)))


def _long_lists(text: bytes) -> Iterator[tuple[int, int]]:
    """Where their outermost brackets are. With no quote between them, all of a list is in one text, or in none."""
    at = 0
    while at + PIECE < len(text):
        quote = text.rfind(b'"', at, at + PIECE)
        if quote >= 0:
            at = quote + 1
            continue
        until = _found(text, b'"', at, len(text))
        start = text.find(b"[", at, until)
        end = text.rfind(b"]", at, _found(text, b"}", at, until))
        if 0 <= start < end - PIECE // 2:
            yield start, end
        at = until + 1


def _found(text: bytes, what: bytes, at: int, end: int) -> int:
    """Where it is; `end` if it is not there before."""
    place = text.find(what, at, end)
    return end if place < 0 else place


def _short(text: bytes, lists: list[tuple[int, int]]) -> bytes:
    parts: list[bytes] = []
    at = 0
    for start, end in lists:
        parts += (text[at:start], _CUT_OUT)
        at = end + 1
    return b"".join((*parts, text[at:]))


def _that_lost_their_data(document: Any) -> list[dict[str, Any]]:
    inputs = document.get("inputs") if type(document) is dict else None
    if type(inputs) is not list:
        return []
    return [item for item in inputs if type(item) is dict and item.get("data") == [_NAME]]


def _elements(text: bytes, at: int, end: int) -> list[Any]:
    """Of a list, without its brackets."""
    rows = text.find(b"[", at, at + PIECE) >= 0
    elements: list[Any] = []
    while at < end:
        cut = _found(text, b"]," if rows else b",", min(at + PIECE, end), end)
        if rows and cut < end:
            cut += 1
        piece = orjson.loads(b"[%b]" % text[at:cut])
        if not piece or cut == end - 1:  # nothing between two commas, or behind the last
            raise orjson.JSONDecodeError("a comma too many", "", 0)
        elements += piece
        at = cut + 1
    return elements
