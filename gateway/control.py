"""Composition root of the control process: config and store in, plan out; admin and metrics ports beside it.

One thread runs everything that touches the store or the release (ticks, reloads, commands), so nothing there needs a
lock; the event loop only serves the ports from the last snapshot.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway.admin import views
from gateway.admin.app import admin_app, metrics_app
from gateway.backends.onnx import ModelError
from gateway.clock import Clock, SystemClock
from gateway.config.load import LoadedConfig, load, parse
from gateway.config.watch import Accepted, ConfigWatcher, Refused, diff, needs_restart
from gateway.errors import ConfigError, GatewayError, StoreError
from gateway.http_server import Server, configure
from gateway.node import ControlSettings
from gateway.release.artifacts import Artifacts
from gateway.release.controller import Controller
from gateway.release.keys import load_or_create
from gateway.release.reader import ModelReader
from gateway.release.state import Kind
from gateway.store.sqlite import SqliteStore
from gateway.telemetry.exposition import GatewayCollector, render
from gateway.telemetry.logging import configure as configure_logging

log = logging.getLogger(__name__)

TICK = 0.1  # seconds between two rounds of the control loop
CONFIG_POLL = 0.5  # seconds between two looks at the config file
READ_AGAIN = 5.0  # seconds before model files that could not be served are read again
READING = 30.0  # seconds that whoever asks for a reload waits for its model files to be read
LAST_SHIPMENTS = 5.0  # seconds that a stopping node gives to shipping what its workers left
LAST_GOOD = "config.last-good.yaml"  # in the data directory
T = TypeVar("T")


class ControlPlane:
    """Everything the control process is made of, but the HTTP servers: fake-clock tests drive this directly.

    `poll` may be called from one thread at a time.
    """

    def __init__(self, loaded: LoadedConfig, clock: Clock) -> None:
        self._clock = clock
        config = loaded.config
        for folder in ("spool", "status"):
            (config.data_dir / folder).mkdir(parents=True, exist_ok=True)
        config.store_path.parent.mkdir(parents=True, exist_ok=True)
        self.store = SqliteStore(config.store_path)
        try:
            keys = load_or_create(config.data_dir / "keys.json")
            self.controller = Controller(loaded, self.store, config.data_dir, keys, clock)
        except GatewayError:
            self.store.close()
            raise
        self._waiting: LoadedConfig | None = None  # well written, but not to be taken as things stand
        self._reader = ModelReader()
        self._read_again_at = 0.0  # model files that could not be served before
        self._watcher = ConfigWatcher(loaded.path, loaded, clock)
        self._next_look = clock.monotonic()
        self.reload_status = views.ReloadStatus(clock.wall_us())
        self._started_in = config.data_dir
        self._remember(loaded)
        self._started_with = loaded
        self.snapshot: dict[str, Any] = self._view()

    def poll(self) -> None:
        """One round: tick, look at the config file when it is time, take a new snapshot."""
        self.controller.tick()
        self._take_what_was_read()
        if self._clock.monotonic() >= self._next_look:
            self._next_look = self._clock.monotonic() + CONFIG_POLL
            self._follow_config()
            self.reload_status.changed_models = self.controller.artifacts.changed()
        if not self._reader.busy:
            self.controller.prune()
        self.snapshot = self._view()

    def command(self, endpoint: str, kind: Kind, actor: str, text: str, variant: str = "") -> None:
        self.controller.command(endpoint, kind, actor, text, variant)
        self.snapshot = self._view()

    def reload(self) -> list[str]:
        """Look at the file now; returns what is wrong with it. Model files that changed are read beside (`reading`)."""
        try:
            self._arrive(load(self.controller.loaded.path))
        except ConfigError as error:
            self.refuse(error)
        self.snapshot = self._view()
        return self.reload_status.problems

    @property
    def reading(self) -> bool:
        """Whether a config waits for its model files to be read."""
        return self._reader.wanted is not None

    def exposition(self, accept: str) -> tuple[bytes, str]:
        pages = self.controller.health.pages
        totals = pages.totals(pages.read())
        samples = views.samples(self.controller, self.reload_status, self._clock.wall_us())
        return render(GatewayCollector(lambda: (totals, samples)), accept)

    def ship_the_rest(self) -> None:
        """After the workers have gone: fold what they left."""
        self.controller.tick()

    @property
    def everything_shipped(self) -> bool:
        return self.controller.engine.everything_read

    def close(self) -> None:
        self.store.close()

    def _view(self) -> dict[str, Any]:
        self.reload_status.reading_models = self.reading
        return views.status(self.controller, self.reload_status, self._clock.wall_us())

    def _follow_config(self) -> None:
        change = self._watcher.poll()
        if isinstance(change, Accepted):
            self._arrive(change.loaded)
        elif isinstance(change, Refused):
            self._waiting = None
            self._reader.want(None)
            self.refuse(change.error)
        elif change is None and self._waiting is not None:
            if self._clock.monotonic() >= self._read_again_at:
                self._arrive(self._waiting)
        elif change is not None:
            self.reload_status.problems = []
            log.info("the config file holds the config in use again")

    def _arrive(self, loaded: LoadedConfig) -> None:
        """Take a config, at once if nothing of its models must be read first."""
        self._waiting = None
        if self.controller.artifacts.has_read(loaded.config):
            self._reader.want(None)
            self._take(loaded)
        else:
            self._reader.want(loaded)

    def _take_what_was_read(self) -> None:
        loaded = self._reader.wanted
        try:
            read = self._reader.poll(self.controller.artifacts)
        except ConfigError as error:
            # A half-copied file, no memory: that may pass.
            self._waiting, self._read_again_at = loaded, self._clock.monotonic() + READ_AGAIN
            self.refuse(error)
            return
        if loaded is not None and read is not None:
            self._take(loaded, read)

    def _take(self, loaded: LoadedConfig, read: Artifacts | None = None) -> None:
        before = self.controller.loaded
        try:
            self.controller.take(loaded, read)
        except (StoreError, ConfigError, ModelError) as error:
            # What is in the way may pass: the store comes back, a person rolls back, a model file arrives.
            self._waiting = loaded
            self.refuse(error)
            return
        self._waiting = None
        self._remember(loaded)
        restart = needs_restart(self._started_with.config, loaded.config)
        self.reload_status = views.ReloadStatus(self._clock.wall_us(), [], restart)
        for line in diff(before.config, loaded.config):
            log.info("config: %s", line)
        for key in restart:
            log.warning("config: %s changes at the next restart only", key)

    def _remember(self, loaded: LoadedConfig) -> None:
        path = self._started_in / LAST_GOOD
        temporary = path.with_suffix(".new")
        try:
            temporary.write_bytes(loaded.text)
            temporary.replace(path)
        except OSError as error:
            log.error("the config could not be kept for a restart: %s", error)  # noqa: TRY400

    def refuse(self, error: GatewayError) -> None:
        known = self.reload_status.problems
        self.reload_status.refuse(error)
        if self.reload_status.problems != known:
            log.error("the config was refused, the last good one stays:\n%s", error)


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
        return await self.run(lambda: self._plane.exposition(accept))

    async def reload(self) -> list[str]:
        problems = await self.run(self._plane.reload)
        deadline = asyncio.get_running_loop().time() + READING
        while self._plane.reading:
            if asyncio.get_running_loop().time() > deadline:
                return ["the model files are still being read; `gateway status` tells when they are taken"]
            await asyncio.sleep(TICK)
            problems = self._plane.reload_status.problems
        return problems

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


async def _run(settings: ControlSettings) -> None:
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
    """Serving from the file; after a crash in front of a file that is refused, from the last good one."""
    try:
        return ControlPlane(load(path), SystemClock())
    except ConfigError as error:
        if not last_good.exists():
            raise
        plane = ControlPlane(parse(last_good.read_bytes(), path), SystemClock())
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
    configure_logging("control")
    try:
        asyncio.run(_run(settings))
    except GatewayError as error:
        # Words for whoever starts the node; a traceback would bury them.
        log.error("the node cannot start:\n%s", error)  # noqa: TRY400
        sys.exit(78)


if __name__ == "__main__":
    main()
