"""Notices that a config file has changed, without being fooled by how it changes.

The owner calls `ConfigWatcher.poll` every half second. Each call reads the path anew, so a file renamed over
it or a symbolic link turned elsewhere is seen like any edit. What is read counts only when the next call
reads the same: half of a file that is being written is often valid YAML. Nothing here logs, waits or starts
a task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from gateway.config.changes import diff, needs_restart, removals
from gateway.config.load import LoadedConfig, digest_of, parse, read_bytes, unreadable
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.clock import Clock

__all__ = [
    "REMOVAL_DELAY",
    "Accepted",
    "Change",
    "ConfigWatcher",
    "Refused",
    "Restored",
    "diff",
    "needs_restart",
]

REMOVAL_DELAY = 2.0  # seconds that a file which takes something away must stand: time to notice a slip


@dataclass(frozen=True, slots=True)
class Accepted:
    """A new config to serve from; an earlier refusal is over."""

    loaded: LoadedConfig


@dataclass(frozen=True, slots=True)
class Refused:
    """The file cannot be taken; the current config stays. Said once for each content."""

    error: ConfigError
    digest: str  # "" when there was nothing to read


@dataclass(frozen=True, slots=True)
class Restored:
    """After a refusal the file holds the current config again."""

    digest: str


Change: TypeAlias = Accepted | Refused | Restored


class ConfigWatcher:
    """Compares a file with the config in use."""

    def __init__(self, path: Path, current: LoadedConfig, clock: Clock) -> None:
        self._path = path
        self._current = current
        self._clock = clock
        self._last: str | None = None  # digest of the last read, None if the current one, "" if unreadable
        self._refused: str | None = None  # digest of the last refusal
        self._waiting: tuple[LoadedConfig, float] | None = None  # removes something, taken at that time

    def poll(self) -> Change | None:
        """What the owner should know now, if anything."""
        try:
            text = read_bytes(self._path)
        except OSError as error:
            return self._refuse(unreadable(self._path, error), "") if self._stands("") else None
        digest = digest_of(text)
        if digest == self._current.digest:
            return self._unchanged()
        if not self._stands(digest) or digest == self._refused:
            return None
        if self._waiting is not None:
            return self._take_in_time(*self._waiting)
        return self._take(text, digest)

    def retry(self) -> None:
        """Judge a refused file anew: a model file that it names may have arrived since."""
        self._refused = None

    def _stands(self, digest: str) -> bool:
        """Whether this read equals the one before."""
        if digest == self._last:
            return True
        self._last, self._waiting = digest, None
        return False

    def _unchanged(self) -> Restored | None:
        self._last = self._waiting = None
        if self._refused is None:
            return None
        self._refused = None
        return Restored(self._current.digest)

    def _take(self, text: bytes, digest: str) -> Change | None:
        try:
            loaded = parse(text, self._path)
        except ConfigError as error:
            return self._refuse(error, digest)
        if removals(self._current.config, loaded.config):
            self._waiting = (loaded, self._clock.monotonic() + REMOVAL_DELAY)
            return None
        return self._accept(loaded)

    def _take_in_time(self, loaded: LoadedConfig, due: float) -> Accepted | None:
        return self._accept(loaded) if self._clock.monotonic() >= due else None

    def _accept(self, loaded: LoadedConfig) -> Accepted:
        self._current = loaded
        self._last = self._refused = self._waiting = None
        return Accepted(loaded)

    def _refuse(self, error: ConfigError, digest: str) -> Refused | None:
        if digest == self._refused:
            return None
        self._refused = digest
        return Refused(error, digest)
