"""Composition root of the control process: the control plane on a thread, admin and metrics ports beside it.

One thread runs everything that touches the store or the release (ticks, reloads, commands), so nothing there needs a
lock; the event loop only serves the ports from the last snapshot.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway import ends
from gateway.admin import samples, views
from gateway.admin.app import admin_app, metrics_app
from gateway.clock import SystemClock
from gateway.control_plane import LAST_GOOD, ControlPlane, StoreAway, started
from gateway.errors import GatewayError, StoreError, StoreUnreachable
from gateway.http_server import Server, configure
from gateway.node import ControlSettings
from gateway.release import attempts
from gateway.release.artifacts import MODELS
from gateway.release.guard import Guard
from gateway.release.state import Kind
from gateway.telemetry.exposition import GatewayCollector, render
from gateway.telemetry.logging import configure as configure_logging
from gateway.telemetry.seldom import Seldom

log = logging.getLogger(__name__)

NICE = 5  # below the workers: on a core that they share, folding must not keep a request waiting
TICK = 0.1  # seconds between two rounds of the control loop
REMINDED = 30.0  # seconds between two words about a store that is away
AGAIN = 1.0  # seconds, about, between two tries for a store that cannot be used yet
READING = 30.0  # seconds that whoever asks for a reload waits for its model files to be read
LAST_SHIPMENTS = 5.0  # seconds that a stopping node gives to shipping what its workers left
T = TypeVar("T")


class _CannotStart(Exception):
    """What cannot be served ends the process before it has answered anybody."""


class _Process:
    """The control plane on its own thread, as the ports see it; while a shared store is away there is none yet, but a
    guard."""

    def __init__(self, settings: ControlSettings) -> None:
        self._settings = settings
        self._plane: ControlPlane | None = None
        self._guard: Guard | None = None
        self._seldom = Seldom(REMINDED)
        self._waiting: dict[str, Any] = views.waiting("")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="control")

    @property
    def plane(self) -> ControlPlane:
        """Raises StoreUnreachable while there is none."""
        if self._plane is None:
            raise StoreUnreachable(self._waiting["store"]["error"] or "the control process is starting")
        return self._plane

    def build(self) -> bool:
        """Whether there is a plane now. Raises GatewayError where waiting would not help."""
        path, last_good = Path(self._settings.config), Path(self._settings.data_dir) / LAST_GOOD
        try:
            self._plane = started(path, last_good, SystemClock(), self._settings.name)
        except StoreAway as error:
            if self._seldom.due("away", time.monotonic()) is not None:
                serves = (Path(self._settings.data_dir) / "plan.json").exists()
                what = "the last plan serves on" if serves else "there is no plan yet, so nothing is served"
                log.warning("the store cannot be used yet; %s: %s", what, error)
            if self._guard is None or error.looked:  # sums must not fall: who has them from before would tell less
                self._guard = Guard(error.config, SystemClock())
            self._guard.take(error.config)
            self.guard(str(error))
        else:
            self._guard = None  # the pages have another owner now
        return self._plane is not None

    def guard(self, why: str = "") -> None:
        """A round without a store; `why` there is none, if that is new."""
        if self._guard is not None:
            self._guard.tick()
            told = why or self._waiting["store"]["error"]
            self._waiting = views.waiting(told, self._guard.health.living, self._guard.halts.all)

    def snapshot(self) -> dict[str, Any]:
        return self._plane.snapshot if self._plane else self._waiting

    async def command(self, endpoint: str, kind: Kind, actor: str, text: str, variant: str) -> None:
        await self.run(lambda: self.plane.command(endpoint, kind, actor, text, variant))

    async def forget_node(self, number: int, actor: str, text: str) -> None:
        await self.run(lambda: self.plane.forget_node(number, actor, text))

    async def erase(self, unit: str, endpoint: str, actor: str, text: str) -> dict[str, Any]:
        asked = await self.run(lambda: self.plane.erase(unit, endpoint, actor, text))
        return {"complete_at_us": asked.until, "text": asked.text}

    async def ledger(self) -> list[dict[str, Any]]:
        rows = await self.run(lambda: self.plane.controller.ledger())
        return [msgspec.to_builtins(row) for row in rows]

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        collector = await self.run(self._collector)
        # Of many experiments it takes half a second, in which the rounds go on.
        return await asyncio.to_thread(render, collector, accept)

    def _collector(self) -> GatewayCollector:
        if self._guard is None:
            return self.plane.collector()
        pages = self._guard.health.pages
        totals, told = pages.totals(pages.read()), list(samples.waiting(self._guard))
        return GatewayCollector(lambda: (totals, told))

    async def reload(self) -> list[str]:
        status = await self.run(lambda: self.plane.reload())
        deadline = asyncio.get_running_loop().time() + READING
        while status.reading_models:
            if asyncio.get_running_loop().time() > deadline:
                return ["the model files are still being read; `gateway status` tells when they are taken"]
            await asyncio.sleep(TICK)
            status = self.plane.intake.status
        return status.problems

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


async def _run(settings: ControlSettings) -> None:
    attempts.settle(Path(settings.data_dir) / MODELS, settings.last_end in ends.NATIVE)
    process = _Process(settings)
    try:
        there = await process.run(process.build)
    except GatewayError as error:
        raise _CannotStart(str(error)) from error
    servers = [
        (Server(configure(app, keep_alive=75, grace=2)), socket.socket(fileno=descriptor))
        for app, descriptor in (
            (admin_app(process), settings.admin_socket),
            (metrics_app(process), settings.metrics_socket),
        )
    ]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(settings.lifeline, stop.set)
    async with asyncio.TaskGroup() as group:
        serving = [group.create_task(server.serve(sockets=[sock])) for server, sock in servers]
        with suppress(asyncio.CancelledError):
            await _tick_until(stop, process, there)
        loop.remove_reader(settings.lifeline)
        await _leave(process)
        for server, _ in servers:
            server.should_exit = True
        await asyncio.wait(serving)


async def _tick_until(stop: asyncio.Event, process: _Process, there: bool) -> None:
    pauses, loop = random.Random(), asyncio.get_running_loop()
    while not there and not stop.is_set():
        again = loop.time() + AGAIN * pauses.uniform(0.5, 1.5)
        while loop.time() < again and not await _is_set_within(stop, TICK):
            await process.run(process.guard)
        if not stop.is_set():
            there = await process.run(process.build)
    while not stop.is_set():
        await process.run(process.plane.poll)
        await _is_set_within(stop, 0.0 if process.plane.behind else TICK)


async def _is_set_within(stop: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()


async def _leave(process: _Process) -> None:
    """The workers have gone; what they left is folded, within bounds."""
    try:
        plane = process.plane
    except StoreError:
        return
    deadline = asyncio.get_running_loop().time() + LAST_SHIPMENTS
    while asyncio.get_running_loop().time() < deadline:
        await process.run(plane.ship_the_rest)
        if plane.everything_shipped:
            break
        await asyncio.sleep(0.05)
    await process.run(plane.leave)


def main() -> None:
    """Entry of the control process; settings come as JSON in the first argument."""
    settings = msgspec.json.decode(sys.argv[1], type=ControlSettings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    configure_logging("control")
    try:
        asyncio.run(_run(settings))
    except _CannotStart as error:
        # Words for whoever starts the node; a traceback would bury them.
        log.error("the node cannot start:\n%s", error)  # noqa: TRY400
        sys.exit(78)
    except GatewayError:
        log.exception("the control process ends; another one starts")
        sys.exit(1)


if __name__ == "__main__":
    main()
