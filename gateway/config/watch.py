"""Notices that a config file has changed, without being fooled by how it changes.

The owner calls `ConfigWatcher.poll` every half second. Each call reads the path anew, so a file renamed over
it or a symbolic link turned elsewhere is seen like any edit. What is read counts only when the next call
reads the same: half of a file that is being written is often valid YAML. Nothing here logs, waits or starts
a task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from gateway.config.changes import diff, needs_restart, removals
from gateway.config.load import LoadedConfig, digest_of, parse, read_bytes, unreadable
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.clock import Clock

__all__ = [
    "JUDGE_AGAIN",
    "REMOVAL_DELAY",
    "Accepted",
    "Change",
    "ConfigWatcher",
    "Refused",
    "Restored",
    "diff",
    "needs_restart",
]

JUDGE_AGAIN = 5.0  # seconds until a config is judged anew that was refused for the files that it names
REMOVAL_DELAY = 2.0  # seconds that a file which takes something away must stand: time to notice a slip


@dataclass(frozen=True, slots=True)
class Accepted:
    """A new config to serve from, said once; an earlier refusal is over."""

    loaded: LoadedConfig


@dataclass(frozen=True, slots=True)
class Refused:
    """The file cannot be taken; the config in use stays. Said once for each judgement."""

    error: ConfigError
    digest: str  # "" when there was nothing to read
    for_its_files: bool = False  # only for files that it names: these may come while the text stays


@dataclass(frozen=True, slots=True)
class Restored:
    """After something else was told the file holds the config in use again."""

    digest: str


Change: TypeAlias = Accepted | Refused | Restored
_Judged = TypeVar("_Judged", Accepted, Refused, Accepted | Refused)


class ConfigWatcher:
    """Compares a file with the config in use, which its owner names: what was accepted may not be taken after all."""

    def __init__(self, path: Path, in_use: LoadedConfig, clock: Clock) -> None:
        self._path = path
        self._in_use = in_use
        self._clock = clock
        self._last: str | None = None  # digest of the last read, None if that one is in use, "" if unreadable
        self._told: str | None = None  # digest of what was last accepted or refused, None once the file is in use
        self._judge_again_at = math.inf  # what was told
        self._waiting: tuple[Accepted, float] | None = None  # removes something, accepted at that time

    def poll(self) -> Change | None:
        """What the owner should know now, if anything."""
        digest, text = self._read()
        if digest == self._in_use.digest:
            return self._unchanged()
        if not self._stands(digest):
            return None
        if self._waiting is not None:
            return self._accept_in_time(*self._waiting)
        if digest == self._told and self._clock.monotonic() < self._judge_again_at:
            return None
        change = self._judge(text, digest)
        if isinstance(change, Accepted) and removals(self._in_use.config, change.loaded.config):
            self._waiting = change, self._clock.monotonic() + REMOVAL_DELAY
            return None
        return self._tell(change, digest)

    def judge(self) -> Accepted | Refused:
        """What the file holds now, also if that is in use, or takes something away: somebody stands behind it."""
        digest, text = self._read()
        return self._tell(self._judge(text, digest), digest)

    def taken(self, loaded: LoadedConfig) -> None:
        """This is the config in use now."""
        self._in_use = loaded
        self._last = self._told = self._waiting = None

    def _read(self) -> tuple[str, bytes | OSError]:
        """Digest and content of the file; "" and why, if it cannot be read."""
        try:
            text = read_bytes(self._path)
        except OSError as error:
            return "", error
        return digest_of(text), text

    def _stands(self, digest: str) -> bool:
        """Whether this read equals the one before."""
        if digest == self._last:
            return True
        self._last, self._waiting = digest, None
        return False

    def _unchanged(self) -> Restored | None:
        told, self._last, self._told, self._waiting = self._told, None, None, None
        return Restored(self._in_use.digest) if told is not None else None

    def _judge(self, text: bytes | OSError, digest: str) -> Accepted | Refused:
        if isinstance(text, OSError):
            return Refused(unreadable(self._path, text), digest)
        try:
            return Accepted(parse(text, self._path))
        except ConfigError as error:
            return Refused(error, digest, for_its_files=self._well_written(text))

    def _well_written(self, text: bytes) -> bool:
        try:
            parse(text, self._path, files=False)
        except ConfigError:
            return False
        return True

    def _accept_in_time(self, change: Accepted, due: float) -> Accepted | None:
        return self._tell(change, change.loaded.digest) if self._clock.monotonic() >= due else None

    def _tell(self, change: _Judged, digest: str) -> _Judged:
        self._told = digest if digest != self._in_use.digest else None
        self._waiting = None
        again = isinstance(change, Refused) and change.for_its_files
        self._judge_again_at = self._clock.monotonic() + JUDGE_AGAIN if again else math.inf
        return change
