"""How long a client is waited for: for a head, a piece of a body, its next request, or to read its last answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from gateway.timer import Deadline

if TYPE_CHECKING:
    from gateway.serving.http1.head import Limits
    from gateway.serving.http1.request import Request

Idle = dict["Patience", None]  # of connections between two requests; first that which has waited longest


class Patience(Deadline):
    """Calls `expired()` when it is at its end. It is in `idle` while the next request is awaited."""

    __slots__ = ("_idle", "_in_head", "_keep_alive", "_limits")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        expired: Callable[[], None],
        limits: Limits,
        keep_alive: float,
        idle: Idle,
    ) -> None:
        super().__init__(loop, expired)
        self._limits = limits
        self._keep_alive = keep_alive
        self._idle = idle
        self._in_head = False

    def await_head(self) -> None:
        """From the connection or from its first byte; what more comes of it puts nothing off."""
        if not self._in_head:
            self.clear()
            self._in_head = True
            self.set(self._limits.head_timeout)

    def await_body(self, request: Request) -> None:
        """Somebody waits for more of it."""
        self.set(request.patience(self._limits.body_timeout, self._limits.body_rate))

    def await_next(self) -> None:
        self._idle[self] = None
        self.set(self._keep_alive)

    def linger(self) -> None:
        """Until the client has read its last answer."""
        self.set(self._limits.linger)

    def clear(self) -> None:
        """It is the client who waits."""
        self._end = inf
        self._in_head = False
        self._idle.pop(self, None)

    def give_way(self) -> bool:
        """For the sake of a new connection an idle one has waited long enough, unless its client has just been
        answered: that may be sending the next request."""
        if self._keep_alive - self.left() < self._limits.spared:
            return False
        self._expired()
        return True

    def close(self) -> None:
        self.clear()
        super().close()
