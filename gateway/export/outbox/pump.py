"""From the feed to the sink, batch by batch; the position moves when the sink has acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.export.outbox.feed import Feed, Horizon
from gateway.export.outbox.position import Keeper, Position, PositionError
from gateway.export.outbox.sinks import Sink, Stopped
from gateway.export.outbox.waiting import Waiter
from gateway.export.writers import iso

_POLL = 1.0  # seconds between two looks at the store
_SHARE = 10  # a look that takes long comes so much less often: at most a tenth of the time is spent looking


class Outbox(NamedTuple):
    """Everything that it takes."""

    feed: Feed
    sink: Sink
    keeper: Keeper
    clock: Clock
    waiter: Waiter
    tell: Callable[[str], None]  # a person who reads along
    target: str  # where the sink sends to, without secrets
    moved: bool = False  # from where the position says, and a person knows it


def run(outbox: Outbox, *, follow: bool, since: int = 0) -> int:
    """Send what there is, and then, to `follow`, what comes, until told to stop. Returns the number of events sent.

    `since` is where to begin where there is no position yet. Raises SinkError, PositionError, StoreError; who follows
    waits for a store that is away.
    """
    pump = _Pump(outbox)
    try:
        while True:
            began = outbox.clock.monotonic()
            try:
                pump.drain(since)
            except StoreUnavailable as error:
                if not follow:
                    raise
                outbox.tell(str(error))
            if not follow:
                return pump.sent
            outbox.sink.idle()
            if outbox.waiter.wait(max(_POLL, _SHARE * (outbox.clock.monotonic() - began))):
                raise Stopped
    except Stopped:
        return pump.sent


class _Pump:
    """The position while it moves."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._position: Position | None = None
        self._seen: Horizon | None = None  # up to which everything was sent
        self.sent = 0

    def drain(self, since: int) -> None:
        """Send everything that can be told by now. Raises Stopped between two batches."""
        position = self._position or _start(self._outbox, since)
        horizon = self._outbox.feed.horizon()
        if horizon == self._seen:
            return
        for batch in self._outbox.feed.batches(position, horizon):
            self._outbox.sink.send(batch.events)
            self._keep(batch.position)
            self.sent += len(batch.events)
            if self._outbox.waiter.wait(0):
                raise Stopped
        drained = self._position or position
        known = drained.store or self._outbox.feed.identity()
        self._keep(replace(drained, through=horizon.watermark, store=known))
        self._seen = horizon

    def _keep(self, position: Position) -> None:
        self._outbox.keeper.save(position)
        self._position = position


def _start(outbox: Outbox, since: int) -> Position:
    position = outbox.keeper.load()
    identity = outbox.feed.identity()
    if position is None:
        return replace(outbox.feed.begin(since), store=identity, target=outbox.target)
    if position.store not in ("", identity):
        raise PositionError("the position is of another store: take another --name, or remove its file")
    if position.target not in ("", outbox.target) and not outbox.moved:
        raise PositionError(
            f"events under this name went to {position.target}, and not to {outbox.target}: take another --name, or say"
            " --moved if it is the same consumer, which has what was sent there"
        )
    gone = outbox.feed.horizon().expired_through
    if position.through < gone:
        outbox.tell(
            f"all was sent up to {iso(position.through)}, and what was assigned before {iso(gone)} has expired:"
            " some of it may never have been sent"
        )
    return replace(position, store=identity, target=outbox.target)
