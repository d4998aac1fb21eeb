"""Composition root of a data-plane worker: build, serve, drain, stop in reverse.

A worker needs an inherited listening socket, a spool number and the plan file. It opens no database and talks to
nobody but clients and backends; it exits when the pipe held by the supervisor closes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import uvloop

from gateway import descriptors, memory
from gateway.clock import Clock, SystemClock
from gateway.errors import SpoolError
from gateway.http_server import configure
from gateway.memory import Tide
from gateway.node import LEAVE_AT_ONCE, WorkerSettings
from gateway.serving.app import DataApp
from gateway.serving.drain import DrainingServer
from gateway.serving.http1.admission import Door
from gateway.serving.inference import Inference
from gateway.serving.outcomes import Outcomes
from gateway.serving.routes import Router
from gateway.serving.shadow import Shadows
from gateway.serving.tables.follow import PlanFollower
from gateway.serving.tables.registry import Registry
from gateway.spool.room import Room, used
from gateway.spool.writer import SpoolWriter
from gateway.telemetry.logging import configure as configure_logging
from gateway.telemetry.status_page import StatusPage, Word

log = logging.getLogger(__name__)

COLLECT_AFTER = (20_000, 20, 50)  # containers more than were freed, and then collections of the next generation
POLL = 0.1  # seconds between two looks at the plan file; also the heartbeat of the spools
LOOK = 1.0  # seconds between two looks at how much the spools hold
GIVE_BACK = 10.0  # seconds between two looks at how much memory there is to be given back
KEEP_ALIVE = 75  # seconds that an idle client connection is kept


class Worker:
    """Everything one worker is made of, but the HTTP server: the fake-clock tests drive this directly."""

    def __init__(self, data_dir: Path, spool: int, clock: Clock) -> None:
        incarnation = secrets.token_bytes(16)
        self._clock = clock
        self.page = StatusPage(data_dir / "status" / f"{spool:08d}-{incarnation.hex()}.page")
        self.page.words[Word.PID] = os.getpid()
        self.page.words[Word.SPOOL] = spool
        self._spool = data_dir / "spool"
        self._room = Room()
        self._requests = SpoolWriter(self._spool, spool, "requests", incarnation, clock, room=self._room)
        self._outcomes = SpoolWriter(self._spool, spool, "outcomes", incarnation, clock, room=self._room)
        self._registry = Registry(self.page)
        self._shadows = Shadows(self._requests, self.page, clock)
        inference = Inference(self._requests, self.page, clock, self._shadows)
        self._intake = Outcomes(self._outcomes, self.page, clock)
        router = Router(inference, self._intake)
        self.app = DataApp(router, self.page, clock, descriptors.room())
        self._follower = PlanFollower(data_dir / "plan.json", self._registry, self.app, self.page, clock)

    async def poll(self) -> None:
        """One round of everything that a worker does beside answering."""
        self.beat()
        await self.look()
        await self.follow()

    def beat(self) -> None:
        """Tell the readers that time has passed."""
        # With a full disk the heartbeats fail too: the watermark stands still, which holds every promotion.
        for spool in (self._requests, self._outcomes):
            with suppress(SpoolError):
                spool.heartbeat()
        self.page.words[Word.HEARTBEAT_US] = self._clock.wall_us()

    async def follow(self) -> None:
        """Look at the plan file; raises nothing."""
        await self._follower.follow()

    async def look(self) -> None:
        """See how much room the spools of the node have left; raises nothing."""
        room, was_full, table = self._room, self._room.full, self.app.table
        if table is not None:
            room.most = table.plan.max_spool
        try:
            room.measured(await asyncio.to_thread(used, self._spool))
        except OSError as error:
            log.warning("%s: how much is in it is not known: %s", self._spool, error)
            return
        if least := room.short_segments:
            with suppress(SpoolError):
                for spool in (self._requests, self._outcomes):
                    spool.end_segment(least)
        if room.full and not was_full:
            log.error("%s: spool.max_size is reached, and nothing is kept until there is room again", self._spool)
        elif was_full and not room.full:
            log.warning("%s: there is room again", self._spool)

    @property
    def loading(self) -> bool:
        """Whether a model is being loaded beside the traffic."""
        return self._follower.loading

    async def close(self) -> None:
        self.page.words[Word.LEFT] = 1
        await self._follower.close()
        await self._shadows.close()
        await self._registry.close()
        await self._intake.close()
        self._outcomes.close()
        self._requests.close()
        self.page.close()


async def _run(settings: WorkerSettings) -> None:
    descriptors.raise_limit()
    worker = Worker(Path(settings.data_dir), settings.spool, SystemClock())
    listener = socket.socket(fileno=settings.socket)
    config = configure(worker.app, keep_alive=KEEP_ALIVE, grace=round(settings.grace), protocol=Door(worker.app))
    server = DrainingServer(config, worker.app, worker.page, settings.shutdown_delay, settings.drain)
    ready = asyncio.Event()

    def leave(delay: float = settings.shutdown_delay) -> None:
        server.shutdown_delay = delay
        server.should_exit = True
        ready.set()
        # Whatever hangs on the way out (a model file on a dead mount, say), the kernel ends it.
        signal.setitimer(signal.ITIMER_REAL, delay + settings.drain + settings.grace + 5.0)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, leave)
    loop.add_signal_handler(LEAVE_AT_ONCE, leave, 0.0)
    async with asyncio.TaskGroup() as group:
        # A model may take long to load, and meanwhile the readers must hear that this worker lives.
        beside = [
            group.create_task(_beat_forever(worker)),
            group.create_task(_follow_forever(worker, ready)),
            group.create_task(_look_forever(worker)),
            group.create_task(_give_back_forever()),
            group.create_task(_await_orphaning(settings.lifeline, leave)),
        ]
        await ready.wait()  # no connection is accepted before there is a plan to answer from
        _settle()
        if not server.should_exit:
            await server.serve(sockets=[listener])
        for task in beside:
            task.cancel()
    await worker.close()


def _settle() -> None:
    """What is here before the first request stays, so the collector need not look at it again; and a request leaves
    hardly a cycle, so it may look seldom. Both together are a twentieth of a request's time, and most of its worst."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


