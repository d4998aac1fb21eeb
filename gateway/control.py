"""Composition root of the control process: config and store in, plan out; admin and metrics ports beside it.

One thread runs everything that touches the store or the release (ticks, reloads, commands), so nothing there needs a
lock; the event loop only serves the ports from the last snapshot.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway import ends
from gateway.admin import views
from gateway.admin.app import admin_app, metrics_app
from gateway.clock import Clock, SystemClock
from gateway.config.load import LoadedConfig, load, parse
from gateway.errors import ConfigError, GatewayError
from gateway.http_server import Server, configure
from gateway.node import ControlSettings
from gateway.release import attempts
from gateway.release.artifacts import MODELS
from gateway.release.controller import Controller
from gateway.release.intake import Intake, ReloadStatus
from gateway.release.keys import load_or_create
from gateway.release.state import Kind
from gateway.store.sqlite import SqliteStore
from gateway.telemetry.exposition import GatewayCollector, render
from gateway.telemetry.logging import configure as configure_logging

log = logging.getLogger(__name__)

NICE = 5  # below the workers: on a core that they share, folding must not keep a request waiting
VIEW_SHARE = 20  # times what a snapshot took, until the next
TICK = 0.1  # seconds between two rounds of the control loop
READING = 30.0  # seconds that whoever asks for a reload waits for its model files to be read
LAST_SHIPMENTS = 5.0  # seconds that a stopping node gives to shipping what its workers left
LAST_GOOD = "config.last-good.yaml"  # in the data directory
T = TypeVar("T")


class ControlPlane:
    """Everything the control process is made of, but the HTTP servers: fake-clock tests drive this directly.

    `poll` may be called from one thread at a time.
    """

    def __init__(self, loaded: LoadedConfig, clock: Clock, as_served: bool = False) -> None:
        self._clock = clock
        config = loaded.config
        for folder in ("spool", "status"):
            (config.data_dir / folder).mkdir(parents=True, exist_ok=True)
        config.store_path.parent.mkdir(parents=True, exist_ok=True)
        self.store = SqliteStore(config.store_path)
        try:
            keys = load_or_create(config.data_dir / "keys.json")
            self.controller = Controller(loaded, self.store, config.data_dir, keys, clock, as_served)
        except GatewayError:
            self.store.close()
            raise
        self.intake = Intake(self.controller, config.data_dir / LAST_GOOD, clock)
        self._next_view = 0.0
        self.snapshot: dict[str, Any] = self._view()

    def poll(self) -> None:
        """One round: tick, look at the config, take a new snapshot."""
        self.controller.tick()
        self.intake.look()
        if self.intake.idle:
            self.controller.prune()
        if self._clock.monotonic() >= self._next_view:
            self.snapshot = self._view()

    def command(self, endpoint: str, kind: Kind, actor: str, text: str, variant: str = "") -> None:
        self.controller.command(endpoint, kind, actor, text, variant)
        self.snapshot = self._view()

    def reload(self) -> ReloadStatus:
        """Look at the file now. Model files that have changed may still be read when this returns."""
        self.intake.reload()
        self.snapshot = self._view()
        return self.intake.status

    def collector(self) -> GatewayCollector:
        """What `/metrics` says, as of now; to be rendered anywhere."""
        pages = self.controller.health.pages
        totals = views.told_of_upstreams(pages.totals(pages.read()), self.controller.plan)
        samples = list(views.samples(self.controller, self.intake.status, self._clock.wall_us()))
        return GatewayCollector(lambda: (totals, samples))

    def exposition(self, accept: str) -> tuple[bytes, str]:
        return render(self.collector(), accept)

    def refuse(self, error: ConfigError) -> None:
        """The file on disk is not what is served from."""
        self.intake.refuse(error)
        self.snapshot = self._view()

    def ship_the_rest(self) -> None:
        """After the workers have gone: fold what they left."""
        self.controller.tick()

    @property
    def everything_shipped(self) -> bool:
        return self.controller.engine.everything_read

    def close(self) -> None:
        self.store.close()

    def _view(self) -> dict[str, Any]:
        """Of hundreds of releases it takes long: a twentieth of the time goes into it, at the most."""
        began = self._clock.monotonic()
        view = views.status(self.controller, self.intake.status, self._clock.wall_us())
        now = self._clock.monotonic()
        self._next_view = now + VIEW_SHARE * (now - began)
        return view


class _Process:
    """The control plane on its own thread, as the ports see it."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="control")

    def snapshot(self) -> dict[str, Any]:
        return self._plane.snapshot

    async def command(self, endpoint: str, kind: Kind, actor: str, text: str, variant: str) -> None:
        await self.run(lambda: self._plane.command(endpoint, kind, actor, text, variant))

    async def ledger(self) -> list[dict[str, Any]]:
        rows = await self.run(self._plane.controller.ledger)
        return [msgspec.to_builtins(row) for row in rows]

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        collector = await self.run(self._plane.collector)
        # Of many experiments it takes half a second, in which the rounds go on.
        return await asyncio.to_thread(render, collector, accept)

    async def reload(self) -> list[str]:
        status = await self.run(self._plane.reload)
        deadline = asyncio.get_running_loop().time() + READING
        while status.reading_models:
            if asyncio.get_running_loop().time() > deadline:
                return ["the model files are still being read; `gateway status` tells when they are taken"]
            await asyncio.sleep(TICK)
            status = self._plane.intake.status
        return status.problems

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


async def _run(settings: ControlSettings) -> None:
    attempts.settle(Path(settings.data_dir) / MODELS, settings.last_end in ends.NATIVE)
    plane = _plane(Path(settings.config), Path(settings.data_dir) / LAST_GOOD)
    process = _Process(plane)
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
            await _tick_until(stop, process, plane)
        loop.remove_reader(settings.lifeline)
        await _ship_the_rest(process, plane)
        for server, _ in servers:
            server.should_exit = True
        await asyncio.wait(serving)
    await process.run(plane.close)


def _plane(path: Path, last_good: Path) -> ControlPlane:
    """Serving from the file; after a crash in front of files that are refused, from what was served before."""
    try:
        return ControlPlane(load(path), SystemClock())
    except ConfigError as error:
        if not last_good.exists():
            raise
        plane = ControlPlane(parse(last_good.read_bytes(), path, files=False), SystemClock(), as_served=True)
        plane.refuse(error)
        return plane


async def _tick_until(stop: asyncio.Event, process: _Process, plane: ControlPlane) -> None:
    while not stop.is_set():
        await process.run(plane.poll)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), TICK)


async def _ship_the_rest(process: _Process, plane: ControlPlane) -> None:
    """The workers have gone; what they left is folded, within bounds."""
    deadline = asyncio.get_running_loop().time() + LAST_SHIPMENTS
    while asyncio.get_running_loop().time() < deadline:
        await process.run(plane.ship_the_rest)
        if plane.everything_shipped:
            return
        await asyncio.sleep(0.05)


def main() -> None:
    """Entry of the control process; settings come as JSON in the first argument."""
    settings = msgspec.json.decode(sys.argv[1], type=ControlSettings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    configure_logging("control")
    try:
        asyncio.run(_run(settings))
    except GatewayError as error:
        # Words for whoever starts the node; a traceback would bury them.
        log.error("the node cannot start:\n%s", error)  # noqa: TRY400
        sys.exit(78)


if __name__ == "__main__":
    main()
