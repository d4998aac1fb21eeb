"""Slots and idle connections of one upstream.

An exchange holds a *slot* from before it has a connection until that has ended it, cleanly or not, and both
come back in one synchronous step; there is no moment at which a cancelled call could leave a slot behind.
Connections are of no account here while they are in use: only idle ones are kept, newest first, so that few
stay warm.

Connections open at once never exceed the slots: a new one is opened only by a holder of a slot that found no
idle one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from gateway.backends.connection import Connection
from gateway.backends.faults import NoSlot, NoSlotInTime, is_want_of_room, of_connect
from gateway.backends.resolver import Resolver
from gateway.errors import BackendUnavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from gateway.backends.answer import Limits
    from gateway.backends.base import Timeouts


class Pool:
    def __init__(
        self,
        host: str,
        port: int,
        limits: Limits,
        *,
        tls: ssl.SSLContext | None,
        timeouts: Timeouts,
        max_connections: int,
        max_waiting: int,
        max_idle: int,
    ) -> None:
        self._host = host
        self._port = port
        self._limits = limits
        self._tls = tls
        self._timeouts = timeouts
        self._resolver = Resolver(host, port)
        self._max_connections = max_connections
        self._max_waiting = max_waiting
        self._max_idle = max_idle
        self._idle: list[Connection] = []  # oldest first; those that closed meanwhile are skipped when met
        self._waiting: deque[asyncio.Future[bool]] = deque()  # True: here is a slot; False: the pool closed
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False
        self.busy = 0  # slots taken
        self.opened = 0  # connections since the start
        self.streamed: Callable[[bool], None] | None = None  # hears of each stream's end: whether it was a good one

    def __repr__(self) -> str:
        return f"<Pool {self.busy} busy, {self.idle} idle, {self.waiting} waiting, {self.opened} opened>"

    @property
    def idle(self) -> int:
        return sum(not connection.gone for connection in self._idle)

    @property
    def outstanding(self) -> int:
        """Requests sent and not answered, and those that wait to be sent."""
        return self.busy + len(self._waiting)

    @property
    def full(self) -> bool:
        return self.busy >= self._max_connections

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    # -- a slot and a connection

    def take(self, now: float) -> Connection | None:
        """Both, if both are there at once; else neither."""
        if not self._idle or not self.claim():
            return None
        connection = self.reuse(now)
        if connection is None:
            self.release()
        return connection

    async def acquire(self, deadline: float, *, fresh: bool = False) -> Connection:
        """Wait for a slot, then take an idle connection, unless it is to be a `fresh` one, or open one."""
        if not self.claim():
            await self.wait(deadline)
        try:
            now = asyncio.get_running_loop().time()
            if now >= deadline:
                raise NoSlotInTime("the deadline had passed before the request was sent", self._where)
            connection = None if fresh else self.reuse(now)
            return connection or await self.open(deadline)
        except BaseException:
            self.release()
            raise

    # -- slots

    def claim(self) -> bool:
        """Take a slot if one is free. Nobody overtakes: a slot given back while calls wait is never free."""
        if self.busy >= self._max_connections or self._closed:
            return False
        self.busy += 1
        return True

    def release(self) -> None:
        """Give a slot back: to the one who has waited longest, if anybody does."""
        while self._waiting:
            ticket = self._waiting.popleft()
            if not ticket.done():
                ticket.set_result(True)
                return
        self.busy -= 1

    async def wait(self, deadline: float) -> None:
        """Wait in line for a slot; holds one on return, none on an exception."""
        if self._closed:
            raise BackendUnavailable("the backend is closed")
        if len(self._waiting) >= self._max_waiting:
            waiting = f"{self._where}: {self._max_waiting} calls wait for a connection"
            raise NoSlot("too many requests wait for the upstream", waiting)
        ticket: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(ticket)
        try:
            async with asyncio.timeout_at(deadline):
                granted = await ticket
        except TimeoutError:
            self._withdraw(ticket)
            raise NoSlotInTime("no connection was free before the deadline", self._where) from None
        except asyncio.CancelledError:
            self._withdraw(ticket)
            raise
        if not granted:
            raise BackendUnavailable("the backend was closed")

    def _withdraw(self, ticket: asyncio.Future[bool]) -> None:
        """Two cases: still in line, so leave it; or granted in the tick in which the wait was cancelled, so
        the slot is ours to pass on."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        elif not ticket.cancelled() and ticket.result():
            self.release()

    # -- connections, for holders of a slot

    def reuse(self, now: float) -> Connection | None:
        """The idle connection used last, unless it is too old: then those beneath it are too."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.gone and now - connection.idle_since < self._timeouts.keepalive:
                return connection
            connection.abort()
        return None

    async def open(self, deadline: float) -> Connection:
        """Raises what `faults.of_connect` makes of a failure at the last address that was tried."""
        deadline = min(deadline, asyncio.get_running_loop().time() + self._timeouts.connect)
        try:
            async with asyncio.timeout_at(deadline):
                return await self._first_of(await self._resolver.addresses(), deadline)
        except (OSError, UnicodeError) as error:  # refused, unreachable, timed out, not resolved, not trusted
            raise of_connect(error, self._where) from error

    async def _first_of(self, addresses: list[str], end: float) -> Connection:
        """One that can be connected to; the last fault if none can. Each has its share of the time that is left, so
        that one that is silent leaves some for the others."""
        loop = asyncio.get_running_loop()
        for left in range(len(addresses), 0, -1):
            address = addresses[-left]
            share = (end - loop.time()) / left
            try:
                async with asyncio.timeout(share):
                    return await self._connect(address)
            except OSError as error:
                if not is_want_of_room(error):
                    self._resolver.avoid(address)
                if left == 1:
                    raise
        raise AssertionError("a name has an address")

    async def _connect(self, address: str) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(loop, self._limits, self.put, self._timeouts, address)
        name = self._host if self._tls else None
        try:
            await loop.create_connection(lambda: connection, address, self._port, ssl=self._tls, server_hostname=name)
        except BaseException:
            connection.abort()
            raise
        self.opened += 1
        return connection

    def put(self, connection: Connection) -> None:
        """Take back a slot with the connection it was used for, which is kept for the next call, or closed. The
        idle limit does not hold while calls wait: they take it in the next tick."""
        if connection.streamed is not None and self.streamed is not None:
            self.streamed(connection.streamed)
        full = len(self._idle) >= self._max_idle and not self._waiting
        if full or self._closed or not connection.reusable or not self._resolver.still(connection.address):
            connection.abort()
        else:
            loop = asyncio.get_running_loop()
            connection.idle_since = loop.time()
            self._resolver.refresh()  # a busy upstream may open no connection for hours
            self._idle.append(connection)
            if self._reaper is None:
                self._reaper = loop.call_later(self._timeouts.keepalive, self._reap)
        self.release()

    def _reap(self) -> None:
        """Close what nobody came back for; without this a quiet upstream would keep dead sockets."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._timeouts.keepalive
        idle, self._idle = self._idle, []
        for connection in idle:
            if connection.idle_since <= oldest:
                connection.abort()
            elif not connection.gone:
                self._idle.append(connection)
        self._reaper = loop.call_later(self._timeouts.keepalive, self._reap) if self._idle else None

    def close(self) -> None:
        """Turn waiters away and drop what is idle; connections in use close when they are put back."""
        self._closed = True
        self._resolver.close()
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        while self._waiting:
            ticket = self._waiting.popleft()
            if not ticket.done():
                ticket.set_result(False)
        while self._idle:
            self._idle.pop().abort()

    @property
    def _where(self) -> str:
        return f"{self._host}:{self._port}"
