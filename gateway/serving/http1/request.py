"""A request as it arrives: what is here of its body is kept until the application asks, which waits for the rest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.serving.http1.answer import CONTINUE

if TYPE_CHECKING:
    from gateway.errors import GatewayError
    from gateway.serving.asgi import Scope
    from gateway.serving.http1.carrier import Carrier


class Request:
    __slots__ = (
        "_arrived",
        "_carrier",
        "_fault",
        "_parts",
        "_waited",
        "_waiting",
        "buffered",
        "ended",
        "expects",
        "fields",
        "scope",
        "size",
        "whole",
    )

    def __init__(self, carrier: Carrier, scope: Scope, fields: dict[bytes, bytes], expects: bool) -> None:
        self.scope = scope
        self.fields = fields  # the headers by name
        self.expects = expects  # the client waits for a 100 before it sends the body
        self.whole = False  # it has arrived
        self.ended = False  # the application has been given the last of it
        self.size = 0  # bytes of its body so far
        self.buffered = 0  # how many of them nobody has taken yet
        self._carrier = carrier
        self._parts: list[bytes] = []
        self._fault: GatewayError | None = None  # why the rest will not come
        self._waiting = 0  # calls of `more`
        self._arrived: asyncio.Event | None = None
        self._waited = 0.0  # seconds in which somebody waited for the client

    @property
    def is_awaited(self) -> bool:
        """Somebody waits for more of its body from the client."""
        return self._waiting > 0 and not self.whole

    def patience(self, idle: float, rate: float) -> float:
        """Seconds for the next piece: not more than `idle`, and beyond the first `idle` seconds of waiting the client
        has to keep to `rate`, in bytes a second."""
        return max(0.0, min(idle, idle + self.size / rate - self._waited))

    # -- what the connection tells it

    def add(self, piece: bytes) -> None:
        self._parts.append(piece)
        self.expects = False
        self.size += len(piece)
        self.buffered += len(piece)
        if self._waiting:
            self.wake()

    def complete(self) -> None:
        self.whole = True
        if self._waiting:
            self.wake()

    def fail(self, fault: GatewayError) -> None:
        """The rest of the body will not come: whoever asks for it is told why."""
        self._fault = fault
        self.wake()

    def wake(self) -> bool:
        """Whoever waits is to look again. Whether anybody did."""
        if self._arrived is not None:
            self._arrived.set()
        return self._waiting > 0

    # -- what the application asks for: the body

    def piece(self) -> bytes | None:
        """What is here; None if nothing is. Raises what is wrong with the rest."""
        if self._fault is not None:
            raise self._fault
        if not self._parts and (self.ended or not self.whole):
            return None
        piece = self._take()
        self.ended = self.whole
        if self._carrier.intake.paused:
            self._carrier.intake.throttle()  # more may arrive in here
        return piece

    async def more(self) -> None:
        """Wait until something has arrived, or until it is known that nothing will."""
        if self._arrived is None:
            self._arrived = asyncio.Event()
        self._arrived.clear()
        self._waiting += 1
        try:
            if self.whole:
                await self._arrived.wait()
            else:
                await self._await_client(self._arrived)
        finally:
            self._waiting -= 1

    def _take(self) -> bytes:
        parts = self._parts
        taken = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.buffered = 0
        return taken

    async def _await_client(self, arrived: asyncio.Event) -> None:
        if self.expects:
            self.expects = False
            self._carrier.transport.write(CONTINUE)
        self._carrier.patience.await_body(self)
        loop = asyncio.get_running_loop()
        since = loop.time()
        try:
            await arrived.wait()
        finally:
            self._waited += loop.time() - since
