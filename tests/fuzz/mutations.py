"""Valid input, made invalid: bytes edited anywhere, documents with any value in any place, streams cut anywhere."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Edit = tuple[int, int, bytes, int]  # where, how many bytes go, what comes, how often

_JSON_TOKENS = (b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"null", b"true", b"-1", b"1e999", b"0.5", b"NaN")
_NUMBERS = (b"0", b"-0", b"9" * 20, b"9" * 400, b"1" * 5000, b"4294967296", b"18446744073709551616")
_ODD = (b"\x00", b"\xff", b"\xef\xbb\xbf", b"\\ud800", b"\r\n", b"\n", b"\t", b" ", b"\x80", b"\xc3\xa9")
TOKENS = _JSON_TOKENS + _NUMBERS + _ODD

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**63 - 1, -(2**63), 2**63, 2**64 - 1]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)


def edited(valid: Sequence[bytes], tokens: Sequence[bytes] = TOKENS) -> SearchStrategy[bytes]:
    """One of the valid inputs with a few edits, perhaps none."""
    put = st.one_of(st.sampled_from(list(tokens)), st.binary(max_size=6))
    often = st.sampled_from([1, 1, 1, 2, 40])
    edit = st.tuples(st.integers(0, 1 << 14), st.sampled_from([0, 0, 1, 1, 2, 8, 64]), put, often)
    return st.builds(_edited, st.sampled_from(list(valid)), st.lists(edit, max_size=6))


def documents(valid: Sequence[Any], words: Sequence[str] = ()) -> SearchStrategy[Any]:
    """One of the valid documents, a few values replaced, removed, moved or repeated; `words` are keys that it knows."""
    keys = st.one_of(st.sampled_from([*words, "name"]), st.text(max_size=5))
    text = st.sampled_from([*words, "name"])
    values = st.recursive(
        st.one_of(_SCALARS, text),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=3)),
        max_leaves=6,
    )
    change = st.tuples(st.integers(0, 1 << 12), st.sampled_from(["replace", "remove", "move", "repeat", "add"]), values)
    return st.builds(_changed, st.sampled_from(list(valid)), st.lists(change, max_size=4))


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The data in pieces, none of them empty; a cut beyond the end counts from the beginning again."""
    places = sorted({place % len(data) for place in cuts} - {0}) if data else []
    return [data[start:end] for start, end in pairwise([0, *places, len(data)])]


CUTS = st.lists(st.integers(0, 1 << 16), max_size=12)


def _edited(data: bytes, edits: list[Edit]) -> bytes:
    for place, gone, put, often in edits:
        at = place % (len(data) + 1)
        data = data[:at] + put * often + data[at + gone :]
    return data


def _changed(document: Any, changes: list[tuple[int, str, Any]]) -> Any:
    document = copy.deepcopy(document)
    for number, what, value in changes:
        places = list(_places(document))
        if not places:
            return value
        holder, key = places[number % len(places)]
        if what == "remove":
            del holder[key]
        elif what == "repeat" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif what == "move":
            other, theirs = places[(number * 7 + 1) % len(places)]
            holder[key] = copy.deepcopy(other[theirs])
        elif what == "add" and isinstance(holder, dict):
            holder[value if isinstance(value, str) else "more"] = value
        else:
            holder[key] = value
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    parts = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(parts):
        yield document, key
        if isinstance(value, dict | list):
            yield from _places(value)