async def _beat_forever(worker: Worker) -> None:
    while True:
        worker.beat()
        await asyncio.sleep(POLL)


async def _give_back_forever() -> None:
    """In a thread: it takes milliseconds, in which only who asks the system for memory waits."""
    tide = Tide()
    while True:
        await asyncio.sleep(GIVE_BACK)
        if tide.high(memory.resident()):
            await asyncio.to_thread(memory.give_back)
            tide.ebbed(memory.resident())


async def _follow_forever(worker: Worker, ready: asyncio.Event) -> None:
    while True:
        await worker.follow()
        if worker.app.table is not None:
            ready.set()
        await asyncio.sleep(POLL)


async def _look_forever(worker: Worker) -> None:
    while True:
        await worker.look()
        await asyncio.sleep(LOOK)


async def _await_orphaning(lifeline: int, leave: Callable[[], None]) -> None:
    """End of file on the lifeline: the supervisor is gone, so the worker leaves in an orderly way."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(lifeline, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(lifeline)
    log.warning("the supervisor is gone; draining")
    leave()


def main() -> None:
    """Entry of the worker process; settings come as JSON in the first argument."""
    settings = msgspec.json.decode(sys.argv[1], type=WorkerSettings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group; the supervisor decides
    configure_logging(f"worker {settings.spool}")
    memory.keep_large_blocks_apart()
    code = 0
    try:
        uvloop.run(_run(settings))
    except BaseException:
        log.exception("this worker ends by a fault of ours")
        code = 1
    logging.shutdown()
    # A model's thread may still be in native code, and that does not survive the end of the interpreter: it aborts,
    # which would be counted against the model.
    os._exit(code)


if __name__ == "__main__":
    main()
