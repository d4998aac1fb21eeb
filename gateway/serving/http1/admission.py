"""How many connections a worker holds, and what becomes of those beyond it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from gateway.errors import Overloaded
from gateway.serving.http1 import refusal
from gateway.serving.http1.answer import Defaults
from gateway.serving.http1.head import DEFAULTS, Limits
from gateway.serving.http1.patience import Idle
from gateway.serving.http1.protocol import Http1Protocol

if TYPE_CHECKING:
    import uvicorn
    from uvicorn.server import ServerState


class Admission(Enum):
    FREE = "free"
    CROWDED = "crowded"  # one request is read, so that a health check is answered; every other one is refused
    FULL = "full"  # refused before it has said anything


class Doorkeeper(Protocol):
    """Who decides."""

    def admit(self, connections: int) -> Admission:
        """What becomes of a new connection where so many are open, itself among them."""

    def refused(self, reason: str) -> None:
        """A refusal before any application was asked."""


class Door:
    """Makes what speaks on a new connection, with the arguments that uvicorn gives to its own protocols."""

    def __init__(self, doorkeeper: Doorkeeper, limits: Limits = DEFAULTS) -> None:
        self._doorkeeper = doorkeeper
        self._limits = limits
        self._idle: Idle = {}

    def __call__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> asyncio.Protocol:
        return _Arrival(partial(self._open, config, server_state, app_state, _loop))

    def _open(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> asyncio.Protocol:
        doorkeeper, limits = self._doorkeeper, self._limits
        admission = doorkeeper.admit(len(server_state.connections) + 1)
        if admission is Admission.CROWDED and self._room_is_made():
            admission = Admission.FREE
        if admission is Admission.FULL:
            doorkeeper.refused(Overloaded.reason)
            return _TurnedAway(Defaults(server_state.default_headers))
        crowded = admission is Admission.CROWDED
        if crowded:
            limits = limits._replace(head_timeout=limits.crowded_timeout)
        return Http1Protocol(
            config,
            server_state,
            app_state,
            loop,
            limits=limits,
            refused=doorkeeper.refused,
            crowded=crowded,
            idle=self._idle,
        )

    def _room_is_made(self) -> bool:
        """The connection that has been idle longest is closed. Until the loop's next turn it counts, and has its
        descriptor: of more new ones at a time than the doorkeeper lets crowd, the last are refused."""
        longest = next(iter(self._idle), None)
        return longest is not None and longest.give_way()


class _Arrival(asyncio.Protocol):
    """Loops make the protocols of all connections that wait before they tell the first of its own: who is one too many
    is only known then."""

    def __init__(self, open_: Callable[[], asyncio.Protocol]) -> None:
        self._open = open_

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        protocol = self._open()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class _TurnedAway(asyncio.Protocol):
    """To wait for what the client asks, or until it has read this, would take what there is too little of."""

    def __init__(self, defaults: Defaults) -> None:
        self._defaults = defaults

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        transport.write(refusal.render(Overloaded("too many connections"), "", self._defaults, head_only=False))
        transport.close()
