"""Shadow traffic: copies of answered requests for the variants that did not answer them, so that predictions of all
can be compared on the same request.

A copy is offered when the client has its answer, so it delays nobody, and nobody waits for it. What it comes to is a
`Shadow` fact and a counter of its own; breaker, completions and kill rule hear nothing of it. HTTP upstreams get
copies only where they declare `idempotent: true` or the method is safe, because a copy is a request like any other to
them; it carries `x-gateway-shadow: 1`. Copies are the first thing that is dropped, and dropping is counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial

from gateway.backends.onnx import OnnxModel
from gateway.clock import Clock
from gateway.errors import BackendError, OutOfDescriptors
from gateway.events import Assignment, Shadow
from gateway.serving.calls.plain import Answer, Call, predicted
from gateway.serving.facts import keep
from gateway.serving.tables.table import Endpoint, Table, Variant
from gateway.spool.writer import SpoolWriter
from gateway.telemetry.status_page import StatusPage

log = logging.getLogger(__name__)

# Copies under way in one worker. Each holds a body, and one to an upstream a connection: this leaves the clients nearly
# all of an upstream's connections.
MOST = 64
CLOSING = 1.0  # seconds in which cancelled copies have surely ended


class _NoTurn(Exception):
    """The copy never came to its model."""


class Shadows:
    """The copies of one worker, under way."""

    def __init__(self, spool: SpoolWriter, page: StatusPage, clock: Clock) -> None:
        self._spool = spool
        self._page = page
        self._clock = clock
        self._copies: set[asyncio.Task[None]] = set()
        self._closed = False

    def offer(
        self, table: Table, endpoint: Endpoint, call: Call, assignment: Assignment, asked: Collection[Variant]
    ) -> None:
        """Send copies to every variant that has not been `asked` and may get one; returns at once."""
        for variant in endpoint.variants.values():
            if variant in asked or not call.may_be_copied_to(variant):
                continue
            if self._closed or len(self._copies) >= MOST:
                variant.counters.shadowed("dropped")
                continue
            table.in_flight += 1  # so that its backends stay open
            copy = asyncio.get_running_loop().create_task(self._send(endpoint, variant, call, assignment))
            self._copies.add(copy)
            copy.add_done_callback(partial(self._ended, table, variant))

    async def close(self) -> None:
        """Take no more copies and give up those under way: nobody waits for them, and the spool is about to close."""
        self._closed = True
        for copy in self._copies:
            copy.cancel()
        if self._copies:
            await asyncio.wait(self._copies, timeout=CLOSING)

    def _ended(self, table: Table, variant: Variant, copy: asyncio.Task[None]) -> None:
        """Here and not in the task, which may be cancelled before it begins."""
        self._copies.discard(copy)
        table.in_flight -= 1
        if copy.cancelled():
            variant.counters.shadowed("dropped")

    async def _send(self, endpoint: Endpoint, variant: Variant, call: Call, assignment: Assignment) -> None:
        try:
            async with _turn(variant):
                await self._ask(endpoint, variant, call, assignment)
        except _NoTurn:
            variant.counters.shadowed("dropped")

    async def _ask(self, endpoint: Endpoint, variant: Variant, call: Call, assignment: Assignment) -> None:
        started = self._clock.monotonic()
        answer: Answer | None = None
        try:
            answer = await call.copy(variant, asyncio.get_running_loop().time() + variant.plan.timeout)
            error = answer.failure
        except BackendError as failure:
            error = failure.kind
        except OutOfDescriptors:
            raise _NoTurn from None
        except Exception:
            log.exception("shadow copy failed", extra={"endpoint": endpoint.plan.name, "variant": variant.name})
            error = "internal"
        total = int((self._clock.monotonic() - started) * 1e6)
        prediction = predicted(endpoint, variant, answer)
        variant.counters.shadowed("error" if error else "ok")
        decision, drawn_at = assignment.decision, assignment.at
        fact = Shadow(decision, self._spool.now(), variant.name, total, error, prediction, drawn_at)
        keep(fact, self._spool, self._page)


@asynccontextmanager
async def _turn(variant: Variant) -> AsyncIterator[None]:
    """Copies for a model in the process go one by one; whose turn has not come within the variant's timeout, drops.

    The waiting is no fault of the variant's, so it leaves no fact: its deadline begins with its turn.
    """
    if not isinstance(variant.backend, OnnxModel):
        yield
        return
    aside = variant.backend.aside
    try:
        async with asyncio.timeout(variant.plan.timeout):
            await aside.acquire()
    except TimeoutError:
        raise _NoTurn from None
    try:
        yield
    finally:
        aside.release()
