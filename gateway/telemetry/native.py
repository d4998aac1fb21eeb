"""Which models a worker has in native code at this moment: what a crash is attributed to.

A model's thread names it in a word of the status page before a run and clears the word after it. The page outlives
the process; where the words of a page of the dead still name models, those were running.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from types import TracebackType
from weakref import WeakValueDictionary

from gateway.telemetry.status_page import IN_NATIVE_CODE, StatusPage, Word

_LOAD, _RUNS = 0, 2  # a word for the load; and one for runs of a model and of the one that it follows


class Mark:
    """`with mark:` around native code. It may outlive its page: a thread that hangs ends when it ends."""

    def __init__(self, words: memoryview[int] | None, place: int, value: int) -> None:
        self._words = words
        self._place = place
        self._value = value

    def __enter__(self) -> None:
        self._set(self._value)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._set(0)

    def _set(self, value: int) -> None:
        if self._words is not None:
            with suppress(ValueError):  # the page is closed
                self._words[self._place] = value


class Marks:
    """Gives out the marks of one worker. For the loop's thread."""

    def __init__(self, page: StatusPage) -> None:
        self._page = page
        self._running: WeakValueDictionary[tuple[str, str, int], Mark] = WeakValueDictionary()  # of who lives, by turn
        self._newest: dict[tuple[str, str], int] = {}  # turns

    def of(self, endpoint: str, variant: str, digest: str) -> tuple[Mark, Mark]:
        """For the load of a model, and for its runs. Without room on the page they mark nothing."""
        about = endpoint, variant
        start = self._page.slot(IN_NATIVE_CODE, about, 1 + _RUNS)
        words = None if start == Word.OVERFLOW else self._page.words
        turn = self._newest[about] = self._turn(about)
        running = self._running[*about, turn] = Mark(words, start + 1 + turn, mark_of(digest))
        return Mark(words, start + _LOAD, mark_of(digest)), running

    def _turn(self, about: tuple[str, str]) -> int:
        """One that no living model has, or else that of the older: models that could not be loaded have none."""
        newest = self._newest.get(about, 0)
        turns = [(newest + 1 + step) % _RUNS for step in range(_RUNS)]
        return next((turn for turn in turns if (*about, turn) not in self._running), turns[0])


def mark_of(digest: str) -> int:
    """A word for a digest, never 0."""
    return int.from_bytes(hashlib.sha256(digest.encode()).digest()[:8]) or 1
