"""YAML into a `Document`.

The events of the parser are read one by one, so that depth, anchors, tags and doubtful scalars are refused
before anything is built from them. Only one meaning per spelling is accepted: what YAML 1.1, YAML 1.2 and
JSON readers disagree about (`010`, `0x1f`) is an error instead of a guess.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from gateway.config.document import Document, Place, Steps, Value, dotted, fatal
from gateway.errors import ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 50_000  # a reader that takes seconds would hold up whoever reloads
MAX_KEY = 100  # characters
MAX_DIGITS = 18  # of a number; every whole number this long fits 64 bits

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DOUBTFUL = re.compile(r"[-+]?0([0-9_]+|[oO][0-7_]+|[xX][0-9a-fA-F_]+|[bB][01_]+)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~"), None),
}


def read(text: bytes, file: str) -> Document:
    """Read one YAML document; raises ConfigError where no document can be made out at all."""
    return _Builder(file, _events(_decoded(text, file), file)).document()


def _decoded(text: bytes, file: str) -> str:
    if len(text) > MAX_BYTES:
        raise fatal(file, f"expected at most {MAX_BYTES} bytes, found a larger file")
    if text.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise fatal(file, "expected UTF-8 without a byte order mark, found one", Place(1, 1))
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        place = _place_at(text[: error.start].decode(), error.start)
        raise fatal(file, f"expected UTF-8, found byte 0x{text[error.start]:02x}", place) from error


def _place_at(text: str, index: int) -> Place:
    before = text[:index]
    return Place(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _events(text: str, file: str) -> Iterator[Any]:
    """The parser's events; whatever it raises becomes a ConfigError."""
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else None
        raise fatal(file, _syntax(error), place) from error
    except ReaderError as error:
        message = f"expected printable text, found the character U+{ord(text[error.position]):04X}"
        raise fatal(file, message, _place_at(text, error.position)) from error
    except Exception as error:  # a file must never end a process, whatever slip it finds in the parser
        raise fatal(file, f"not readable as YAML: {type(error).__name__}: {error}") from error


def _syntax(error: MarkedYAMLError) -> str:
    found = str(error.problem or error.context)
    if "'\\t'" in found:
        return "expected spaces for indentation, found a tab"
    context = f" ({error.context})" if error.problem and error.context else ""
    return f"not valid YAML: {found}{context}"


