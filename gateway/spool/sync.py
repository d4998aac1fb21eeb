"""Group sync, durability level `disk`: all who come while one sync is under way share the next one.

A sync runs in a thread of its own, so the loop never waits for the disk. One that fails is never repeated: everybody
who waits is told, and what comes next goes to a new file (`SpoolWriter.give_up_segment`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gateway.clock import Clock
from gateway.errors import SpoolError
from gateway.spool.writer import SpoolWriter

log = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds that anybody waits for the disk
MOST = 512  # who wait at a time

Told = Callable[[str, int], None]


class GroupSync:
    """The syncs of one stream."""

    def __init__(self, spool: SpoolWriter, clock: Clock, told: Told, patience: float = PATIENCE) -> None:
        """`told` hears of every sync that ended: "ok" or "error", and the microseconds that it took."""
        self._spool = spool
        self._clock = clock
        self._told = told
        self._patience = patience
        self._waiting: list[asyncio.Future[None]] = []  # for the next sync
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool-sync")

    @property
    def crowded(self) -> bool:
        """Whether so many wait that another one should not append anything."""
        return len(self._waiting) >= MOST

    async def synced(self) -> None:
        """Wait until everything that was appended before this call is on the disk; raises SpoolError if it may not be.

        To be called in the same turn of the loop as the append.
        """
        loop = asyncio.get_running_loop()
        self._spool.await_disk()
        waiter = loop.create_future()
        self._waiting.append(waiter)
        if self._running is None:
            self._running = loop.create_task(self._run())
        try:
            async with asyncio.timeout(self._patience):
                await waiter
        except TimeoutError as error:
            raise SpoolError(f"the disk did not take what was written within {self._patience:g} s") from error

    async def close(self) -> None:
        """Wait for a sync that is under way, within bounds: a dead disk ends no call, and the process must."""
        if self._running is not None:
            await asyncio.wait([self._running], timeout=self._patience)
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._sync()
        finally:
            self._running = None

    async def _sync(self) -> None:
        waiting, self._waiting = self._waiting, []
        unsynced = self._spool.unsynced()
        began = self._clock.monotonic()
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, unsynced.sync)
        except OSError as error:
            # Whoever waits for the next sync has appended to the same file.
            waiting += self._waiting
            self._waiting = []
            self._spool.give_up_segment()
            self._told("error", self._since(began))
            log.error("spool %d: the disk did not take what was written: %s", self._spool.number, error.strerror)  # noqa: TRY400
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_exception(SpoolError(f"spool {self._spool.number}: {error.strerror}"))
        else:
            self._spool.synced(unsynced, more=bool(self._waiting))
            self._told("ok", self._since(began))
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    def _since(self, began: float) -> int:
        return round((self._clock.monotonic() - began) * 1e6)
