"""Composition root of a data-plane worker: build, serve, drain, stop in reverse.

A worker needs an inherited listening socket, a spool number and the plan file. It opens no database and talks to
nobody but clients and backends; it exits when the pipe held by the supervisor closes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import uvicorn
import uvloop

from gateway import plan as plans
from gateway.backends.onnx import ModelError
from gateway.clock import Clock, SystemClock
from gateway.errors import SpoolError
from gateway.node import WorkerSettings
from gateway.plan import PlanError
from gateway.serving.app import DataApp
from gateway.serving.inference import Inference
from gateway.serving.outcomes import Outcomes
from gateway.serving.table import Registry, Table
from gateway.spool.writer import SpoolWriter
from gateway.telemetry.logging import configure as configure_logging
from gateway.telemetry.status_page import StatusPage, Word

log = logging.getLogger(__name__)

POLL = 0.1  # seconds between two looks at the plan file; also the heartbeat of the spools
KEEP_ALIVE = 75  # seconds that an idle client connection is kept


class Worker:
    """Everything one worker is made of, but the HTTP server: the fake-clock tests drive this directly."""

    def __init__(self, data_dir: Path, spool: int, clock: Clock) -> None:
        incarnation = secrets.token_bytes(16)
        self._plan_path = data_dir / "plan.json"
        self._clock = clock
        self.page = StatusPage(data_dir / "status" / f"{spool:08d}-{incarnation.hex()}.page")
        self.page.words[Word.PID] = os.getpid()
        self.page.words[Word.SPOOL] = spool
        self._requests = SpoolWriter(data_dir / "spool", spool, "requests", incarnation, clock)
        self._outcomes = SpoolWriter(data_dir / "spool", spool, "outcomes", incarnation, clock)
        self._registry = Registry(self.page)
        self.app = DataApp(
            Inference(self._requests, self.page, clock), Outcomes(self._outcomes, self.page), self.page, clock
        )
        self._seen: tuple[int, int, int] | None = None
        self._retired: list[Table] = []

    async def poll(self) -> None:
        """Take a new plan if there is one, tell the reader that time has passed, close what is no longer used."""
        await self._follow_plan()
        # With a full disk the heartbeats fail too: the watermark stands still, which holds every promotion.
        with suppress(SpoolError):
            self._requests.heartbeat()
            self._outcomes.heartbeat()
        self.page.words[Word.HEARTBEAT_US] = self._clock.wall_us()
        if self._retired and all(table.in_flight == 0 for table in self._retired):
            self._retired.clear()
            if self.app.table is not None:
                await self._registry.retire(self.app.table)

    async def close(self) -> None:
        await self._registry.close()
        self._outcomes.close()
        self._requests.close()
        self.page.close()

    async def _follow_plan(self) -> None:
        try:
            stat = self._plan_path.stat()
        except FileNotFoundError:
            return
        seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            plan = plans.decode(self._plan_path.read_bytes())
        except PlanError:
            log.exception("the plan was refused; the last good one stays")
            return
        try:
            table = await self._registry.build(plan)
        except ModelError:
            log.exception("plan %d was refused; the last good one stays", plan.revision)
            self.page.words[Word.PLAN_REFUSED] = plan.revision
            return
        if self.app.table is not None:
            self._retired.append(self.app.table)
        self.app.table = table
        self.page.words[Word.PLAN_REVISION] = plan.revision


class _Server(uvicorn.Server):
    """uvicorn, with the worker's own way of draining: no connection is closed under a client's hands."""

    def __init__(self, config: uvicorn.Config, worker: Worker, settings: WorkerSettings) -> None:
        super().__init__(config)
        self._worker = worker
        self._settings = settings

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the composition root's business: uvicorn would raise them again after the drain."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self._worker.app
        app.draining = True
        self._worker.page.words[Word.DRAINING] = 1
        # Not ready and `Connection: close` first; balancers get `shutdown_delay` to look elsewhere.
        await asyncio.sleep(self._settings.shutdown_delay)
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()  # else the kernel goes on taking connections that nobody accepts
        # A connection that is kept alive gets time for one more request, whose answer closes it.
        deadline = asyncio.get_running_loop().time() + self._settings.drain
        while self.server_state.connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


async def _run(settings: WorkerSettings) -> None:
    clock = SystemClock()
    worker = Worker(Path(settings.data_dir), settings.spool, clock)
    await worker.poll()
    listener = socket.socket(fileno=settings.socket)
    config = uvicorn.Config(
        worker.app,
        http="httptools",
        loop="none",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=round(settings.grace),
        backlog=2048,
    )
    server = _Server(config, worker, settings)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, setattr, server, "should_exit", True)
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        polling = group.create_task(_poll_forever(worker, ready))
        orphaned = group.create_task(_await_orphaning(settings.lifeline, server))
        await ready.wait()  # no connection is accepted before there is a plan to answer from
        await server.serve(sockets=[listener])
        polling.cancel()
        orphaned.cancel()
    await worker.close()


async def _poll_forever(worker: Worker, ready: asyncio.Event) -> None:
    while True:
        await worker.poll()
        if worker.app.table is not None:
            ready.set()
        await asyncio.sleep(POLL)


async def _await_orphaning(lifeline: int, server: uvicorn.Server) -> None:
    """End of file on the lifeline: the supervisor is gone, so the worker leaves in an orderly way."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(lifeline, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(lifeline)
    log.warning("the supervisor is gone; draining")
    if not server.started:
        os.kill(os.getpid(), signal.SIGKILL)
    server.should_exit = True


def main() -> None:
    """Entry of the worker process; settings come as JSON in the first argument."""
    settings = msgspec.json.decode(sys.argv[1], type=WorkerSettings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group; the supervisor decides
    configure_logging(f"worker {settings.spool}")
    uvloop.run(_run(settings))


if __name__ == "__main__":
    main()
