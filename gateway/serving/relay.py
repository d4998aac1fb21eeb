"""An answer that is passed on while it comes, no faster than its client reads, and for how long."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.backends.base import Body
from gateway.clock import Clock
from gateway.errors import BackendError, BackendTimeout, ClientGone
from gateway.serving.asgi import Exchange, Headers
from gateway.serving.calls import Answer, Call
from gateway.serving.readings import Reader


@dataclass(slots=True)
class Relay:
    """Passes one streamed answer on, past the reader of its numbers."""

    exchange: Exchange
    call: Call
    answer: Answer
    reader: Reader | None
    clock: Clock
    _sending: bool = False  # it waits for the client, not for the upstream

    async def run(self, headers: Headers, rest: Body, seconds: float) -> None:
        """Until the end of the answer, or for so long; then ClientGone if it waits for the client to read, and else
        BackendTimeout. Raises BackendError if the upstream breaks off."""
        try:
            async with asyncio.timeout(seconds):
                await self._pieces(headers, rest)
        except TimeoutError as late:
            if self._sending:
                raise ClientGone("the client did not read the answer in time") from late
            raise BackendTimeout("the answer went on for too long") from late
        finally:
            rest.close()

    async def _pieces(self, headers: Headers, rest: Body) -> None:
        exchange, reader = self.exchange, self.reader
        try:
            self._sending = True
            await exchange.begin(self.answer.status, headers, self.answer.body)
            self._sending = False
            async for piece in rest:
                if reader is not None:
                    reader.piece(piece, self.clock.monotonic())
                self._sending = True
                await exchange.more(piece)
                self._sending = False
            self._sending = True
            await exchange.end()
        except BackendError as failure:
            if last_words := self.call.last_words(self.answer, failure):
                await exchange.more(last_words)
            raise