class _Builder:
    """Builds the data of one document from its events."""

    def __init__(self, file: str, events: Iterator[Any]) -> None:
        self._events = events
        self._document = Document(file)
        self._values = 0

    def document(self) -> Document:
        file = self._document.file
        start = self._next_start()
        if start is None:
            raise fatal(file, "expected a configuration, found an empty file", Place(1, 1))
        if start.version not in (None, (1, 2)):
            raise fatal(file, "expected YAML 1.2, found a %YAML directive for another version", _at(start))
        first = next(self._events)
        self._document.data = self._node(first, (), 1)
        if not isinstance(self._document.data, dict):
            raise fatal(file, "expected keys and values at the top of the file", _at(first))
        if (second := self._next_start()) is not None:
            raise fatal(file, "expected one document, found a second one", _at(second))
        return self._document

    def _next_start(self) -> Any:
        return next((event for event in self._events if isinstance(event, DocumentStartEvent)), None)

    def _node(self, event: Any, steps: Steps, depth: int) -> Value:
        self._document.places.setdefault(steps, _at(event))
        self._count(event)
        if depth > MAX_DEPTH:
            raise fatal(self._document.file, f"expected at most {MAX_DEPTH} levels, found more", _at(event))
        if isinstance(event, AliasEvent) or event.anchor is not None:
            self._refuse(steps, "expected a plain value, found an anchor or alias (& or *): write it out")
        elif event.tag is not None:
            self._refuse(steps, f"expected a plain value, found the tag {event.tag}")
        if isinstance(event, MappingStartEvent):
            return self._mapping(steps, depth)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(steps, depth)
        return self._scalar(event, steps) if isinstance(event, ScalarEvent) else None

    def _count(self, event: Any) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise fatal(self._document.file, f"expected at most {MAX_VALUES} values, found more", _at(event))

    def _mapping(self, steps: Steps, depth: int) -> dict[str, Value]:
        mapping: dict[str, Value] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event, steps)
            inner = (*steps, key)
            if (first := self._document.keys.get(inner)) is not None:
                self._say(inner, f"expected each key once, found it in line {first.line} too", event)
                self._skip(next(self._events))
                continue
            value_event = next(self._events)
            self._document.keys[inner] = _at(event)
            # point to the key of what has inner parts, and of what is not there
            if not isinstance(value_event, ScalarEvent) or _is_empty(value_event):
                self._document.places[inner] = _at(event)
            mapping[key] = self._node(value_event, inner, depth + 1)
        return mapping

    def _key(self, event: Any, steps: Steps) -> str:
        if not isinstance(event, ScalarEvent):
            raise fatal(self._document.file, "expected text as key, found another structure", _at(event))
        if len(event.value) > MAX_KEY or not event.value.isprintable():
            message = f"expected a key of at most {MAX_KEY} printable characters, found {event.value[:20]!a}"
            raise fatal(self._document.file, message, _at(event))
        inner = (*steps, event.value)
        if event.anchor is not None or event.tag is not None:
            self._refuse(inner, "expected a plain name as key, found an anchor or tag", event)
        if not event.value or not isinstance(_resolved(event), str):
            found = event.value or "nothing"
            self._refuse(inner, f"expected text as key, found {found}: put it in quotes", event)
        return str(event.value)

    def _skip(self, event: Any) -> None:
        open_parts = 0
        while True:
            self._count(event)
            open_parts += isinstance(event, (MappingStartEvent, SequenceStartEvent))
            open_parts -= isinstance(event, (MappingEndEvent, SequenceEndEvent))
            if not open_parts:
                return
            event = next(self._events)

    def _sequence(self, steps: Steps, depth: int) -> list[Value]:
        values: list[Value] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            values.append(self._node(event, (*steps, len(values)), depth + 1))
        return values

    def _scalar(self, event: ScalarEvent, steps: Steps) -> Value:
        text = str(event.value)
        self._document.written[steps] = text
        if _is_empty(event):
            self._refuse(steps, "expected a value, found nothing: give it one or remove the key")
        elif not text.isprintable():
            character = next(character for character in text if not character.isprintable())
            self._refuse(steps, f"expected text in one line, found the character U+{ord(character):04X}")
        elif _plain(event) and _DOUBTFUL.fullmatch(text):
            self._refuse(steps, f"expected a decimal number, found {text}: if it is text, put it in quotes")
        elif _plain(event) and len(text) > MAX_DIGITS and _INTEGER.fullmatch(text):
            self._refuse(steps, f"expected a number of at most {MAX_DIGITS} digits, found {len(text)}")
        else:
            return _resolved(event)
        return None

    def _refuse(self, steps: Steps, message: str, event: Any = None) -> None:
        self._document.spoilt.add(steps)
        self._say(steps, message, event)

    def _say(self, steps: Steps, message: str, event: Any = None) -> None:
        line, column = self._document.place(steps) if event is None else _at(event)
        problem = ConfigProblem(self._document.file, line, dotted(steps), message, column)
        self._document.problems.append(problem)


def _at(event: Any) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)


def _plain(event: ScalarEvent) -> bool:
    return event.style is None


def _is_empty(event: ScalarEvent) -> bool:
    return _plain(event) and not event.value


def _resolved(event: ScalarEvent) -> Value:
    """The one meaning of a scalar in the core schema of YAML 1.2: quoted is text, `no` is text."""
    text = str(event.value)
    if not _plain(event):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and len(text) <= MAX_DIGITS:
        return int(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return float(text) if _FLOAT.fullmatch(text) else text
