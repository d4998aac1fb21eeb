"""Retention: requests, and what came of them, are deleted day by day when they have had their time.

A day goes when every vote of it is folded, or its experiment has ended; what its votes count is settled first. Votes,
evidence, ledger and plans stay, so a report or a replay says what it said before.
"""

from __future__ import annotations

import logging
from enum import Enum, auto
from itertools import takewhile
from typing import Final

from gateway.clock import Clock
from gateway.evidence.definition import Definition, decode
from gateway.forgetting.settling import settle
from gateway.release.state import decode as decode_state
from gateway.store.keeping import DAY_US, Keeping

log = logging.getLogger(__name__)

LEAST: Final = 50
MOST: Final = 2_000  # votes settled, or requests deleted, in one transaction
BUDGET: Final = 0.02  # seconds that one call may take, and that a transaction should
ROUNDS: Final = 50  # transactions of one call, at most
PAUSE: Final = 60.0  # seconds between two looks where nothing is to be done, or nothing can


class _Went(Enum):
    ON = auto()  # there is more to do
    BLOCKED = auto()  # what must come first has not happened
    DONE = auto()


class Retention:
    """Owned by the process that folds; call `tick` between steps.

    `dropped` counts the days that went since the process started, `remaining` those that are there though they are
    older than they should be.
    """

    def __init__(self, store: Keeping, clock: Clock, keep_seconds: float) -> None:
        self.keep_seconds = keep_seconds
        self.dropped = 0
        self.remaining = 0
        self._store = store
        self._clock = clock
        self._look_at = clock.monotonic()
        self._day: int | None = None  # that is going
        self._unsettled: list[Definition] = []
        self._written = False  # that it goes
        self._at_once = LEAST  # as many as can be done within the budget

    def expired(self) -> int:
        """The time before which all requests have gone by their age; what still comes from before goes with them."""
        old, oldest = self._old(), self._store.first_day()
        return (old if oldest is None else min(old, oldest)) * DAY_US

    def tick(self, through: int) -> None:
        """A bounded piece of work; `through` is the time up to which everything is admitted. Raises StoreError."""
        began = before = self._clock.monotonic()
        for _ in range(ROUNDS):
            if not self._work(through):
                return
            now = self._clock.monotonic()
            self._at_once = self._at_once // 2 if now - before > BUDGET else self._at_once + self._at_once // 4
            self._at_once = min(max(self._at_once, LEAST), MOST)
            if now - began >= BUDGET / 2:
                return
            before = now

    def _work(self, through: int) -> bool:
        """One transaction at the most; whether there is more to do now."""
        if self._day is None:
            return self._begin(through)
        if self._unsettled:
            went = self._settle(self._unsettled[-1], (self._day + 1) * DAY_US)
            if went is _Went.DONE:
                self._unsettled.pop()
            if went is _Went.BLOCKED:
                self._pause()
            return went is not _Went.BLOCKED
        self._drop(self._day)
        return True

    def _begin(self, through: int) -> bool:
        """Find the oldest day that may go; whether there is one."""
        now = self._clock.monotonic()
        if now < self._look_at:
            return False
        young = min(self._old(), through // DAY_US)
        oldest = self._store.first_day()
        self.remaining = max(0, young - oldest) if oldest is not None else 0
        if oldest is None or oldest >= young:
            self._pause()
            return False
        self._day, self._written = oldest, False
        self._unsettled = [decode(text) for _, text in self._store.experiments().values()]
        return True

    def _old(self) -> int:
        """The first day that is to be kept."""
        return (self._clock.wall_us() - round(self.keep_seconds * 1e6)) // DAY_US

    def _pause(self) -> None:
        self._day = None
        self._look_at = self._clock.monotonic() + PAUSE

    def _settle(self, definition: Definition, end: int) -> _Went:
        """Settle some more votes of an experiment from before the end of the day."""
        id, store = definition.id, self._store
        with store.transaction(leading=True):
            after = store.settled_through(id)
            due = list(takewhile(lambda place: place.at < end, store.vote_places(id, after, self._at_once)))
            if due and not self._has_ended(definition):
                folded = self._folded(definition)
                due = [place for place in due if place.ordinal <= folded]
                if not due:
                    return _Went.BLOCKED
            if not due:
                return _Went.DONE
            settle(store, definition, after, due[-1].ordinal)
            store.forget_revisits(id, [place.decision for place in due if place.decision])
            store.settle_through(id, due[-1].ordinal)
        return _Went.ON

    def _has_ended(self, definition: Definition) -> bool:
        """Whether evidence about it can no longer change anything."""
        _, text = self._store.releases().get(definition.endpoint, (0, ""))
        state = decode_state(text) if text else None
        return state is not None and (state.experiment != definition.id or not state.open)

    def _folded(self, definition: Definition) -> int:
        cursors = self._store.cursors(definition.id)
        return min((cursors.get(metric.name, 0) for metric in definition.metrics), default=0)

    def _drop(self, day: int) -> None:
        """Some more requests of the day, or its end."""
        if not self._written:
            with self._store.transaction(leading=True):
                self._store.expire(day, self._clock.wall_us())
            self._written = True
        elif not self._store.drop_day(day, self._at_once):
            with self._store.transaction(leading=True):
                self._store.drop_late((day + 1) * DAY_US)
            self.dropped += 1
            self._day, self._look_at = None, self._clock.monotonic()
            log.info("the requests of day %d since the epoch have expired", day)
