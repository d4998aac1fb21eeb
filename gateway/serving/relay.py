"""An answer that is passed on while it comes, no faster than its client reads, and for how long."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from gateway.backends.base import Body
from gateway.clock import Clock
from gateway.errors import BackendError, BackendTimeout, ClientGone
from gateway.serving.answers.readings import Reader
from gateway.serving.asgi import Exchange, Headers
from gateway.serving.calls.plain import Answer, Call

PATIENCE = 1.0  # seconds for a client to make room for the last words of an answer that breaks off


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
            await self._within(seconds, headers, rest)
        except BackendError as failure:
            await self._last_words(failure)
            raise

    async def _within(self, seconds: float, headers: Headers, rest: Body) -> None:
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
        events = self.answer.events
        self._sending = True
        await exchange.begin(self.answer.status, headers, self.answer.body)
        self._sending = False
        async for piece in rest:
            if reader is not None:
                reader.piece(piece, self.clock.monotonic())
            if events and self.call.says_it_failed(piece):
                self.answer.failure = "event"
            self._sending = True
            await exchange.more(piece)
            self._sending = False
        self._sending = True
        await exchange.end()

    async def _last_words(self, failure: BackendError) -> None:
        """What the client is told before it is cut off, if it still reads."""
        if words := self.call.last_words(self.answer, failure):
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self.exchange.more(words)
