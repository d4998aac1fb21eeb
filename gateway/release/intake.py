"""From an edited file to the config in use: when it is taken, why it is not, and what it waits for.

A config waits for its model files to be read, for a store that has failed, or for a person who must roll back first;
the last good one serves on, and nothing else waits with it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from gateway.backends.onnx import ModelError
from gateway.clock import Clock
from gateway.config.load import LoadedConfig
from gateway.config.watch import Accepted, Change, ConfigWatcher, Refused, diff, needs_restart
from gateway.errors import ConfigError, GatewayError, StoreError
from gateway.release.artifacts import Artifacts
from gateway.release.controller import Controller
from gateway.release.reader import ModelReader

log = logging.getLogger(__name__)

CONFIG_POLL = 0.5  # seconds between two looks at the config file
READ_AGAIN = 5.0  # seconds before model files that could not be served are read again


@dataclass(slots=True)
class ReloadStatus:
    """How the config file on disk relates to the one in use."""

    accepted_at_us: int
    problems: list[str] = field(default_factory=list)
    needs_restart: list[str] = field(default_factory=list)
    changed_models: list[Path] = field(default_factory=list)  # files that are no longer what is served
    reading_models: bool = False  # of a config that will be taken then

    def refuse(self, error: Exception) -> None:
        self.problems = [str(p) for p in error.problems] if isinstance(error, ConfigError) else [str(error)]


class Intake:
    """Follows the config file of one node; `last_good` is where the config in use is kept for a restart."""

    def __init__(self, controller: Controller, last_good: Path, clock: Clock) -> None:
        self._controller = controller
        self._last_good = last_good
        self._clock = clock
        self._watcher = ConfigWatcher(controller.loaded.path, controller.loaded, clock)
        self._next_look = clock.monotonic()
        self._waiting: LoadedConfig | None = None  # well written, but not to be taken as things stand
        self._reader = ModelReader(clock)
        self._read_again_at = clock.monotonic()
        self._started_with = controller.loaded
        self.status = ReloadStatus(clock.wall_us())
        self._remember(controller.loaded)

    @property
    def idle(self) -> bool:
        """Whether no model file is being read."""
        return not self._reader.busy

    def look(self) -> None:
        """Take what has been read meanwhile, and look at the config file when it is time."""
        self._take_what_was_read()
        if self._clock.monotonic() >= self._next_look:
            self._next_look = self._clock.monotonic() + CONFIG_POLL
            self._follow()
            self.status.changed_models = self._controller.artifacts.changed()
        self.status.reading_models = self._reader.wanted is not None

    def reload(self) -> None:
        """Look at the file now, and at its model files, which are read beside (`status.reading_models`)."""
        self._heed(self._watcher.judge())
        self.status.reading_models = self._reader.wanted is not None

    def refuse(self, error: GatewayError) -> None:
        known = self.status.problems
        self.status.refuse(error)
        if self.status.problems != known:
            log.error("the config was refused, the last good one stays:\n%s", error)

    def _follow(self) -> None:
        if (change := self._watcher.poll()) is not None:
            self._heed(change)
        elif self._waiting is not None and self._clock.monotonic() >= self._read_again_at:
            self._arrive(self._waiting)

    def _heed(self, change: Change) -> None:
        if isinstance(change, Accepted):
            self._arrive(change.loaded)
            return
        self._waiting = None
        self._reader.want(None)
        if isinstance(change, Refused):
            self.refuse(change.error)
        else:
            self.status.problems = []
            log.info("the config file holds the config in use again")

    def _arrive(self, loaded: LoadedConfig) -> None:
        """Take a config, at once if nothing of its models must be read first."""
        self._waiting = None
        if self._controller.artifacts.has_read(loaded.config):
            self._reader.want(None)
            self._take(loaded)
        else:
            self._reader.want(loaded)

    def _take_what_was_read(self) -> None:
        loaded = self._reader.wanted
        try:
            read = self._reader.poll(self._controller.artifacts)
        except ConfigError as error:
            # A half-copied file, no memory: that may pass.
            self._waiting, self._read_again_at = loaded, self._clock.monotonic() + READ_AGAIN
            self.refuse(error)
            return
        if loaded is not None and read is not None:
            self._take(loaded, read)

    def _take(self, loaded: LoadedConfig, read: Artifacts | None = None) -> None:
        before = self._controller.loaded
        try:
            self._controller.take(loaded, read)
        except (StoreError, ConfigError, ModelError) as error:
            # What is in the way may pass: the store comes back, a person rolls back, a model file arrives.
            self._waiting = loaded
            self.refuse(error)
            return
        self._watcher.taken(loaded)
        self._remember(loaded)
        restart = needs_restart(self._started_with.config, loaded.config)
        self.status = ReloadStatus(self._clock.wall_us(), [], restart)
        for line in diff(before.config, loaded.config):
            log.info("config: %s", line)
        for key in restart:
            log.warning("config: %s changes at the next restart only", key)

    def _remember(self, loaded: LoadedConfig) -> None:
        temporary = self._last_good.with_suffix(".new")
        try:
            temporary.unlink(missing_ok=True)
            temporary.touch(mode=0o600)  # headers that are set may be secrets
            temporary.write_bytes(loaded.text)
            temporary.replace(self._last_good)
        except OSError as error:
            log.error("the config could not be kept for a restart: %s", error)  # noqa: TRY400
