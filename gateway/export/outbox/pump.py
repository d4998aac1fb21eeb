"""From the feed to the sink, batch by batch; the position moves when the sink has acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from gateway.clock import Clock
from gateway.export.outbox.feed import Batch, Feed, Horizon
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


def run(outbox: Outbox, *, follow: bool, since: int = 0) -> int:
    """Send what there is, and then, to `follow`, what comes, until told to stop. Returns the number of events sent.

    `since` is where to begin where there is no position yet. Raises SinkError, PositionError, StoreError.
    """
    position = _start(outbox, since)
    sent, seen = 0, -1
    try:
        while True:
            began = outbox.clock.monotonic()
            horizon = outbox.feed.horizon()
            if horizon.step != seen:
                for batch in outbox.feed.batches(position, horizon):
                    outbox.sink.send(batch.events)
                    position = _kept(outbox, batch)
                    sent += len(batch.events)
                    if outbox.waiter.wait(0):
                        raise Stopped
                position = _drained(outbox, position, horizon)
                seen = horizon.step
            if not follow:
                return sent
            outbox.sink.idle()
            if outbox.waiter.wait(max(_POLL, _SHARE * (outbox.clock.monotonic() - began))):
                raise Stopped
    except Stopped:
        return sent


def _start(outbox: Outbox, since: int) -> Position:
    position = outbox.keeper.load()
    identity = outbox.feed.identity()
    if position is None:
        return replace(outbox.feed.begin(since), store=identity)
    if position.store not in ("", identity):
        raise PositionError("the position is of another store: take another --name, or remove its file")
    gone = outbox.feed.horizon().expired_through
    if position.through < gone:
        outbox.tell(
            f"all was sent up to {iso(position.through)}, and what was assigned before {iso(gone)} has expired:"
            " some of it may never have been sent"
        )
    return replace(position, store=identity)


def _kept(outbox: Outbox, batch: Batch) -> Position:
    outbox.keeper.save(batch.position)
    return batch.position


def _drained(outbox: Outbox, position: Position, horizon: Horizon) -> Position:
    """Everything up to the horizon was sent."""
    position = replace(position, through=horizon.watermark, store=position.store or outbox.feed.identity())
    outbox.keeper.save(position)
    return position
