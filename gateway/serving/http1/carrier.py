"""What an exchange needs of the connection that carries it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.errors import GatewayError
    from gateway.serving.http1.answer import Defaults
    from gateway.serving.http1.exchange import HttpExchange
    from gateway.serving.http1.intake import Intake
    from gateway.serving.http1.patience import Patience
    from gateway.serving.http1.sending import Sending


class Carrier(Protocol):
    transport: asyncio.Transport
    intake: Intake
    patience: Patience
    sending: Sending
    tasks: set[asyncio.Task[None]]
    ending: bool  # the answer that begins now is the last one

    @property
    def defaults(self) -> Defaults: ...

    def answered(self, exchange: HttpExchange) -> None:
        """The answer is out."""

    def refuse(self, error: GatewayError, exchange: HttpExchange) -> None:
        """Answer in the place of an application that did not."""

    def cut(self, *, reset: bool) -> None:
        """Close at once, so that nobody takes half an answer for a whole one."""
