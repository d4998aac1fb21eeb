"""Event streams (WHATWG HTML, section 9.2; protocols of chat completions): read beside the traffic, or edited in it.

Streams are cut after their blank lines, wherever the network has cut them before: LF LF, CRLF CRLF, CR CR and mixtures.
An event beyond `LARGEST` is passed on in pieces as it comes, and neither read nor edited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from gateway.serving.wire.splice import every_top_level, replaced

LARGEST = 1 << 20  # bytes of one event that are held until its end is there

# A line end after another; of CRLF the LF is the one that counts, for CR LF by themselves are one line end, not two.
_BLANK_LINE = re.compile(rb"\n(?:\n|\r\n?)|\r\r\n?")


class Part(NamedTuple):
    """A whole event with the blank line behind it, or a piece of one that is too large."""

    raw: bytes
    whole: bool


class Splitter:
    """Cuts a stream into whole events; what it gives out, one after the other, is what it was given."""

    __slots__ = ("_held", "_passing", "oversized")

    def __init__(self) -> None:
        self._held = bytearray()
        self._passing = False  # in the midst of an event that is too large
        self.oversized = 0  # events

    def feed(self, piece: bytes) -> list[Part]:
        # Most servers send one event at a time.
        if not self._held and _is_one_event(piece):
            return [Part(piece, True)]
        parts = self._cut(piece)
        if len(self._held) > LARGEST or (self._passing and self._held):
            parts.append(self._let_go())
        return parts

    def rest(self) -> bytes:
        """What is left at the end of the stream: an event without its blank line, if anything."""
        left = bytes(self._held)
        self._held.clear()
        return left

    def _cut(self, piece: bytes) -> list[Part]:
        held = self._held
        start = max(0, len(held) - 1)
        held += piece
        parts: list[Part] = []
        done = 0
        for blank in _BLANK_LINE.finditer(held, start):
            parts.append(self._part(bytes(held[done : blank.end()])))
            done = blank.end()
        del held[:done]
        return parts

    def _part(self, raw: bytes) -> Part:
        if self._passing:
            self._passing = False
            return Part(raw, False)
        if len(raw) > LARGEST:
            self.oversized += 1
            return Part(raw, False)
        return Part(raw, True)

    def _let_go(self) -> Part:
        """All but the byte that may be the beginning of a blank line."""
        if not self._passing:
            self._passing = True
            self.oversized += 1
        raw = bytes(self._held[:-1])
        del self._held[:-1]
        return Part(raw, False)


def _is_one_event(piece: bytes) -> bool:
    end = len(piece) - 2
    return 0 < end < LARGEST and piece.find(b"\n\n") == end and b"\r" not in piece


class Event(NamedTuple):
    """What one event says: its name, often empty, and its data lines joined by LF."""

    name: bytes
    data: bytes


class EventReader:
    """The events of a stream that have data, as soon as each is complete."""

    __slots__ = ("_splitter",)

    def __init__(self) -> None:
        self._splitter = Splitter()

    @property
    def oversized(self) -> int:
        """Events that were too large to be read."""
        return self._splitter.oversized

    def feed(self, piece: bytes) -> list[Event]:
        return [event for raw, whole in self._splitter.feed(piece) if whole and (event := _read(raw))]

    def rest(self) -> list[Event]:
        """The last event of a stream that ends without a blank line."""
        event = _read(self._splitter.rest())
        return [] if event is None else [event]


class EventEditor:
    """Gives a key of the outermost object in every event's data the same value; all other bytes stay as they are.

    What comes out lags behind what goes in by less than one event.
    """

    __slots__ = ("_key", "_splitter", "_value")

    def __init__(self, key: bytes, value: bytes) -> None:
        self._key = key
        self._value = value  # JSON
        self._splitter = Splitter()

    def feed(self, piece: bytes) -> bytes:
        return b"".join([self._edit(raw) if whole else raw for raw, whole in self._splitter.feed(piece)])

    def rest(self) -> bytes:
        """What is left at the end of the stream."""
        return self._edit(self._splitter.rest())

    def _edit(self, raw: bytes) -> bytes:
        return replaced(raw, every_top_level(_only_data(raw), self._key), self._value)


def _read(raw: bytes) -> Event | None:
    if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 > 0 and b"\r" not in raw:
        return Event(b"", raw[6:-2])
    name, data = b"", []
    for field, value in _fields(raw):
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(name, b"\n".join(data)) if data else None


def _fields(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Line by line; a comment is a line with an empty name."""
    for line in raw.splitlines():
        field, _, value = line.partition(b":")
        yield field, value.removeprefix(b" ")


def _only_data(raw: bytes) -> bytes:
    """The event with blanks for all but its data, so that what is found in it is found in the event as well."""
    lines = raw.splitlines(keepends=True)
    return b"".join([b"     " + line[5:] if line.startswith(b"data:") else b" " * len(line) for line in lines])
