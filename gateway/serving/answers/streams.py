"""What an event stream tells while it passes: when content comes, how much of it, and numbers in its events.

Events are told apart by their bytes: JSON is parsed only where something is looked for. Whether an event has content
is known from the keys of chat, completion and response chunks; of other protocols every event with data has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from gateway.events import End
from gateway.serving.wire.sse import Event, EventReader

_DONE = b"[DONE]"
# A string that is not empty under one of these keys. Inside of strings, quotes have a backslash before them.
_CONTENT = re.compile(
    rb'"(?<!\\")(?:content|reasoning_content|reasoning|text|arguments|refusal|delta)"[ \t]*+:[ \t]*+"[^"]'
)
# What most chunks have: if something follows, there is no need to search.
_USUAL = b'"delta":{"content":"'
_ENDS = (b'"', b"")
_MOST_TOKENS = 1 << 32  # of one stream: no nonsense of an upstream may overflow a counter
_TOKENS = ("completion_tokens", "output_tokens")


class Stream(NamedTuple):
    """How a stream went. Times are seconds; None is what is not known, or cannot be known of a stream cut short: if the
    client left that is how long it would have been, if it broke off all that gets better the earlier it does."""

    first_token: float | None  # from the start of the request
    longest_gap: float | None  # between two pieces with content; 0 if there was one piece
    tokens: int | None
    duration: float | None
    aborted: bool  # the client left before the end


@dataclass(frozen=True, slots=True)
class Pointer:
    """A place in a JSON document (RFC 6901)."""

    tokens: tuple[str, ...]
    needle: bytes  # is in every document that has the place, unless it spells the key with escapes

    @classmethod
    def of(cls, text: str) -> Pointer:
        tokens = tuple(token.replace("~1", "/").replace("~0", "~") for token in text.split("/")[1:])
        keys = [token for token in tokens if not token.isdigit()]
        return cls(tokens, orjson.dumps(keys[-1]) if keys else b"")

    def find(self, document: Any) -> Any:
        """The value there; None where there is nothing, or null."""
        for token in self.tokens:
            if isinstance(document, dict):
                document = document.get(token)
            elif isinstance(document, list) and _is_index(token) and int(token) < len(document):
                document = document[int(token)]
            else:
                return None
        return document


def _is_index(token: str) -> bool:
    return token.isascii() and token.isdigit() and len(token) < 10 and (token == "0" or token[0] != "0")


class StreamReader:
    """Watches one stream. Times are monotonic seconds."""

    __slots__ = ("_any_content", "_events", "_first", "_gap", "_last", "_pointers", "_usage", "_with_content", "found")

    def __init__(self, pointers: tuple[Pointer, ...], any_content: bool) -> None:
        self._events = EventReader()
        self._pointers = pointers
        self._any_content = any_content  # every event with data has content
        self._first: float | None = None
        self._last = 0.0
        self._gap = 0.0
        self._with_content = 0
        self._usage: int | None = None
        self.found: dict[Pointer, Any] = {}

    @property
    def oversized(self) -> int:
        """Events that were too large to be read."""
        return self._events.oversized

    def piece(self, text: bytes, now: float) -> None:
        self._take(self._events.feed(text), now)

    def end(self, started: float, now: float, end: End, readable: bool) -> Stream:
        """`readable` is false if what was fed is not all that came of the stream."""
        self._take(self._events.rest(), now)
        first = None if self._first is None else self._first - started
        aborted = end == "client_closed"
        if end != "answered" and not aborted:
            return Stream(first, None, None, None, False)
        tokens = self._with_content if self._usage is None else self._usage
        return Stream(
            first,
            None if first is None or not readable else self._gap,
            tokens if readable else self._usage,
            None if aborted else now - started,
            aborted,
        )

    def _take(self, events: list[Event], now: float) -> None:
        with_content = 0
        for event in events:
            with_content += self._has_content(event)
            self._look_into(event.data)
        if with_content:
            self._with_content += with_content
            if self._first is None:
                self._first = now
            else:
                self._gap = max(self._gap, now - self._last)
            self._last = now

    def _has_content(self, event: Event) -> bool:
        if self._any_content:
            return not event.data.startswith(_DONE)
        if event.name.startswith(b"response.") and not event.name.endswith(b".delta"):
            return False  # such events say again what others have said
        at = event.data.find(_USUAL) + len(_USUAL)
        if at > len(_USUAL) and event.data[at : at + 1] not in _ENDS:
            return True
        return _CONTENT.search(event.data) is not None

    def _look_into(self, data: bytes) -> None:
        usage = b'"usage"' in data and b'"usage":null' not in data
        wanted = [pointer for pointer in self._pointers if pointer.needle in data]
        if not wanted and not usage:
            return
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            return
        for pointer in wanted:
            if (value := pointer.find(document)) is not None:
                self.found[pointer] = value
        if usage and (tokens := _tokens_of(document)) is not None:
            self._usage = tokens


def _tokens_of(document: Any) -> int | None:
    """The completion tokens of a usage; in response events it is part of the response."""
    for holder in (document, document.get("response") if isinstance(document, dict) else None):
        usage = holder.get("usage") if isinstance(holder, dict) else None
        if isinstance(usage, dict):
            count = next((usage[key] for key in _TOKENS if key in usage), None)
            return count if type(count) is int and 0 <= count <= _MOST_TOKENS else None
    return None
