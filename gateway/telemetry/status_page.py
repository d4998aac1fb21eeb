"""Status pages: the counters of one worker incarnation in a shared-memory file.

A worker adds to 64-bit slots of its page (tens of nanoseconds); the control process reads all pages when it
is scraped, when it watches the health of a challenger, and when it asks which plan a worker serves from. The file
is held under `flock` by its writer: an unlocked page belongs to the dead and is folded into a base.

Layout: [magic 8][fixed words][slots][directory length u64][directory]. The directory is one JSON line per series,
appended when a series is first used; a slot is only ever given to one series.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gateway.files import create_locked
from gateway.plan import PREPARED_AT_ONCE

log = logging.getLogger(__name__)

MAGIC = b"ABGPAGE1"
SLOTS = 8192  # 50 experiments of 4 variants each need 5,500
DIRECTORY_BYTES = 512 << 10
_WORDS = 32  # fixed words, the magic among them
_DIRECTORY_AT = 8 * (_WORDS + SLOTS)
PAGE_BYTES = _DIRECTORY_AT + 8 + DIRECTORY_BYTES

LOAD_FAILURES = "load_failures"  # series by endpoint, variant, digest and message: attempts; no metric, words vary
IN_NATIVE_CODE = "in_native_code"  # series by endpoint and variant: see `telemetry.native`; no metric

Series = tuple[str, tuple[str, ...]]  # metric name, label values in the order of the metric's definition
_Entry = tuple[int, int, Series]  # index and size of a series


class Word(IntEnum):
    """The fixed words of a page (word 0 is the magic)."""

    PID = 1
    SPOOL = 2
    PLAN_REVISION = 3
    PLAN_REFUSED = 4  # revision of a plan that this worker could not take, 0 once it has taken another
    HEARTBEAT_US = 5
    IN_FLIGHT = 6
    DRAINING = 7
    PREPARED = 8  # which models of a plan's `prepare` are loaded and warm here, as `progress` writes it
    PREPARE_FAILED = 9  # which of them cannot be loaded
    LEFT = 10  # 1 once the worker ends as it was told to: what it still runs then, it does not die of
    # Updates dropped because slots or directory are used up. Last of the words: a histogram that finds no room
    # spills over the sixteen words from here on, which nothing else uses.
    OVERFLOW = 16


_TOLD = (1 << (64 - PREPARED_AT_ONCE)) - 1  # of a revision: of two that follow one another it tells which


def progress(revision: int, flags: Iterable[bool]) -> int:
    """A plan's revision and a bit for each model that it prepares, in one word: whoever reads it reads both."""
    bits = sum(1 << place for place, flag in enumerate(islice(flags, PREPARED_AT_ONCE)) if flag)
    return (revision & _TOLD) << PREPARED_AT_ONCE | bits


class StatusPage:
    """The writer's side. One per worker incarnation; only its own process writes."""

    def __init__(self, path: Path) -> None:
        self._descriptor = create_locked(path, MAGIC.ljust(PAGE_BYTES, b"\0"))
        self._map = mmap.mmap(self._descriptor, PAGE_BYTES)
        self.words = memoryview(self._map)[:_DIRECTORY_AT].cast("Q")
        self._slots: dict[Series, int] = {}
        self._next = _WORDS
        self._directory_used = 0

    def slot(self, name: str, labels: tuple[str, ...], size: int = 1) -> int:
        """The index into `words` of a series of `size` consecutive slots, given on first use.

        When the page is full, the answer is the overflow word: the update is counted there and nowhere else.
        """
        series = (name, labels)
        known = self._slots.get(series)
        if known is not None:
            return known
        line = json.dumps([self._next, size, name, labels]).encode() + b"\n"
        if self._next + size > _WORDS + SLOTS or self._directory_used + len(line) > DIRECTORY_BYTES:
            return Word.OVERFLOW
        start = _DIRECTORY_AT + 8 + self._directory_used
        self._map[start : start + len(line)] = line
        self._directory_used += len(line)
        # The length moves last: a reader never sees half a line.
        self._map[_DIRECTORY_AT : _DIRECTORY_AT + 8] = self._directory_used.to_bytes(8, "little")
        index = self._slots[series] = self._next
        self._next += size
        return index

    def close(self) -> None:
        self.words.release()
        self._map.close()
        os.close(self._descriptor)


class Model(NamedTuple):
    """A model as a page names it while its native code runs."""

    endpoint: str
    variant: str
    mark: int  # of its digest

    def __str__(self) -> str:
        return f"{self.endpoint}/{self.variant}"


@dataclass(frozen=True, slots=True)
class PageReading:
    """What a page said at one moment."""

    incarnation: str
    words: tuple[int, ...]
    series: dict[Series, tuple[int, ...]] = field(default_factory=dict)

    def word(self, which: Word) -> int:
        return self.words[which]

    def progress(self, which: Word, revision: int) -> int:
        """The bits of such a word, none if it is about another plan."""
        told, bits = divmod(self.words[which], 1 << PREPARED_AT_ONCE)
        return bits if told == revision & _TOLD else 0

    @property
    def in_native_code(self) -> frozenset[Model]:
        """The models whose native code ran, unless the worker was leaving as it was told to."""
        if self.words[Word.LEFT]:
            return frozenset()
        named = (item for item in self.series.items() if item[0][0] == IN_NATIVE_CODE)
        return frozenset(Model(labels[0], labels[1], mark) for (_, labels), marks in named for mark in marks if mark)


class Directory:
    """The series of one page. It only grows and is read ten times a second, so each line is parsed once."""

    def __init__(self) -> None:
        self._parsed = 0  # bytes
        self._entries: list[_Entry] = []

    def follow(self, file: BinaryIO, length: int) -> list[_Entry]:
        """All entries, now that it has this length; raises ValueError or TypeError if it is damaged."""
        file.seek(_DIRECTORY_AT + 8 + self._parsed)
        self._entries += [_entry(line) for line in file.read(max(0, length - self._parsed)).splitlines()]
        self._parsed = length
        return self._entries


def read_page(path: Path, known: Directory | None = None) -> PageReading | None:
    """Read a page, or None if the file is none; what is `known` of its directory is not parsed again.

    64-bit words are read whole, never torn.
    """
    directory = known or Directory()
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != PAGE_BYTES:
            return None
        head = file.read(_DIRECTORY_AT + 8)
        if head[:8] != MAGIC:
            return None
        try:
            entries = directory.follow(file, int.from_bytes(head[_DIRECTORY_AT:], "little"))
        except (ValueError, TypeError) as error:
            log.error("%s: damaged directory: %s", path, error)  # noqa: TRY400 - the line says it all
            return None
    words = memoryview(head)[:_DIRECTORY_AT].cast("Q")
    series = {key: tuple(words[index : index + size]) for index, size, key in entries}
    return PageReading(path.stem, tuple(words[:_WORDS]), series)


def _entry(line: bytes) -> _Entry:
    index, size, name, labels = json.loads(line)
    return index, size, (name, tuple(labels))
