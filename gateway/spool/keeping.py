"""What of the spools may go: a segment is kept for a day after it was shipped, or for as long as there is room.

What is not shipped is never deleted. When a segment was first seen shipped is kept with the file itself, so that no
restart makes it live longer: from then on it is read-only, and its modification time is that moment.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from gateway.clock import Clock
from gateway.files import is_locked
from gateway.spool.format import Position, parse_name
from gateway.spool.reader import StreamId

log = logging.getLogger(__name__)

FULL = 0.75  # of the bound: beyond it shipped segments go before their time, so that the rest is there for new facts
_LEFTOVER_US = 3600 * 1_000_000  # a file under a hidden name is there for a moment, or its maker was killed


class Cursor(Protocol):
    """How far a stream is in the store."""

    @property
    def position(self) -> Position: ...
    @property
    def finished(self) -> bool: ...


class Segment(NamedTuple):
    """A file of a stream. `shipped_at` is microseconds since the epoch, None while some of it is not in the store."""

    path: Path
    number: int
    size: int
    shipped_at: int | None


class Tidied(NamedTuple):
    """What a look at the folder came to."""

    deleted: list[Path]
    bytes: int  # that are left
    unshipped: int  # of them in segments that are not, or not wholly, in the store


def expendable(segments: Iterable[Segment], shipped_before: int, surplus: int) -> list[Segment]:
    """Which to delete: all that were shipped before a time, and of the others the oldest until `surplus` bytes went."""
    shipped = [one for one in segments if one.shipped_at is not None]
    gone: list[Segment] = []
    for segment in sorted(shipped, key=lambda one: (one.shipped_at, one.number, one.path)):
        assert segment.shipped_at is not None
        if segment.shipped_at > shipped_before and surplus <= 0:
            break
        gone.append(segment)
        surplus -= segment.size
    return gone


class Keeper:
    """Tidies the spool folder of a node. The only one that deletes there, so call it from one process."""

    def __init__(self, directory: Path, clock: Clock, keep_seconds: float, max_bytes: int) -> None:
        self.keep_seconds = keep_seconds
        self.max_bytes = max_bytes
        self._directory = directory
        self._clock = clock
        self._troubled = False  # the system does not let us, which has been said

    def tidy(self, cursors: Mapping[StreamId, Cursor]) -> Tidied:
        """Delete what may go. `cursors` are those that are committed; raises nothing but what `scandir` does."""
        now = self._clock.wall_us()
        files = list(_files(self._directory))
        segments = [one for path, status in files if (one := self._segment(path, status, cursors, now)) is not None]
        total = sum(status.st_size for _, status in files)
        surplus = total - int(FULL * self.max_bytes)
        doomed = expendable(segments, now - round(self.keep_seconds * 1e6), surplus)
        leftovers = [(path, status.st_size) for path, status in files if _is_leftover(path, status, now)]
        deleted = [
            (path, size)
            for path, size in [*((one.path, one.size) for one in doomed), *leftovers]
            if self._attempt(path.unlink)
        ]
        unshipped = sum(one.size for one in segments if one.shipped_at is None)
        return Tidied([path for path, _ in deleted], total - sum(size for _, size in deleted), unshipped)

    def _segment(
        self, path: Path, status: os.stat_result, cursors: Mapping[StreamId, Cursor], now: int
    ) -> Segment | None:
        if (parsed := parse_name(path)) is None:
            return None
        spool, stream, number = parsed
        cursor = cursors.get(StreamId(spool, stream))
        shipped = cursor is not None and (cursor.finished or number < cursor.position.segment)
        at = self._shipped_at(path, status, now) if shipped else None
        return Segment(path, number, status.st_size, at)

    def _shipped_at(self, path: Path, status: os.stat_result, now: int) -> int:
        if not status.st_mode & stat.S_IWUSR:
            return min(now, status.st_mtime_ns // 1000)
        # The time first: killed in between, the next look just begins anew.
        if self._attempt(lambda: os.utime(path, ns=(now * 1000, now * 1000))):
            self._attempt(lambda: path.chmod(0o400))
        return now

    def _attempt(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except FileNotFoundError:
            return True
        except OSError as error:
            if not self._troubled:
                log.warning("%s: shipped segments stay: %s", self._directory, error)
            self._troubled = True
            return False
        self._troubled = False
        return True


def _files(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                yield Path(entry.path), status


def _is_leftover(path: Path, status: os.stat_result, now: int) -> bool:
    hidden = path.name.startswith(".") and path.name.endswith(".new")
    if not hidden or status.st_mtime_ns // 1000 >= now - _LEFTOVER_US:
        return False
    try:
        return not is_locked(path)
    except OSError:
        return False
