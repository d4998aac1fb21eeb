"""An outbox over a real store, with a clock that waits for nobody."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.clock import FakeClock
from gateway.export.outbox.events import Event, Teller
from gateway.export.outbox.feed import KINDS, Feed
from gateway.export.outbox.position import Keeper, held
from gateway.export.outbox.pump import Outbox
from gateway.export.outbox.sinks import SinkError
from gateway.export.source import OpenStore
from tests.unit.export.logs import Logged


@dataclass(slots=True)
class Waits:
    """Time passes at once; ends after so many waits."""

    clock: FakeClock
    most: int = 1_000
    waits: list[float] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None

    def wait(self, seconds: float) -> bool:
        if seconds > 0:
            self.waits.append(seconds)
            self.clock.advance(seconds)
            self.meanwhile()
        return len(self.waits) >= self.most


@dataclass(slots=True)
class Kept:
    """A sink in memory that is told when to fail: before it has taken a batch, or right after."""

    fails_before: int = 0  # at the n-th batch
    fails_after: int = 0
    batches: list[tuple[Event, ...]] = field(default_factory=list)
    calls: int = 0

    def send(self, events: tuple[Event, ...]) -> None:
        self.calls += 1
        if self.calls == self.fails_before:
            raise SinkError("not now")
        self.batches.append(events)
        if self.calls == self.fails_after:
            raise SinkError("killed before the position was saved")

    def idle(self) -> None: ...
    def close(self) -> None: ...

    @property
    def ids(self) -> list[str]:
        return [event.id for batch in self.batches for event in batch]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(event.text) for batch in self.batches for event in batch]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == f"gateway.{kind}"]


@contextmanager
def outbox(
    log: Logged,
    state: Path,
    sink: Any,
    *,
    kinds: tuple[str, ...] = KINDS,
    most: int = 7,
    waits: Waits | None = None,
    store: OpenStore | None = None,
    told: list[str] | None = None,
    target: str = "https://lake/events",
    moved: bool = False,
) -> Iterator[Outbox]:
    waits = waits or Waits(FakeClock())
    opened = store or log.look()
    try:
        with held(state) as keeper:
            feed = Feed(opened, Teller("/test"), kinds, most)
            tell = (told if told is not None else []).append
            yield Outbox(feed, sink, keeper, waits.clock, waits, tell, target, moved)
    finally:
        opened.close()


__all__ = ["Keeper", "Kept", "Waits", "outbox"]
